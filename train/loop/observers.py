"""Observers: what is measured of a step beside training on it.

The trainer hands each of them the step before the weights move and after; validation is one, the
diagnostics of the reward terms (`train/lab/diagnose/observer.py`) another. A new one is a class
with the two methods. Tests: `pytest tests/loop`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from agents.algorithm.credit import Batch
from agents.base import TrainableAgent
from paravt_env.task import TaskSet
from paravt_env.tasksets.mixture import part_of
from paravt_env.vector import LongVideoVectorEnv
from train.config.evaluation import EvalConfig
from train.evaluation.evaluate import evaluate
from train.evaluation.row import EvalRow
from train.learner.learner import Learner
from train.rollout.selection import Group


@dataclass(frozen=True)
class StepView:
    """What an observer sees of a step.

    Attributes:
        number: Updates before this one.
        played: Every group that was played.
        kept: The groups of the update.
        batch: Their trajectories with the advantage of every token.
        reward_weights: Weight of every reward term.
        learner: Owns the weights; observers leave them as they are.
    """

    number: int
    played: Sequence[Group]
    kept: Sequence[Group]
    batch: Batch
    reward_weights: Mapping[str, float]
    learner: Learner


class Observer(Protocol):
    """Measures; what it returns joins the step's metrics."""

    def before_update(self, step: StepView) -> dict[str, float]:
        """With the weights that the step started from."""

    def after_update(self, step: StepView) -> dict[str, float]:
        """With the weights that the step made."""


class Validation:
    """Measures the policy on a split of its own, at the evaluation's temperature.

    Args:
        agent: Plays the learner's weights.
        env: The rows over the split.
        settings: What is measured.
        every: Steps between measurements.
    """

    def __init__(
        self, agent: TrainableAgent, env: LongVideoVectorEnv, settings: EvalConfig, every: int
    ) -> None:
        self.agent, self.env, self.settings, self.every = agent, env, settings, every

    def before_update(self, step: StepView) -> dict[str, float]:
        """Nothing: the start was measured after the step before."""
        return {}

    def after_update(self, step: StepView) -> dict[str, float]:
        """Accuracy, format compliance and calls, every `every` steps."""
        if (step.number + 1) % self.every:
            return {}
        self.agent.seed(self.settings.seed)
        self.agent.weights_changed(self.agent.version + 1)
        tasks = self.env.simulation.tasks
        report = evaluate(self.agent, self.env, tasks, self.settings)
        overall = report.summary()["overall"]
        return {
            "validation/accuracy": overall["accuracy"]["mean"],
            "validation/compliance": overall["compliance"],
            "validation/calls": overall["calls"],
            **by_set(report.rows, tasks),
        }


def by_set(rows: Sequence[EvalRow], tasks: TaskSet) -> dict[str, float]:
    """Accuracy on each set of a mixture; nothing for another task set."""
    scores: dict[str, list[float]] = {}
    for row in rows:
        scores.setdefault(part_of(tasks.by_id(row.task_id)), []).append(row.score)
    return {
        f"validation/accuracy/set={name}": sum(values) / len(values)
        for name, values in sorted(scores.items())
        if name
    }
