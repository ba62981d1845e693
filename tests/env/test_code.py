"""Code as the tool: what a turn brings, how it is counted, and that nothing runs without walls."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
from support.builders import ListTasks, make_task
from support.sandboxes import needs_sandbox

from paravt_env.common.images import encode_png
from paravt_env.crop import CROP_STATUSES
from paravt_env.protocol import action_from_completion, render_completion
from paravt_env.sandbox import isolation
from paravt_env.sandbox.limits import SandboxError
from paravt_env.spaces import batch_actions
from paravt_env.task import Task, TaskError
from paravt_env.vector import LongVideoVectorEnv

SMALL = {"frame_size": (8, 16), "tool": "code", "max_crops": 1, "frames_per_crop": 4}


def picture(path, side=20):
    """A black picture with a white lower right quarter."""
    pixels = np.zeros((side, side, 3), np.uint8)
    pixels[side // 2 :, side // 2 :] = 255
    path.write_bytes(encode_png(pixels))
    return str(path)


@pytest.fixture
def tasks(clip, tmp_path):
    asked = Task("p", "", "White?", "open", answer="yes", images=(picture(tmp_path / "a.png"),))
    return ListTasks([make_task(clip, "v"), asked])


def write(code=None, answer=None):
    text = render_completion("I look closely.", code=code, answer=answer)
    return action_from_completion(text, 1, code=True)


@pytest.fixture
def env(tasks):
    made = gym.make("paravt_env:ParaVT-LongVideo-Code-v0", tasks=tasks, **SMALL)
    yield made
    made.close()


def begin(env, task_id, budget=0):
    return env.reset(seed=0, options={"task_id": task_id, "frame_budget": budget})[0]


def status_of(observation):
    return CROP_STATUSES[int(observation["crop_status"][0]) - 1]


@needs_sandbox
def test_frames_of_the_video_come_when_code_asks_for_them(env):
    first = begin(env, "v")
    assert (first["window"] == -1).all() and first["output"] == "video"
    seen, _, _, _, info = env.step(write("a = video.frames(2, 6, 2)\nshow(a)\nlen(a)"))
    assert status_of(seen) == "ok" and seen["output"] == "2"
    assert seen["window"].tolist() == [1, 1, -1, -1]
    assert seen["timestamps"][:2].tolist() == pytest.approx([3.0, 5.0], abs=0.6)
    assert info["crops"][0]["windows"] == ((2.0, 6.0),) and info["frames_seen"] == 2
    assert seen in env.observation_space


@needs_sandbox
def test_names_last_over_turns_and_go_with_the_episode(env):
    begin(env, "v")
    env.step(write("kept = 7"))
    assert env.step(write("kept"))[0]["output"] == "7"
    begin(env, "v")
    seen = env.step(write("kept"))[0]
    assert status_of(seen) == "code_error" and "NameError" in seen["output"]
    assert seen["feedback"] == "call 1: code_error: the code raised an error"


@needs_sandbox
def test_a_picture_is_shown_scaled_down_and_cropped_in_full_size(env):
    first = begin(env, "p", budget=3)
    assert first["window"].tolist() == [0, -1, -1, -1]
    assert first["output"] == "images[0]: 20 x 20 pixels"
    assert first["video"]["duration"] == 0 and first["video"]["width"] == 20
    assert first["frames"][0, 7, 11].tolist() == [255, 255, 255]  # 8 x 8, in the middle of 16
    assert first["frames"][0, 0, 4].tolist() == [0, 0, 0]
    seen, _, _, _, info = env.step(write("images[0].crop((10, 10, 20, 20))"))
    assert (seen["frames"][0, :, 4:12] == 255).all() and not seen["frames"][0, :, :4].any()
    assert seen["timestamps"][0] == 0 and info["crops"][0]["windows"] == ()


@needs_sandbox
def test_fifteen_times_the_same_look_is_paid_once_and_an_error_never(tasks):
    env = gym.make(
        "paravt_env:ParaVT-LongVideo-Code-v0", tasks=tasks, reward="pyvision", max_turns=20,
        **{name: value for name, value in SMALL.items()},
    )  # fmt: skip
    begin(env, "p")
    for turn in range(15):
        env.step(write(f"show(images[0].crop((0, 0, 9, 9)))  # {turn}"))
    env.step(write("show(images[0].crop((5, 5, 20, 20)))"))
    env.step(write("images[4]"))
    _, reward, terminated, _, info = env.step(write(answer="yes"))
    env.close()
    assert terminated and info["reward_terms"]["tool_gain"] == pytest.approx(0.2)
    assert reward == pytest.approx(1.2)


@needs_sandbox
def test_a_row_that_breaks_out_costs_the_others_nothing(tasks):
    env = LongVideoVectorEnv(3, tasks, code_seconds=6.0, **SMALL)
    env.reset(seed=0, options={"task_id": "v", "frame_budget": 0})
    codes = ("import os\nwhile True: os.fork()", "while True: pass", "print(1)")
    seen = env.step(batch_actions([write(code) for code in codes], 1))[0]
    statuses = [str(CROP_STATUSES[int(code) - 1]) for code in seen["crop_status"][:, 0]]
    assert statuses == ["denied", "timeout", "ok"]
    assert seen["output"][2] == "1" and "names that were set are gone" in seen["output"][1]
    assert env.simulation.code.counts == {"denied": 1, "timeout": 1, "ok": 1}
    again = env.step(batch_actions([write("print(2)")] * 3, 1))[0]
    assert again["output"] == ("2", "2", "2")
    env.close()


@needs_sandbox
def test_a_crop_is_no_tool_here_and_code_none_elsewhere(env, tasks):
    begin(env, "v")
    seen = env.step(action_from_completion(render_completion("Crop.", [(1, 2)]), 1, code=True))[0]
    assert status_of(seen) == "unknown_tool"
    with gym.make("paravt_env:ParaVT-LongVideo-v0", tasks=tasks, frame_size=(8, 16)) as other:
        begin(other, "v")
        text = "<think>x</think><code>print(1)</code>"
        seen = other.step(action_from_completion(text, 5))[0]
        assert not seen["crop_status"].any() and "output" not in seen


@needs_sandbox
def test_what_code_cannot_have_is_said_without_a_path(env, clip):
    begin(env, "v")
    for code in ("video.frames(50, 20, 2)", "video.frames(1e9, 2e9, 2)", "images[0]"):
        seen = env.step(write(code))[0]
        assert status_of(seen) == "code_error" and clip not in seen["output"]


@needs_sandbox
def test_a_picture_of_200_megapixels_is_a_row_that_failed(tmp_path):
    huge = tmp_path / "huge.png"
    header = bytearray(encode_png(np.zeros((1, 1, 3), np.uint8)))
    header[16:24] = (20_000).to_bytes(4, "big") + (10_000).to_bytes(4, "big")
    huge.write_bytes(bytes(header))
    fine = Task("fine", "", "?", "open", answer="x", images=(picture(tmp_path / "b.png"),))
    bad = Task("bad", "", "?", "open", answer="x", images=(str(huge),))
    env = LongVideoVectorEnv(2, ListTasks([fine, bad]), **SMALL)
    _, infos = env.reset(seed=0, options={"task_id": ["fine", "bad"]})
    assert env.idle.tolist() == [False, True] and infos["stop_reason"][1] == "video_error"
    assert "10000 x" in infos["error"][1] or "20000 x 10000 pixels" in infos["error"][1]
    assert env.simulation.video_errors["bad"] == 1
    env.close()


def test_without_isolation_there_is_no_environment(tasks, monkeypatch):
    isolation.check.cache_clear()
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SandboxError, match="install it"):
        gym.make("paravt_env:ParaVT-LongVideo-Code-v0", tasks=tasks)
    isolation.check.cache_clear()
    gym.make("paravt_env:ParaVT-LongVideo-v0", tasks=tasks).close()  # the others need none


@pytest.mark.parametrize("bad", [{"max_crops": 2}, {"crop_density": True}, {"crop_quota": 4}])
def test_settings_that_do_not_go_with_code(tasks, bad):
    with pytest.raises(ValueError, match="one piece of code a turn"):
        LongVideoVectorEnv(1, tasks, **{**SMALL, **bad})


@pytest.mark.parametrize("media", [{"video": "", "images": ()}, {"video": "a", "images": ("b",)}])
def test_a_task_has_one_kind_of_media(media):
    with pytest.raises(TaskError, match="a video or images"):
        Task(id="t", question="?", kind="open", answer="x", **media)
