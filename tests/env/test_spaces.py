from __future__ import annotations

import numpy as np
import pytest
from gymnasium import spaces as gym_spaces
from gymnasium.error import CustomSpaceError
from gymnasium.vector.utils import batch_space, create_shared_memory

from paravt_env.spaces import (
    UnicodeText,
    action_space,
    batch_actions,
    empty_action,
    empty_batch,
    observation_space,
    seal_batch,
    unbatch,
)


def test_text_contains_every_string_and_nothing_else():
    text = UnicodeText()
    assert all(value in text for value in ("", "é中😀", "\ud800", "x" * 1_000_000))
    assert not any(value in text for value in (b"x", 3, None, ["x"], np.array("x")))


def test_text_samples_reproducibly_within_its_length():
    first, second = UnicodeText(5, seed=1), UnicodeText(5, seed=1)
    drawn = [first.sample() for _ in range(200)]
    assert drawn == [second.sample() for _ in range(200)]
    assert {len(value) for value in drawn} == {0, 1, 2, 3, 4, 5}
    assert UnicodeText(0).sample() == ""
    with pytest.raises(ValueError, match="no mask"):
        first.sample(mask=np.ones(2))


def test_text_equality_and_json():
    assert UnicodeText(3) == UnicodeText(3) != UnicodeText(4)
    assert UnicodeText() != gym_spaces.Text(4)
    assert UnicodeText().from_jsonable(UnicodeText().to_jsonable(["é", ""])) == ["é", ""]


def test_text_has_no_shared_memory_so_that_gymnasium_raises():
    with pytest.raises(CustomSpaceError):
        create_shared_memory(observation_space(2, 4, 4, 2, 3), n=2)


def test_observation_shapes_are_the_documented_ones():
    space = observation_space(frames=6, height=10, width=20, max_crops=3, max_turns=2)
    shapes = {
        key: child.shape for key, child in space.spaces.items() if isinstance(child, gym_spaces.Box)
    }
    assert shapes == {
        "frames": (6, 10, 20, 3),
        "timestamps": (6,),
        "window": (6,),
        "crop_status": (3,),
    }
    assert space["turn"].n == 4
    assert space["window"].low.min() == -1 and space["window"].high.max() == 3
    assert space["crop_status"].high.max() == 13
    assert space["crop_status"].dtype == np.int8 and space["window"].dtype == np.int16
    assert set(space["video"].spaces) == {"duration", "fps", "width", "height"}


def test_sampled_action_has_no_completion():
    space = action_space(2)
    space.seed(0)
    samples = [space.sample() for _ in range(50)]
    assert {sample["completion"] for sample in samples} == {""}
    assert len({sample["answer"] for sample in samples}) > 20
    assert samples[0]["crops"].dtype == np.float64


def test_batching_actions_and_taking_them_apart():
    single = action_space(2)
    one = {**empty_action(2), "answer": "é"}
    one["crops"][1], one["crop_mask"][1] = (np.nan, 3.5), 1
    batch = batch_actions([None, one], 2)
    assert batch_actions([None, {**one, "crops": np.ones((2, 2))}], 2) in batch_space(single, 2)
    back = unbatch(batch, 1, single)
    np.testing.assert_array_equal(back["crops"], [[0, 0], [np.nan, 3.5]])
    assert (back["answer"], back["crop_mask"].tolist()) == ("é", [0, 1])
    assert unbatch(batch, 0, single)["answer"] == ""


def test_empty_batch_is_a_member_of_the_batched_space_and_of_the_single_one():
    single = observation_space(2, 4, 6, 2, 3)
    batch = seal_batch(empty_batch(single, 3))
    assert batch in batch_space(single, 3)
    assert unbatch(batch, 2, single) in single


def test_a_row_without_a_space_is_what_stands_there():
    observations = {
        "turn": np.array([1, 2]),
        "video": {"fps": np.array([4.0, 8.0])},
        "said": ("a", "b"),
    }
    assert unbatch(observations, 1) == {"turn": 2, "video": {"fps": 8.0}, "said": "b"}
    assert unbatch({"crops": np.zeros((2, 3, 2))}, 0)["crops"].shape == (3, 2)


def test_a_row_of_infos_holds_what_its_masks_allow():
    infos = {"r": np.array([1.0, 0.0]), "_r": np.array([True, False]), "of_no_row": 3}
    assert unbatch(infos, 0) == {"r": 1.0}
    assert unbatch(infos, 1) == {}
    statistics = {"episode": {"r": np.array([1.0, 2.0])}, "_episode": np.array([False, True])}
    assert [unbatch(statistics, row) for row in (0, 1)] == [{}, {"episode": {"r": 2.0}}]
