from __future__ import annotations

import copy
import pickle
import threading

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from gymnasium.vector.utils import batch_space
from support.builders import SIZE, ListTasks, act, make_task, same, write_manifest

from paravt_env.env import LongVideoEnv
from paravt_env.episode import decoder
from paravt_env.episode.episode import StopReason
from paravt_env.protocol import action_from_completion, render_completion
from paravt_env.spaces import batch_actions, unbatch

CALL = (1.0, 2.0)


def batch(*actions):
    return batch_actions(actions, 3)


def row_info(infos, row):
    """The info of one row, as a single environment would give it."""
    return {
        key: row_info(value, row) if isinstance(value, dict) else value[row]
        for key, value in infos.items()
        if not key.startswith("_") and infos[f"_{key}"][row]
    }


def plain(value):
    """An info without NumPy's scalar types, which batching adds."""
    if isinstance(value, dict):
        return {key: plain(child) for key, child in value.items()}
    return value.item() if isinstance(value, np.generic) else value


# --- equal to single environments -----------------------------------------------------------------


def random_action(generator):
    windows = [tuple(generator.uniform(-5, 40, 2)) for _ in range(generator.integers(0, 4))]
    action = act(*windows, answer=["", "A", "B"][generator.integers(3)])
    if generator.random() < 0.4:
        answer = None if action["answer"] == "" else action["answer"]
        text = render_completion("I look.", [(int(a), int(b)) for a, b in windows], answer)
        return action_from_completion(
            text.replace("crop_video", "zoom", int(generator.integers(2))), 3
        )
    return action


@pytest.mark.parametrize(
    "settings", [{}, {"force_answer": False, "max_turns": 2}, {"max_crop_seconds": 10.0}]
)
def test_vector_equals_singles_bit_by_bit(make_env, make_vector, settings):
    settings = {"frame_budget": {"kind": "choice", "values": [2, 5]}, **settings}
    rows, generator = 5, np.random.default_rng(1)
    vector, singles = make_vector(rows, **settings), [make_env(**settings) for _ in range(rows)]
    space = singles[0].observation_space
    for seeds in ([3, 3, 4, 5, 6], None):
        observations, infos = vector.reset(seed=seeds)
        for row, single in enumerate(singles):
            observation, info = single.reset(seed=None if seeds is None else seeds[row])
            assert same(unbatch(observations, row, space), observation)
            assert same(plain(row_info(infos, row)), info)
        done = np.zeros(rows, bool)
        while not done.all():
            actions = [random_action(generator) for _ in range(rows)]
            observations, rewards, terminated, truncated, infos = vector.step(batch(*actions))
            assert observations in vector.observation_space
            for row in np.flatnonzero(~done):
                observation, reward, end, cut, info = singles[row].step(actions[row])
                assert same(unbatch(observations, row, space), observation)
                assert (reward, end, cut) == (rewards[row], terminated[row], truncated[row])
                assert same(plain(row_info(infos, row)), info)
            done |= terminated | truncated


def test_spaces_are_the_batched_single_ones(make_env, make_vector):
    vector, single = make_vector(3), make_env()
    assert vector.single_observation_space == single.observation_space
    assert vector.observation_space == batch_space(single.observation_space, 3)
    assert vector.reset(seed=0)[0] in vector.observation_space
    vector.action_space.seed(0)
    for _ in range(3):
        vector.step(vector.action_space.sample())


def test_make_vec_builds_it_from_the_id(clip, tmp_path):
    from pathlib import Path

    manifest = write_manifest(Path(clip).parent / "vector.jsonl", [make_task(clip)])
    vector = gym.make_vec(
        "paravt_env:ParaVT-LongVideo-v0", num_envs=2, tasks=manifest, frame_size=SIZE
    )
    assert type(vector).__name__ == "LongVideoVectorEnv"
    assert vector.metadata["autoreset_mode"] == AutoresetMode.DISABLED
    assert vector.reset(seed=0)[1]["task_id"].tolist() == ["colour"] * 2
    vector.close()


# --- idle rows ------------------------------------------------------------------------------------


def test_finished_row_ends_once_then_idles_until_reset(make_vector):
    vector = make_vector(2)
    vector.reset(seed=0)
    _, rewards, terminated, _, infos = vector.step(batch(act(answer="B"), act(CALL)))
    assert terminated.tolist() == [True, False] and vector.idle.tolist() == [True, False]
    observations, rewards, terminated, truncated, infos = vector.step(
        batch(act(answer="B"), act(CALL))
    )
    assert rewards.tolist() == [0, 0] and not terminated.any() and not truncated.any()
    idle = unbatch(observations, 0, vector.single_observation_space)
    assert idle["question"] == "" and not idle["frames"].any() and not idle["window"].any()
    assert infos["_task_id"].tolist() == [False, True]
    observations, infos = vector.reset(options={"reset_mask": np.array([True, False])})
    assert infos["_task_id"].tolist() == [True, False]
    assert observations["turn"].tolist() == [0, 2] and vector.idle.tolist() == [False, False]


def test_truncated_row_idles_too(make_vector):
    vector = make_vector(2, force_answer=False, max_turns=1)
    vector.reset(seed=0)
    _, _, terminated, truncated, _ = vector.step(batch(act(CALL), act(CALL)))
    assert truncated.tolist() == [True, True] and not terminated.any()
    assert vector.idle.tolist() == [True, True]
    _, _, terminated, truncated, infos = vector.step(batch(act(CALL), act(CALL)))
    assert not terminated.any() and not truncated.any() and infos == {}


def test_rows_outside_the_mask_keep_what_they_showed(make_vector):
    vector = make_vector(2)
    vector.reset(seed=0)
    before = vector.step(batch(act(CALL), act((3, 5))))[0]
    after = vector.reset(options={"reset_mask": np.array([True, False])})[0]
    single = vector.single_observation_space
    assert same(unbatch(after, 1, single), unbatch(before, 1, single))
    assert not same(unbatch(after, 0, single), unbatch(before, 0, single))


def test_action_of_an_idle_row_is_ignored_and_nothing_runs_before_a_reset(make_vector):
    vector = make_vector(2)
    _, _, terminated, truncated, infos = vector.step(batch(act(CALL), None))
    assert not terminated.any() and not truncated.any() and infos == {}
    vector.reset(seed=0)
    vector.step(batch(act(answer="B"), act(CALL)))
    contradiction = {**act(CALL), "completion": "<answer>B</answer>"}
    vector.step(batch(contradiction, act(CALL)))
    with pytest.raises(ValueError, match="not those of its completion"):
        vector.step(batch(None, contradiction))


# --- groups, seeds, options -----------------------------------------------------------------------


def test_group_shares_its_start_by_seed_or_by_options(make_vector):
    vector = make_vector(4, frame_budget=None)
    single = vector.single_observation_space
    for arguments in (
        {"seed": [9] * 4},
        {"seed": 1, "options": {"task_id": "shape", "frame_budget": 6}},
        {"options": {"task_id": ["shape"] * 4, "frame_budget": np.full(4, 6)}},
    ):
        observations, infos = vector.reset(**arguments)
        rows = [unbatch(observations, row, single) for row in range(4)]
        assert all(same(rows[0], row) for row in rows)
        assert len(set(infos["frame_budget"].tolist())) == len(set(infos["task_id"])) == 1
    assert infos["frame_budget"].tolist() == [6] * 4


def test_integer_seed_counts_up_and_none_continues(make_vector):
    vector, twin = make_vector(3), make_vector(3)
    assert same(vector.reset(seed=4), twin.reset(seed=[4, 5, 6]))
    assert same(vector.reset(), twin.reset(seed=[None] * 3))
    assert same(vector.reset(seed=np.int64(4)), twin.reset(seed=np.array([4, 5, 6])))
    assert len({vector.reset(seed=s)[1]["task_id"][0] for s in range(12)}) > 1


def test_per_row_options_leave_none_to_the_draw(make_vector):
    vector = make_vector(2, frame_budget=3)
    infos = vector.reset(seed=0, options={"task_id": [None, "name"], "frame_budget": [7, None]})[1]
    drawn = vector.reset(seed=0)[1]["task_id"][0]
    assert infos["task_id"].tolist() == [drawn, "name"] and infos["frame_budget"].tolist() == [7, 3]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seed": [1, 2, 3]}, "seed has 3 values for 2 rows"),
        ({"seed": 1.5}, "seed must be a whole number"),
        ({"seed": -1}, "seed must be a whole number"),
        ({"seed": "7"}, "seed must be a whole number"),
        ({"seed": [1.7, 2.9]}, r"not \[1.7, 2.9\]"),
        ({"seed": np.array([1.7, 2.9])}, "seed must be a whole number"),
        ({"seed": np.array(7)}, "seed must be a whole number"),
        ({"options": {"frame_budget": 4.0}}, "whole number from 0 to 12.*not 4.0"),
        ({"options": {"frame_budget": [4, 4.0]}}, "whole number from 0 to 12.*not 4.0"),
        ({"options": {"task_id": ["colour"]}}, "task_id has 1 values for 2 rows"),
        ({"options": {"task_id": "color"}}, "no task 'color'"),
        ({"options": {"frame_budget": [4, 99]}}, "from 0 to 12"),
        ({"options": {"reset_mask": np.array([1, 0])}}, "bool array"),
        ({"options": {"reset_mask": np.zeros(2, bool)}}, "bool array"),
        ({"options": {"reset_mask": np.ones(3, bool)}}, "shape"),
        ({"options": {"resetmask": np.ones(2, bool)}}, "did you mean 'reset_mask'"),
    ],
)
def test_bad_reset_says_what_to_do(make_vector, arguments, message):
    vector = make_vector(2)
    with pytest.raises(ValueError, match=message):
        vector.reset(**arguments)
    assert vector.idle.all()


def test_bad_batches_and_counts_raise(make_vector):
    with pytest.raises(ValueError, match="num_envs"):
        make_vector(0)
    vector = make_vector(2)
    vector.reset(seed=0)
    with pytest.raises(ValueError, match="batch_actions"):
        vector.step(batch(act()))
    with pytest.raises(ValueError, match="batch_actions"):
        vector.step({"crops": np.zeros((2, 3, 2))})
    with pytest.raises(ValueError, match="batch_actions"):
        vector.step(None)
    for key, wrong in (("crops", None), ("crop_mask", 1), ("answer", "BB"), ("completion", None)):
        with pytest.raises(ValueError, match=f"needs '{key}' with one entry for each of the 2"):
            vector.step({**batch(act(), act()), key: wrong})
    with pytest.raises(ValueError, match="crops must have shape"):
        vector.step({**batch(act(), act()), "crops": [[[1.0, 2.0]], [[1.0, 2.0]]]})


def test_arrays_may_be_nested_lists_as_in_a_single_environment(make_vector):
    vector, twin = make_vector(2), make_vector(2)
    arrays = batch(act(CALL), act((3, 5), (7, 8)))
    lists = {key: getattr(value, "tolist", lambda v=value: v)() for key, value in arrays.items()}
    assert isinstance(lists["crops"], list)
    vector.reset(seed=0)
    twin.reset(seed=0)
    assert same(vector.step(lists), twin.step(arrays))


# --- one pool -------------------------------------------------------------------------------------


def test_all_rows_crops_go_to_one_call(make_vector, monkeypatch):
    calls = []
    run_crops = decoder.run_crops

    def counting(requests, *args, **kwargs):
        calls.append(len(requests))
        return run_crops(requests, *args, **kwargs)

    monkeypatch.setattr(decoder, "run_crops", counting)
    vector = make_vector(3)
    vector.reset(seed=0)
    vector.step(batch(act(CALL, (3, 4)), act((5, 4)), act((6, 7))))
    assert calls == [3]


def test_group_decodes_its_overview_and_its_common_crops_once(make_vector):
    vector = make_vector(8)
    vector.reset(seed=[2] * 8, options={"frame_budget": 5})
    store = vector.simulation.video.store
    assert store.decoded == 5
    vector.step(batch(*[act((1.0, 4.0))] * 8))
    assert store.decoded == 8


def test_overviews_of_different_rows_are_opened_concurrently(
    make_vector, clip, other_clip, monkeypatch
):
    vector = make_vector(2, video_workers=2)
    store = vector.simulation.video.store
    meeting, info = threading.Barrier(2), store.info

    def meet(path, deadline=None):
        meeting.wait(10)  # both rows are here at the same time, or this raises
        return info(path, deadline)

    monkeypatch.setattr(store, "info", meet)
    vector.reset(seed=0, options={"task_id": ["colour", "shape"]})
    assert not vector.idle.any()


def test_an_observation_that_was_handed_out_stays_and_is_the_callers_own(make_vector):
    vector = make_vector(2)
    first = vector.reset(seed=[3, 3])[0]
    before = copy.deepcopy(first)
    second = vector.step(batch(act(CALL), act((3, 5))))[0]
    assert same(first, before), "a later step does not write into an earlier observation"
    assert not np.shares_memory(first["frames"], second["frames"])
    first["frames"][0] = 7
    assert same(vector.reset(seed=[3, 3])[0], before), "nor does a caller into the store's frames"


# --- failed resets --------------------------------------------------------------------------------


@pytest.fixture
def broken(clip):
    return ListTasks([make_task(clip, "fine"), make_task("/nowhere/gone.mp4", "gone")])


def test_defect_20_failed_reset_is_a_finished_row_that_is_never_scored(make_vector, broken):
    vector = make_vector(3, tasks=broken)
    observations, infos = vector.reset(seed=0, options={"task_id": ["fine", "gone", "fine"]})
    assert infos["stop_reason"][1] == StopReason.video_error
    assert infos["_stop_reason"].tolist() == [False, True, False]
    assert "gone.mp4" in infos["error"][1] and "'gone'" in infos["error"][1]
    assert infos["task_id"].tolist() == ["fine", "gone", "fine"]
    assert infos["frames_seen"].tolist() == [4, 0, 4]
    assert vector.idle.tolist() == [False, True, False]
    assert not observations["frames"][1].any() and observations["question"][1] == ""

    _, rewards, terminated, truncated, infos = vector.step(batch(act(CALL), None, act(answer="B")))
    assert truncated.tolist() == [False, True, False] and terminated.tolist() == [
        False,
        False,
        True,
    ]
    assert rewards[1] == 0 and infos["stop_reason"][1] == StopReason.video_error
    assert infos["_reward_terms"].tolist() == [False, False, True]
    _, _, terminated, truncated, infos = vector.step(batch(act(answer="B"), None, None))
    assert not truncated.any() and infos["_stop_reason"].tolist() == [True, False, False]

    vector.reset(options={"reset_mask": np.array([False, True, False]), "task_id": "fine"})
    assert vector.idle.tolist() == [True, False, True]
    assert vector.step(batch(None, act(answer="B"), None))[1][1] > 0


def test_task_and_transcript_of_a_row(make_vector, broken):
    vector = make_vector(2, tasks=broken)
    with pytest.raises(RuntimeError, match="reset"):
        vector.task_of(0)
    vector.reset(seed=0, options={"task_id": ["fine", "gone"]})
    assert (vector.task_of(0).id, vector.task_of(1).id) == ("fine", "gone")
    vector.step(batch(act(CALL), None))
    assert vector.transcript_of(0).executed
    with pytest.raises(RuntimeError, match=r"gone\.mp4"):
        vector.transcript_of(1)


def test_pickled_vector_goes_on(make_vector):
    vector = make_vector(2)
    vector.reset(seed=0)
    other = pickle.loads(pickle.dumps(vector))
    actions = batch(act(CALL), act((3, 5)))
    assert same(vector.step(actions), other.step(actions))
    assert same(vector.reset(), other.reset())
    other.close()


def test_render_gives_one_entry_a_row(make_vector):
    vector = make_vector(2, render_mode="ansi")
    vector.reset(seed=0, options={"task_id": "colour"})
    vector.step(batch(act(answer="B"), act(CALL)))
    idle, running = vector.render()
    assert "overview" not in idle and "call 1: 1 frames" in running


# --- Gymnasium's own vectorisation ----------------------------------------------------------------


def build(tasks):
    return LongVideoEnv(tasks, frame_size=SIZE, max_crops=3, frames_per_crop=4, frame_budget=4)


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_stock_vectorisation_works_and_agrees(tasks, make_vector, kind):
    def one():
        return build(tasks)

    stock = (
        SyncVectorEnv([one] * 2)
        if kind == "sync"
        else AsyncVectorEnv([one] * 2, shared_memory=False)
    )
    ours = make_vector(2)
    try:
        assert same(stock.reset(seed=3)[0], ours.reset(seed=3)[0])
        actions = batch(act(CALL), act((3, 5)))
        assert same(stock.step(actions)[0], ours.step(actions)[0])
        _, rewards, terminated, *_ = stock.step(batch(act(answer="B"), act(answer="B")))
        assert terminated.all() and rewards.dtype == np.float64
        observations, *_ = stock.step(
            batch(None, None)
        )  # the next step resets, by Gymnasium's default
        assert observations["turn"].tolist() == [0, 0]
    finally:
        stock.close()


def test_async_with_shared_memory_raises_instead_of_returning_zeros(tasks):
    with pytest.raises(ValueError, match="shared_memory=False"):
        AsyncVectorEnv([lambda: build(tasks)] * 2, shared_memory=True)


def test_evidence_recall_is_absent_where_there_is_no_gold(make_vector):
    vector = make_vector(2)
    vector.reset(seed=0, options={"task_id": ["colour", "name"]})
    infos = vector.step(batch(act(answer="B"), act(answer="Ada")))[-1]
    assert infos["evidence_recall"][0] == 0.0
    assert infos["_evidence_recall"].tolist() == [True, False]
    assert infos["correct"][0] == 1.0
