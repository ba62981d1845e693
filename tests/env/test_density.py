"""Crops that choose their density, and the quota of frames that all crops of an episode share."""

from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from support.builders import act, make_task, write_manifest

from agents.config import AgentConfig, Limits
from paravt_env.crop import CROP_STATUSES, CropFrames, CropStatus
from paravt_env.protocol import action_from_completion, parse, render_completion
from paravt_env.protocol.parts import system_text
from paravt_env.protocol.schema import tool_schema
from paravt_env.protocol.styles import COMPACT, PARAVT
from paravt_env.spaces import OptionalBox, action_space, batch_actions, empty_action
from paravt_env.wrappers import CompletionAction

NAN = float("nan")
ID = "paravt_env:ParaVT-LongVideo-Density-v0"


def cropping(*windows, fps=None, **rest):
    action = act(*windows, **rest)
    if fps is not None:
        action["crop_fps"] = np.array([*fps, *[NAN] * (3 - len(fps))])
    return action


def statuses(info):
    return [crop["status"] for crop in info["crops"]]


@pytest.fixture
def dense(make_env):
    """At most 8 frames a crop, 1 a second where nothing is asked; starts an episode."""

    def make(**settings):
        fields = {"crop_density": True, "frames_per_crop": 8, "crop_fps": 1.0, **settings}
        env = make_env(**fields)
        env.reset(seed=0, options={"task_id": "colour", "frame_budget": 4})
        return env

    return make


def test_each_crop_has_the_density_that_it_asks_for(dense):
    env = dense()
    action = cropping((0, 4), (10, 14), (20, 24), fps=(0.5, NAN, 4.0))
    observation, *_, info = env.step(action)
    assert [crop["frames"] for crop in info["crops"]] == [2, 4, 8]  # 16 asked, 8 at most
    assert [crop["fps"] for crop in info["crops"]][::2] == [0.5, 4.0]
    assert np.isnan(info["crops"][1]["fps"])
    times = observation["timestamps"][observation["window"] == 1]
    assert times.tolist() == [1.0, 3.0]
    assert info["frames_seen"] == 4 + 14


def test_a_text_asks_in_its_call_and_an_equal_action_does_the_same(dense):
    text = render_completion("look", [(0, 4), (10, 14)], densities=[2, NAN])
    assert '"end_time": 4, "fps": 2}' in text and text.count("fps") == 1
    action = action_from_completion(text, 3, density=True)
    assert action["crop_fps"][0] == 2.0 and np.isnan(action["crop_fps"][1:]).all()
    first, second = dense(), dense()
    one = first.step(action)[4]
    other = second.step(cropping((0, 4), (10, 14), fps=(2.0,)))[4]
    assert [c["frames"] for c in one["crops"]] == [c["frames"] for c in other["crops"]] == [8, 4]
    with pytest.raises(ValueError, match="not those of its completion"):
        dense().step({**action, "crop_fps": np.array([1.0, NAN, NAN])})
    silent = dense().step(action_from_completion(text, 3))[4]  # the text says it
    assert [c["frames"] for c in silent["crops"]] == [8, 4]


@pytest.mark.parametrize(
    ("arguments", "fps"),
    [
        ('"fps": 0.5', 0.5),
        ('"fps": "2"', 2.0),
        ('"fps": null', NAN),
        ('"x": 1', NAN),
        ('"fps": "often"', 0.0),
        ('"fps": true', 0.0),
        ('"fps": [1]', 0.0),
        ('"fps": -3', -3.0),
        ('"fps": 1e999', float("inf")),
    ],
)
def test_what_a_call_says_of_its_density_is_read(dense, arguments, fps):
    body = f'{{"name": "crop_video", "arguments": {{"start_time": 1, "end_time": 3, {arguments}}}}}'
    text = f"<think>\nlook\n</think>\n<tool_call>\n{body}\n</tool_call>"
    (call,) = parse(text).calls
    assert call.error is None and call.window == (1.0, 3.0)
    np.testing.assert_equal(call.fps, fps)
    possible = np.isnan(fps) or 0 < fps < np.inf
    info = dense().step(action_from_completion(text, 3, density=True))[4]
    assert statuses(info) == [CropStatus.ok if possible else CropStatus.malformed]
    if not possible:
        assert info["crops"][0]["message"] == (
            "fps must be a number of frames a second above 0: leave it out for 1"
        )


def test_code_calls_have_a_density_too():
    text = "<tool_code>crop_video(start=1, end='2.5', fps='0.25')</tool_code>"
    assert parse(text).calls[0].fps == 0.25


@pytest.mark.parametrize("fps", [0.0, -1.0, np.inf])
def test_a_density_that_is_none_is_refused_and_its_neighbour_runs(dense, fps):
    info = dense().step(cropping((0, 4), (10, 14), fps=(fps, 1.0)))[4]
    assert statuses(info) == [CropStatus.malformed, CropStatus.ok]


def test_over_quota_is_a_status_of_its_own_and_smaller_neighbours_run(dense):
    env = dense(crop_quota=10)
    action = cropping((0, 4), (10, 14), (20, 22), fps=(2.0, 1.0, 1.0))
    observation, *_, info = env.step(action)
    assert statuses(info) == [CropStatus.ok, CropStatus.over_quota, CropStatus.ok]
    over = CROP_STATUSES.index(CropStatus.over_quota) + 1
    assert observation["crop_status"].tolist() == [1, over, 1]
    assert env.observation_space.contains(observation)
    message = "the crop has 4 frames; 2 of the 10 that crops may show in all are left"
    assert info["crops"][1]["message"] == message
    assert observation["feedback"] == f"call 2: over_quota: {message}"
    info = env.step(cropping((0, 1), fps=(1.0,)))[4]
    assert statuses(info) == [CropStatus.over_quota] and info["frames_seen"] == 4 + 10


def test_a_crop_that_did_not_run_costs_no_quota(dense):
    env = dense(crop_quota=4)
    info = env.step(cropping((5, 5), (50, 60), (0, 4)))[4]
    assert statuses(info) == [CropStatus.empty, CropStatus.outside, CropStatus.ok]


def test_a_quota_alone_bounds_crops_of_the_settings_density(make_env):
    env = make_env(crop_quota=6, frames_per_crop=4)
    env.reset(seed=0, options={"task_id": "colour"})
    info = env.step(act((0, 4), (10, 14)))[4]
    assert statuses(info) == [CropStatus.ok, CropStatus.over_quota]
    assert "fps" not in info["crops"][0]


def test_without_the_setting_an_action_may_not_ask_and_a_text_is_read_as_before(make_env):
    env = make_env(frames_per_crop=8)
    env.reset(seed=0, options={"task_id": "colour"})
    with pytest.raises(ValueError, match="make it with crop_density=True"):
        env.step(cropping((0, 4), fps=(2.0,)))
    text = render_completion("look", [(0, 4)], densities=[2])
    info = env.step(action_from_completion(text, 3))[4]
    assert [crop["frames"] for crop in info["crops"]] == [4]
    env.step(cropping((0, 4), fps=(NAN,)))


def test_the_spaces_of_other_environments_are_as_they_were(make_env):
    env, dense = make_env(), make_env(crop_density=True, crop_quota=9)
    assert list(env.action_space.spaces) == ["answer", "completion", "crop_mask", "crops"]
    assert env.observation_space["crop_status"].high.tolist() == [13] * 3
    assert dense.observation_space["crop_status"].high.tolist() == [14] * 3
    assert make_env(crop_density=True).observation_space == env.observation_space
    assert env.action_space.contains(empty_action(3))
    assert not dense.action_space.contains(empty_action(3))
    assert dense.action_space.contains(empty_action(3, density=True))
    assert CROP_STATUSES[12] == CropStatus.decode_error


def test_a_box_with_entries_left_out():
    box = OptionalBox(1.0, 2.0, (2,), np.float64, seed=0)
    assert box.contains(np.array([NAN, 1.5])) and box.contains(np.array([NAN, NAN]))
    assert not box.contains(np.array([NAN, 3.0])) and not box.contains(np.array([NAN]))
    assert not np.isnan(box.sample()).any()
    batched = gym.vector.utils.batch_space(action_space(2, density=True), 3)["crop_fps"]
    assert isinstance(batched, OptionalBox) and batched.shape == (3, 2)
    assert batched.contains(np.full((3, 2), NAN))
    assert isinstance(action_space(2, density=True)["crop_fps"], spaces.Box)


def test_rows_may_ask_or_leave_it(make_vector):
    env = make_vector(2, crop_density=True, frames_per_crop=8)
    env.reset(seed=[0, 0], options={"task_id": "colour"})
    batch = batch_actions([cropping((0, 4), fps=(2.0,)), act((0, 4))], 3)
    assert batch["crop_fps"][0, 0] == 2.0 and np.isnan(batch["crop_fps"][1]).all()
    info = env.step(batch)[4]
    assert [row[0]["frames"] for row in info["crops"]] == [8, 4]
    env.step(batch_actions([act((0, 4))] * 2, 3))  # nobody asks
    with pytest.raises(ValueError, match="one entry for each of the 2 rows"):
        env.step({**batch, "crop_fps": batch["crop_fps"][:1]})
    plain = make_vector(1)
    plain.reset(seed=[0])
    with pytest.raises(ValueError, match="crop_density=True"):
        plain.step(batch_actions([cropping((0, 4), fps=(2.0,))], 3))


@pytest.mark.parametrize("text", [False, True])
def test_the_registered_id(clip, text):
    tasks = write_manifest(Path(clip).parent / "density.jsonl", [make_task(clip)])
    env = gym.make(ID, tasks=tasks, frame_size=(32, 64))
    settings = env.unwrapped.simulation.settings
    assert (settings.crop_density, settings.crop_quota) == (True, 128)
    env = CompletionAction(env) if text else env
    env.reset(seed=0)
    said = render_completion("look", [(0, 4)], densities=[0.25])
    asked = said if text else action_from_completion(said, settings.max_crops, density=True)
    assert env.step(asked)[4]["crops"][0]["frames"] == 1
    env.close()


def test_a_policy_is_told_what_it_may_ask_for_and_no_other_one_is():
    plain = tool_schema(45.0)
    chosen = tool_schema(45.0, CropFrames(1.0, 16, 128, True))["function"]
    assert chosen["parameters"]["properties"].pop("fps")["description"] == (
        "frames a second in the window; 1 where it is left out"
    )
    assert chosen["parameters"] == plain["function"]["parameters"]
    assert chosen["description"] == plain["function"]["description"] + (
        " It shows at most 16 frames. All windows together show at most 128."
    )
    bounded = tool_schema(45.0, CropFrames(1.0, 16, 0, True))["function"]["description"]
    assert "All windows" not in bounded
    told = system_text(PARAVT, 5, 45.0, 3, CropFrames(1.0, 16, 128, True))
    assert '"fps": {"type": "number"' in told and "fps" not in system_text(PARAVT, 5, 45.0, 3)
    assert system_text(COMPACT, 5, 45.0, 3, CropFrames(1.0, 16, 128, True)) == ""


def test_agents_know_of_it_from_the_environment(make_vector):
    limits = Limits.of(make_vector(1, crop_density=True, crop_quota=9).simulation.settings)
    assert limits.density and limits.crop_frames == CropFrames(1.0, 4, 9, True)
    assert Limits.of(make_vector(1).simulation.settings).crop_frames is None
    assert not Limits.of(make_vector(1, crop_quota=9).simulation.settings).density
    assert AgentConfig().frames_as == "image"


def test_settings_that_cannot_be_are_refused(make_env):
    with pytest.raises(ValueError, match="crop_quota must be at least 0"):
        make_env(crop_quota=-1)
    with pytest.raises(ValueError, match="crop_density must be True or False"):
        make_env(crop_density="yes")
