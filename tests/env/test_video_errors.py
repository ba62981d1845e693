"""What becomes of a task whose video cannot be read: an error that can be caught, or a redraw."""

import gymnasium as gym
import numpy as np
import pytest
from support.builders import SIZE, ListTasks, act, make_task, same

import paravt_env  # noqa: F401
from paravt_env.settings import REDRAWS
from paravt_env.vector import LongVideoVectorEnv
from paravt_env.video.types import VideoError

ID = "ParaVT-LongVideo-v0"


@pytest.fixture
def tasks(clip, tmp_path):
    """One question of a good video between two of broken ones."""
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video at all")
    return ListTasks(
        [make_task(str(broken), "bad"), make_task(clip), make_task(str(broken), "worse")]
    )


def made(tasks, **settings):
    return gym.make(ID, tasks=tasks, frame_size=SIZE, max_crops=3, **settings)


def test_a_reset_that_raises_first_breaks_nothing_that_follows(tasks):
    env = made(tasks)
    for _ in range(2):
        with pytest.raises(VideoError, match="task 'bad'"):
            env.reset(seed=0, options={"task_id": "bad"})
    env.reset(options={"task_id": "colour"})
    assert env.step(act((1.0, 2.0)))[-1]["crops"][0]["status"] == "ok"
    assert env.step(act(answer="B"))[2]
    assert env.unwrapped.simulation.video_errors["bad"] == 2


def test_a_redraw_passes_bad_videos_over_and_counts_them(tasks):
    env = made(tasks, on_video_error="redraw")
    passed = []
    env.reset(seed=0)
    for _ in range(12):
        info = env.reset()[1]
        assert info["task_id"] == "colour"
        passed += info.get("redrawn", [])
    assert set(passed) == {"bad", "worse"}
    counted = env.unwrapped.simulation.video_errors
    assert counted["bad"] >= passed.count("bad") > 0 and counted["colour"] == 0


def test_a_redraw_replaces_no_task_that_was_asked_for(tasks):
    env = made(tasks, on_video_error="redraw")
    with pytest.raises(VideoError, match="task 'bad'"):
        env.reset(options={"task_id": "bad"})


def test_a_set_without_a_readable_video_is_an_error_in_the_end(tasks):
    bad = ListTasks([tasks.by_id("bad"), tasks.by_id("worse")])
    env = made(bad, on_video_error="redraw")
    with pytest.raises(VideoError):
        env.reset(seed=0)
    assert env.unwrapped.simulation.video_errors.total() == REDRAWS + 1


def test_rows_redraw_as_single_environments_do(tasks):
    settings = {"tasks": tasks, "frame_size": SIZE, "max_crops": 3, "on_video_error": "redraw"}
    vector = LongVideoVectorEnv(6, **settings)
    observations, infos = vector.reset(seed=0)
    assert infos["task_id"].tolist() == ["colour"] * 6 and not vector.idle.any()
    for row in range(6):
        observation, info = gym.make(ID, **settings).reset(seed=row)
        assert same(observation["frames"], observations["frames"][row])
        assert info.get("redrawn") == (infos["redrawn"][row] if infos["_redrawn"][row] else None)
        assert info["frame_budget"] == infos["frame_budget"][row]
    assert infos["_redrawn"].any()
    _, infos = vector.reset(seed=[3] * 6)
    assert len({str(passed) for passed in infos.get("redrawn", [None])}) == 1
    again, _ = vector.reset(options={"reset_mask": np.arange(6) < 2})
    assert again["turn"].tolist() == [0] * 6


def test_the_default_finishes_a_row(tasks):
    vector = LongVideoVectorEnv(1, tasks=tasks, frame_size=SIZE)
    infos = vector.reset(options={"task_id": "worse"})[1]
    assert infos["stop_reason"][0] == "video_error" and vector.idle.all()


def test_the_option_is_one_of_two(tasks):
    with pytest.raises(ValueError, match="on_video_error 'skip' is not one of raise, redraw"):
        made(tasks, on_video_error="skip")
