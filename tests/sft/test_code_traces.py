"""Traces that look by code: they play through the sandbox, and all that they claim they saw."""

from __future__ import annotations

import numpy as np
import pytest
from support.sandboxes import needs_sandbox

from agents.config import AgentConfig, Limits
from agents.model.mini import MiniConfig, build_mini
from agents.model.vlm import VisionLanguageModel
from paravt_env.task import Task
from paravt_env.tasksets import load_tasks
from paravt_env.vector import LongVideoVectorEnv
from paravt_env.video.pictures import Pictures, fitted
from train.config.sft import TraceConfig
from train.rollout.play import play
from train.rollout.starts import Start
from train.sft.code_traces import (
    CodeTraceAgent,
    answered,
    code_corpus,
    described_pictures,
    look_at,
    survey,
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


def test_a_look_says_where_and_writes_the_code():
    assert look_at(CELLS[0]) == (
        "<think>\nlook red at 240 48\n</think>\n<code>\n"
        "show(images[0].crop((240, 48, 336, 144)))\n</code>"
    )


def test_a_survey_names_every_frame_and_its_place_before_the_look():
    task = a_task("inside", "Which symbol is in the red frame?", ("bar", "star"), "B", ["red"])
    assert survey(task) == "red at 240 48; blue at 48 48"
    assert look_at(CELLS[0], survey(task)).startswith(
        "<think>\nred at 240 48; blue at 48 48\nlook red at 240 48\n</think>"
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


def test_pictures_are_described_whole_and_by_their_crops(tasks):
    pytest.importorskip("PIL")
    told = list(described_pictures(tasks, Pictures(10**6), (64, 64), 6, np.random.default_rng(0)))
    assert len(told) == 4 * 6 and all(pixels.shape == (64, 64, 3) for _, pixels in told)
    cells = {cell["symbol"] for cell in tasks[0].metadata["cells"]}
    assert [said for said, _ in told[:6:2]] == [survey(tasks[0])] * 3
    assert {said for said, _ in told[1:6:2]} <= cells
    assert (told[0][1] == fitted(Pictures(10**6).read(tasks[0].images[0]), (64, 64))).all()
    assert (told[1][1] != told[0][1]).any()


@needs_sandbox
def test_traces_look_once_a_frame_and_answer_right(tasks, tmp_path):
    vlm = VisionLanguageModel.load(build_mini(tmp_path, code_corpus(tasks), MiniConfig()))
    env = LongVideoVectorEnv(6, tasks, **SETTINGS)
    config = AgentConfig(prompt_style="compact_code")
    limits = Limits.of(env.simulation.settings)
    agent = CodeTraceAgent(
        vlm, config, limits, env.task_of, TraceConfig(call=1.0, survey=1.0), seed=0
    )
    assert agent.evidence == "frames"
    rollouts = play(env, agent, [Start(seed=seed) for seed in range(6)])
    env.close()
    said = [rollout.trajectories[0] for rollout in rollouts]
    texts = [vlm.tokenizer.decode(one.branch_ids[one.loss_mask]) for one in said]
    assert all(text.count("; ") == 5 for text in texts)  # six frames, named once
    assert {rollout.family for rollout in rollouts} == {"inside", "holds"}
    for rollout in rollouts:
        assert rollout.correct == 1.0 and rollout.compliant
        assert rollout.executed == rollout.calls >= 1
        assert rollout.terms["tool_gain"] == pytest.approx(0.1 * rollout.executed)
        (trajectory,) = rollout.trajectories
        assert len(trajectory.prompt_images) == 1
        assert len(trajectory.branch_images) == rollout.executed
        assert trajectory.loss_mask.any() and not trajectory.loss_mask.all()
