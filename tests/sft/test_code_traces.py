"""Traces that look by code: they play through the sandbox, and all that they claim they saw."""

from __future__ import annotations

import numpy as np
import pytest
from support.sandboxes import needs_sandbox

from agents.config import AgentConfig, Limits
from agents.model.mini import MiniConfig, build_mini
from agents.model.vlm import VisionLanguageModel
from paravt_env.sandbox.guest import Host
from paravt_env.task import Task
from paravt_env.tasksets import load_tasks
from paravt_env.vector import LongVideoVectorEnv
from paravt_env.video.pictures import Pictures
from train.config.sft import TraceConfig
from train.rollout.play import play
from train.rollout.starts import Start
from train.sft.code_traces import (
    CodeTraceAgent,
    answered,
    code_corpus,
    described_crops,
    look_at,
)

SETTINGS = {
    "tool": "code", "max_crops": 1, "max_turns": 5, "frames_per_crop": 1, "frame_budget": 1,
    "frame_size": (64, 64), "reward": "pyvision",
}  # fmt: skip
CELLS = [
    {"colour": "red", "symbol": "star", "box": [240, 48, 336, 144]},
    {"colour": "blue", "symbol": "ring", "box": [48, 48, 144, 144]},
]


def a_task(family, question, options, answer, asked):
    return Task(
        "t", "", question, "mcq", options, answer, family=family, images=("/a.png",),
        metadata={"cells": CELLS, "asked": asked},
    )  # fmt: skip


def test_a_look_finds_the_frame_by_its_colour_and_the_symbol_by_its_darkness():
    assert look_at("red") == (
        "<think>\nlook red\n</think>\n<code>\n"
        "a = np.asarray(images[0])\n"
        "y, x = np.nonzero((a == (205, 25, 30)).all(2))\n"
        "a = a[y.min():y.max(), x.min():x.max()]\n"
        "y, x = np.nonzero(a.max(2) < 90)\n"
        "show(a[y.min():y.max() + 1, x.min():x.max() + 1])\n</code>"
    )


def test_only_what_was_seen_answers():
    inside = a_task("inside", "Which symbol is in the red frame?", ("bar", "star"), "B", ["red"])
    assert answered(inside, {}) == "" and answered(inside, {"red": "star"}) == "B"
    holds = a_task("holds", "Which frame holds the ring?", ("blue", "red"), "A", ["blue", "red"])
    assert answered(holds, {"red": "star"}) == ""
    assert answered(holds, {"red": "star", "blue": "ring"}) == "A"


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    root = tmp_path_factory.mktemp("zoom")
    return load_tasks("zoom", split="train", videos=4, root=root, progress=False)


def test_symbols_are_described_as_the_code_of_a_look_shows_them(tasks):
    pytest.importorskip("PIL")
    from PIL import Image

    pictures, rng = Pictures(10**6), np.random.default_rng(0)
    told = list(described_crops(tasks, pictures, (64, 64), 6, rng))
    assert len(told) == 4 * 6
    whole = Image.fromarray(pictures.read(tasks[0].images[0]))
    shown = {}
    for cell in tasks[0].metadata["cells"]:
        names = {
            "np": np,
            "images": [whole],
            "show": lambda a, c=cell: shown.update({c["colour"]: a}),
        }
        exec(look_at(cell["colour"]).split("<code>")[1].split("</code>")[0], names)
    fitted = Host(None, {"size": (64, 64)}).fitted
    known = {
        (cell["symbol"], fitted(Image.fromarray(shown[cell["colour"]])).tobytes())
        for cell in tasks[0].metadata["cells"]
    }
    assert {(said, pixels.tobytes()) for said, pixels in told[:6]} <= known


@needs_sandbox
def test_traces_look_once_a_frame_and_answer_right(tasks, tmp_path):
    vlm = VisionLanguageModel.load(build_mini(tmp_path, code_corpus(tasks), MiniConfig()))
    env = LongVideoVectorEnv(6, tasks, **SETTINGS)
    config = AgentConfig(prompt_style="compact_code")
    limits = Limits.of(env.simulation.settings)
    agent = CodeTraceAgent(vlm, config, limits, env.task_of, TraceConfig(call=1.0), seed=0)
    assert agent.evidence == "frames"
    rollouts = play(env, agent, [Start(seed=seed) for seed in range(6)])
    env.close()
    assert {rollout.family for rollout in rollouts} == {"inside", "holds"}
    for rollout in rollouts:
        assert rollout.correct == 1.0 and rollout.compliant
        assert rollout.executed == rollout.calls >= 1
        assert rollout.terms["tool_gain"] == pytest.approx(0.1 * rollout.executed)
        (trajectory,) = rollout.trajectories
        assert len(trajectory.prompt_images) == 1
        assert len(trajectory.branch_images) == rollout.executed
        assert trajectory.loss_mask.any() and not trajectory.loss_mask.all()
