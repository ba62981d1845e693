"""Qwen2.5-VL: packed, the tokens and gradients are those of its own forward, one by one."""

import numpy as np
import pytest
import torch
from support.learning import (
    MANY_TURNS,
    ONE_TURN,
    SHAPE,
    TEMPERATURE,
    config,
    make_batch,
    plain_logprobs,
    relative_difference,
)
from support.qwen25 import qwen25

from agents.config import AgentConfig, Limits
from agents.model.agent import TransformersAgent
from agents.model.mini import build_mini
from agents.model.vlm import VisionLanguageModel
from train.learner.learner import Learner
from train.learner.meter import Meter
from train.packing.samples import Sample
from train.rollout.play import play
from train.rollout.starts import Start


@pytest.fixture
def vlm(tmp_path):
    mini = VisionLanguageModel.load(build_mini(tmp_path / "mini", ["where is it"] * 4, SHAPE))
    return qwen25(mini)


def gradients(vlm):
    return {name: p.grad.clone() for name, p in vlm.model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("attention", ["split", "dense"])
@pytest.mark.parametrize("turns", [ONE_TURN, MANY_TURNS], ids=["one turn", "many turns"])
def test_packed_gradients_are_those_of_each_rollout_by_itself(vlm, turns, attention, monkeypatch):
    monkeypatch.setattr("train.learner.attention.SHORT", 0)
    batch = make_batch(vlm, turns, frames=True, subagents=True)
    method = {"loss": "likelihood", "aggregation": "token_mean"}
    learner = Learner(vlm, config(attention=attention, **method))
    samples = [
        Sample(one, advantages)
        for one, advantages in zip(batch.trajectories, batch.advantages, strict=True)
    ]
    vlm.model.zero_grad(set_to_none=True)
    learner.accumulate(samples, Meter())
    packed = gradients(vlm)
    vlm.model.zero_grad(set_to_none=True)
    count = sum(int(sample.trajectory.loss_mask.sum()) for sample in samples)
    for sample in samples:
        logprobs, _ = plain_logprobs(vlm, sample.trajectory)
        weights = torch.from_numpy(sample.advantages[sample.trajectory.loss_mask])
        (-(weights * logprobs).sum() / count).backward()
    assert any("visual" in name and grad.any() for name, grad in packed.items())
    assert relative_difference(packed, gradients(vlm)) < 1e-5


def test_what_was_drawn_has_the_probabilities_of_one_pass(vlm, make_vector):
    env = make_vector(2, frame_size=(32, 48))
    settings = AgentConfig(prompt_style="compact", max_new_tokens=8, temperature=TEMPERATURE)
    agent = TransformersAgent(vlm, settings, Limits.of(env.simulation.settings))
    for rollout in play(env, agent, [Start("colour", 5), Start("colour", 5)]):
        one = rollout.trajectories[0]
        with torch.no_grad():
            expected, _ = plain_logprobs(vlm, one)
        assert one.loss_mask.sum() > 0
        np.testing.assert_allclose(one.logprobs[one.loss_mask], expected, atol=1e-5)
