"""Somebody else's agent is trained: a class that lives in this file, named by a door."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from support.tiny_runs import SHAPE, tiny_settings, varied, with_run

from agents.base import AgentStats, Completion, Decision, TrainableAgent, Trajectory
from agents.config import Limits
from agents.model.vlm import VisionLanguageModel
from paravt_env.protocol import Role, action_from_completion
from train.common.errors import ConfigError
from train.common.metrics_file import read_metrics
from train.config.evaluation import EvalConfig
from train.evaluation.agents import evaluated_agent
from train.evaluation.measure import measure
from train.loop.launch import train
from train.workers import lanes, rollout_workers

LENGTH = 3


class Murmur:
    """Reads the question alone, samples three tokens, and never calls: nothing of ours is used."""

    def __init__(self, vlm, config, limits, seed):
        self.vlm, self.config, self.limits = vlm, config, limits
        self.version, self.strict = 0, False
        self.rng = np.random.default_rng(seed)
        self.stats = AgentStats()
        self.said = {}

    def begin(self, rows):
        for row in rows:
            self.said.pop(row, None)

    def act(self, observations, rows):
        return [self.speak(observations["question"][row], row) for row in rows]

    @torch.no_grad()
    def speak(self, question, row):
        prompt = self.vlm.tokenizer(question, add_special_tokens=False)["input_ids"]
        ids, logprobs = [], []
        for _ in range(LENGTH):
            logits = self.vlm.model(input_ids=torch.tensor([prompt + ids])).logits[0, -1]
            logits[list(self.vlm.forbidden_ids)] = -torch.inf
            table = (logits / self.config.temperature).log_softmax(-1)
            chances = table.double().softmax(-1).numpy()
            ids.append(int(self.rng.choice(len(table), p=chances)))
            logprobs.append(float(table[ids[-1]]))
        self.stats.tokens_sampled += LENGTH
        self.said[row] = Trajectory(
            prompt_ids=np.array(prompt),
            branch_ids=np.array(ids),
            loss_mask=np.ones(LENGTH, bool),
            logprobs=np.array(logprobs, np.float32),
            roles=np.full(LENGTH, int(Role.text), np.int8),
            version=self.version,
        )
        text = self.vlm.tokenizer.decode(ids)
        completion = Completion(text, tuple(ids), tuple(logprobs), (int(Role.text),) * LENGTH)
        return Decision(action_from_completion(text, self.limits.max_crops), completion)

    def trajectories(self, row):
        return [self.said[row]] if row in self.said else []

    def weights_changed(self, version):
        self.version = version

    def seed(self, seed):
        self.rng = np.random.default_rng(seed)

    def draw_seeds(self, count):
        return self.rng.integers(2**31, size=count).tolist()

    def generator_state(self):
        state = self.rng.bit_generator.state["state"]
        return np.frombuffer(f"{state['state']} {state['inc']}".encode(), np.uint8).copy()

    def set_generator_state(self, state):
        whole = self.rng.bit_generator.state
        value, increment = map(int, bytes(state).decode().split())
        self.rng.bit_generator.state = {**whole, "state": {"state": value, "inc": increment}}


def silent(vlm, config, limits, seed):
    """Makes what cannot be trained."""
    return object()


@pytest.fixture
def settings(clip, other_clip, tmp_path, monkeypatch):
    torch.set_num_threads(1)
    for module in (rollout_workers, lanes):
        monkeypatch.setattr(module, "play", varied)
    world = tiny_settings(tmp_path, (clip, other_clip), SHAPE)
    world.algorithm.groups, world.algorithm.group_size = 2, 3
    world.agent.engine = f"{Path(__file__)}:Murmur"

    def make(name="run", **run):
        return with_run(world, name, **{"steps": 2, "checkpoint_every": 0, **run})

    return make


def weights(folder):
    return VisionLanguageModel.load(folder).model.state_dict()


def test_it_has_all_that_a_trainer_asks_for():
    assert isinstance(Murmur(None, None, Limits(), 0), TrainableAgent)


@pytest.mark.parametrize("run", [{}, {"lanes": 2}, {"asynchronous": True}])
def test_it_is_trained_by_the_trainer_as_ours_is(settings, run):
    config = settings(**run)
    trained = train(config)
    steps = read_metrics(config.run.path)
    assert len(steps) == 2 and all(step["grad_norm"] > 0 for step in steps)
    sampled = [step["tokens_sampled"] for step in steps]
    assert sum(sampled) >= 2 * 6 * LENGTH
    assert config.run.asynchronous or min(sampled) >= 6 * LENGTH  # else steps and play overlap
    before, after = weights(config.agent.checkpoint), weights(trained)
    assert any(not torch.equal(before[name], after[name]) for name in before)


def test_a_run_of_it_goes_on_as_if_it_had_not_stopped(settings):
    whole = weights(train(settings("whole", steps=3)))
    train(settings("halves", steps=2))
    resumed = weights(train(settings("halves", steps=3, resume=True)))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


@pytest.mark.parametrize(
    ("factory", "said"),
    [
        ("silent", "which cannot be trained: agents.base.TrainableAgent"),
        ("absent", "there is no 'absent'"),
    ],
)
def test_what_is_no_agent_is_refused_with_what_it_needs(settings, factory, said):
    config = settings()
    config.agent.engine = f"{Path(__file__)}:{factory}"
    with pytest.raises(ConfigError, match=said):
        train(config)


def test_its_evaluation_plays_the_same_agent_and_knows_its_code(settings, tmp_path):
    config = settings()
    config.evaluation = EvalConfig(
        split="test", frame_budgets=(1,), num_envs=2, resamples=10, temperature=1.0
    )
    report = measure(config, evaluated_agent(config), tmp_path / "after.json")
    assert len(report.rows) == 2 and all(row.turns for row in report.rows)
    header = (tmp_path / "after.rows.jsonl").read_text(encoding="utf-8").splitlines()[0]
    assert '"test_own_agent.py"' in header
