"""Traces that watch videos by code: no overview, all that they claim they saw was asked for."""

from __future__ import annotations

import re

import numpy as np
import pytest
from support.sandboxes import needs_sandbox

from agents.config import AgentConfig, Limits
from agents.model.mini import MiniConfig, build_mini
from agents.model.vlm import VisionLanguageModel
from paravt_env.vector import LongVideoVectorEnv
from train.config.sft import TraceConfig
from train.rollout.play import play
from train.rollout.starts import Start
from train.sft.video_code_traces import VideoCodeTraceAgent

pytestmark = needs_sandbox
FRAMES = 16


@pytest.fixture(scope="module")
def rollouts(tmp_path_factory):
    """Traces that look, and that never do, on one synthetic video."""
    root = tmp_path_factory.mktemp("world")
    shape = MiniConfig(32, 1, 2, 32, 32, 1, 2, 32, vocabulary=280)
    vlm = VisionLanguageModel.load(build_mini(root / "mini", ["red"], shape))
    env = LongVideoVectorEnv(
        8, tasks="synthetic", split="val", tasks_kwargs={"videos": 1, "root": str(root)},
        frame_size=(32, 32), frame_budget=0, tool="code", max_crops=1, max_turns=8,
        frames_per_crop=FRAMES, reward="pyvision",
    )  # fmt: skip
    config, played = AgentConfig(prompt_style="compact_code"), {}
    try:
        for name, call in (("look", 1.0), ("skip", 0.0)):
            limits = Limits.of(env.simulation.settings)
            trace = TraceConfig(call, retry=1.0)
            agent = VideoCodeTraceAgent(vlm, config, limits, env.task_of, trace, FRAMES)
            starts = [Start(i, 0, seed=1) for i in env.simulation.tasks.ids[:8]]
            played[name] = play(env, agent, starts)
    finally:
        env.close()
    return played


def test_traces_look_around_first_and_then_closely(rollouts):
    for one in rollouts["look"]:
        assert one.executed == one.calls >= 1 and one.compliant
        code = [re.findall(r"frames\((\d+), (\d+), 16\)", turn["completion"]) for turn in one.turns]
        windows = [(int(start), int(end)) for found in code for start, end in found]
        assert len(windows) == one.calls and windows[0] == (0, int(one.duration))
        assert all(0 <= start < end <= one.duration + 60 for start, end in windows)
        assert all(end - start == 40 for start, end in windows[1:])  # what a crop shows
        assert one.frames_seen >= FRAMES


def test_looking_answers_what_guessing_does_not(rollouts):
    looked, guessed = ([one.correct for one in rollouts[name]] for name in ("look", "skip"))
    assert np.mean(looked) >= 0.7 > np.mean(guessed)
    assert all(one.calls == 0 and one.frames_seen == 0 for one in rollouts["skip"])


def test_the_context_holds_what_code_showed_and_no_overview(rollouts):
    for one in rollouts["look"]:
        (trajectory,) = one.trajectories
        assert len(trajectory.prompt_images) == 0
        assert len(trajectory.branch_images) == one.frames_seen
