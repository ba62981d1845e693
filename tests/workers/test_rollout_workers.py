"""Rollout workers: one lane is plain `play`, several share a policy, those apart have a copy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support.builders import ListTasks, make_task

from agents.config import AgentConfig, Limits
from agents.model.agent import TransformersAgent
from agents.model.mini import MiniConfig, build_mini
from agents.model.vlm import VisionLanguageModel
from train.rollout.play import play
from train.rollout.starts import Start
from train.workers.rollout_workers import make_workers

SHAPE = MiniConfig(32, 2, 2, 64, 32, 1, 2, 64, vocabulary=300, numbers=12)
CONFIG = AgentConfig(
    prompt_style="compact", max_new_tokens=8, answer_tokens=4, subagent_tokens=4, temperature=1.0
)
STARTS = [Start("colour", 2, seed) for seed in (1, 2, 3) for _ in range(2)]


@pytest.fixture
def vlm(tmp_path) -> VisionLanguageModel:
    return VisionLanguageModel.load(build_mini(tmp_path, ["a red scene"], SHAPE))


@pytest.fixture
def rows(make_vector, clip):
    def make(count: int):
        return make_vector(count, tasks=ListTasks([make_task(clip)]), frame_size=(64, 64))

    return make


def tokens(rollouts) -> list[list[int]]:
    return [one.trajectories[0].branch_ids.tolist() for one in rollouts]


def test_one_lane_plays_exactly_what_play_plays(rows, vlm) -> None:
    workers = make_workers(CONFIG, vlm, [rows(4)], seed=5)
    limits = Limits.of(workers.lanes[0].env.simulation.settings)
    agent, env = TransformersAgent(vlm, CONFIG, limits, 5), rows(4)
    expected = play(env, agent, STARTS[:4]) + play(env, agent, STARTS[4:])
    assert tokens(workers.play(STARTS, 2)) == tokens(expected)
    assert workers.sync is None and workers.agents[0].vlm is vlm


def test_several_lanes_play_every_start_and_draw_the_same_again(rows, vlm) -> None:
    def once():
        workers = make_workers(CONFIG, vlm, [rows(2), rows(2)], seed=5)
        return workers, workers.play(STARTS, 2)

    workers, rollouts = once()
    assert [one.task_id for one in rollouts] == ["colour"] * 6
    assert tokens(rollouts) == tokens(once()[1])
    assert workers.counters()["tokens_sampled"] == sum(
        int(t.loss_mask.sum()) for one in rollouts for t in one.trajectories
    )


def test_seeds_of_lanes_are_drawn_where_the_generator_is(rows, vlm, monkeypatch) -> None:
    """A generator of a GPU refuses to draw into the CPU's memory."""
    workers = make_workers(CONFIG, vlm, [rows(2), rows(2)], seed=5)
    asked, randint = [], torch.randint

    def spy(*args, **named):
        asked.append((named["generator"].device, named.get("device")))
        return randint(*args, **named)

    monkeypatch.setattr(torch, "randint", spy)
    workers.play(STARTS, 2)
    assert asked and all(wanted == given for wanted, given in asked)


def test_workers_apart_keep_their_weights_until_they_are_told(rows, vlm) -> None:
    workers = make_workers(CONFIG, vlm, [rows(2)], seed=5, apart=True)
    (agent,) = workers.agents
    before = [p.clone() for p in agent.vlm.model.parameters()]
    with torch.no_grad():
        for parameter in vlm.model.parameters():
            parameter.mul_(1.1)
    assert all(map(torch.equal, before, agent.vlm.model.parameters()))
    workers.weights_changed(1)
    assert all(map(torch.equal, vlm.model.parameters(), agent.vlm.model.parameters()))
    (first, *_) = workers.play(STARTS[:2], 2)
    assert {one.version for one in first.trajectories} == {1}
    recorded = first.trajectories[0].logprobs[first.trajectories[0].loss_mask]
    assert np.isfinite(recorded).all()


def test_an_engine_that_is_not_installed_is_a_clear_error(rows, vlm, monkeypatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "vllm", None)
    config = AgentConfig(engine="vllm", prompt_style="compact")
    with pytest.raises(RuntimeError, match=r"agent.engine=vllm needs vLLM: pip install"):
        make_workers(config, vlm, [rows(2)], seed=0)
