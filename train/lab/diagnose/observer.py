"""The diagnostics of a run while it trains: every few steps, of the batch that is trained next.

Beside the update: the trainer hands each step to its observers, before the weights move and after;
it knows none of them by name, and this room does not know the trainer. The terms of all groups, the
gradients of a few (`train/lab/diagnose/gradients.py`) and the advice go into the log; neither the
weights nor any generator of the run is touched. Tests: `pytest tests/lab/test_diagnostics.py`.
"""

from __future__ import annotations

from time import perf_counter

from agents.algorithm.config import PARAGRPOConfig
from train.config.run import DiagnosticsConfig, TrainConfig
from train.lab.diagnose.drift import drift_metrics, drift_table
from train.lab.diagnose.gradients import choose_groups, measure_batch
from train.loop.observers import Observer, StepView


class TermDiagnostics:
    """An observer that logs what the reward terms do to the batch and to its gradient.

    Args:
        config: How often, and on how many groups.
        algorithm: The method that the run trains by.
        seed: Of the run; with a step's number it draws the groups whose gradients are taken.
    """

    def __init__(self, config: DiagnosticsConfig, algorithm: PARAGRPOConfig, seed: int) -> None:
        self.config, self.algorithm, self.seed = config, algorithm, seed

    def before_update(self, step: StepView) -> dict[str, float]:
        """The step's metrics and the seconds that they took; empty in steps that are not asked."""
        every, began = self.config.every, perf_counter()
        if not every or step.number % every:
            return {}
        live = [
            place for place, group in enumerate(step.kept) if any(r.trajectories for r in group)
        ]
        drawn = choose_groups(len(live), self.config.groups, (self.seed, step.number))
        metrics = measure_batch(
            step.learner,
            self.algorithm,
            step.reward_weights,
            step.kept,
            step.batch,
            [live[place] for place in drawn],
        )
        return metrics | {"time/diagnostics": perf_counter() - began}

    def after_update(self, step: StepView) -> dict[str, float]:
        """Nothing: the gradients are those of the weights before the update."""
        return {}


class DriftDiagnostics:
    """An observer that logs where the batch that was just played will push each behaviour.

    Args:
        every: Steps between predictions; the first step has one.
        algorithm: The method that the run trains by.
    """

    def __init__(self, every: int, algorithm: PARAGRPOConfig) -> None:
        self.every, self.algorithm = every, algorithm

    def before_update(self, step: StepView) -> dict[str, float]:
        """`diagnostics/drift/...` of every behaviour that was played."""
        if not self.every or step.number % self.every:
            return {}
        played = [one for group in step.played for one in group]
        size, where = self.algorithm.group_size, self.algorithm.credit
        return drift_metrics(drift_table(played, size, step.reward_weights, where))

    def after_update(self, step: StepView) -> dict[str, float]:
        """Nothing: what follows is in the shares that every step logs."""
        return {}


def observers_of(config: TrainConfig) -> tuple[Observer, ...]:
    """What a run's settings ask to be measured of every step, for `train.loop.launch.train`."""
    if not config.diagnostics.every:
        return ()
    every, algorithm = config.diagnostics.every, config.algorithm
    terms = TermDiagnostics(config.diagnostics, algorithm, config.run.seed)
    return terms, DriftDiagnostics(every, algorithm)
