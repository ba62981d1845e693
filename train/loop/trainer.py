"""The training loop: collect, credit, update, log; save, stop, resume.

`Trainer.step` is PARA-GRPO from top to bottom. A run that was stopped and resumed gives the same
numbers as one that was not, but for what `train/loop/state.py` names. Ctrl-C and SIGTERM save and
say how to resume.

Several processes (`train/distributed/processes.py`) run this loop together. Each plays its part of
the groups and then knows all of them, so all select, credit and divide the same batch; the leader
logs and saves. After a failure torchrun starts them again, from the last checkpoint.

Command: `paravt train paragrpo_mini`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from time import perf_counter

import numpy as np

from agents.algorithm.config import PARAGRPOConfig
from agents.algorithm.credit import check_credit, credit, trained_trajectories
from train.config.run import RunConfig
from train.learner import checkpoint
from train.learner.learner import Learner
from train.loop.interrupt import Interrupt
from train.loop.metrics import MetricsLogger, growth, merged, of_batch
from train.loop.observers import Observer, StepView
from train.loop.state import RunState
from train.rollout.selection import Group, Selected
from train.workers.rollout_workers import RolloutWorkers
from train.workers.source import Source


class Trainer:
    """One run in memory.

    Args:
        run: How many steps, and when to save.
        method: The algorithm.
        reward_weights: The weight of every reward term, by name.
        source: Where the batches come from.
        workers: Who plays them.
        learner: Updates the weights.
        state: What a checkpoint holds beside the weights.
        observers: Measure every step.
        logger: Where the metrics go; None on all processes but the leader.
        version: Updates that the weights have seen.

    Raises:
        ValueError: The method needs a reward term that has no weight.
    """

    def __init__(
        self,
        run: RunConfig,
        method: PARAGRPOConfig,
        reward_weights: Mapping[str, float],
        source: Source[Selected],
        workers: RolloutWorkers,
        learner: Learner,
        state: RunState,
        observers: Sequence[Observer] = (),
        logger: MetricsLogger | None = None,
        version: int = 0,
    ) -> None:
        check_credit(method, reward_weights)
        self.settings, self.method, self.reward_weights = run, method, reward_weights
        self.source, self.workers, self.learner = source, workers, learner
        self.state, self.observers, self.logger = state, observers, logger
        self.processes = learner.processes
        self.version = version
        self.interrupt = Interrupt(terminate=self.processes.world.size == 1)

    def step(self) -> None:
        """One update: collect groups, credit every token, update, log.

        Up to the update Ctrl-C cuts the step short, and it leaves no trace; from there on it waits.
        """
        began, before = perf_counter(), self._totals()
        self._enter("collect")
        self.state.begin()
        self.state.mark(self.source)
        selected = self.source.take(self.version).batch
        collected = perf_counter()
        divergence = self._divergence(selected.kept)
        credited = credit(selected.kept, self.method, self.reward_weights, divergence)

        self.interrupt.hold()
        self._enter("update")
        self.source.updating(last=self.version + 1 >= self.settings.steps)
        self.workers.rest()
        view = StepView(
            self.version,
            selected.played,
            selected.kept,
            credited.batch,
            self.reward_weights,
            self.learner,
        )
        metrics = credited.metrics | merged(one.before_update(view) for one in self.observers)
        metrics |= self.learner.update(credited.batch, self.version)
        updated = perf_counter()
        self.version += 1
        self.state.mark(self.source)
        self.source.updated(self.version)
        metrics |= merged(one.after_update(view) for one in self.observers)
        self.state.judge(self.version, metrics)

        metrics |= growth(before, self._totals(), self.processes)
        metrics |= selected.metrics | self.state.pool.metrics
        metrics |= of_batch(selected.played, selected.kept)
        metrics |= {"time/collect": collected - began, "time/update": updated - collected}
        self._log(metrics | {"time/step": perf_counter() - began})

    def run(self) -> Path:
        """Train until the last step.

        Returns:
            The folder of the trained policy.

        Raises:
            SystemExit: Ctrl-C or SIGTERM, after the run was saved.
        """
        if self.version >= self.settings.steps:  # it was saved before, maybe known by its files
            folder = checkpoint.folder_of(self.settings.path, self.version)
            return folder / checkpoint.MODEL
        with self.interrupt, closing(self.source):
            try:
                while self.version < self.settings.steps:
                    try:
                        self.step()
                        self._save_where_due()
                    finally:
                        self.interrupt.release()
            except KeyboardInterrupt:
                raise SystemExit(self._stopped()) from None
            return self.state.save(self.version) / checkpoint.MODEL

    def _divergence(self, groups: Sequence[Group]) -> np.ndarray | None:
        """That of each trained trajectory from the reference, where the reward holds it."""
        if not self.method.kl_in_reward:
            return None
        return self.learner.divergence(trained_trajectories(groups, self.method))

    def _totals(self) -> dict[str, float]:
        """Totals of this process whose growth in a step is logged."""
        return self.workers.counters() | self.source.counters()

    def _enter(self, stage: str) -> None:
        """Tell those that wait for this process where it is."""
        self.processes.progress.at(stage, self.version)

    def _log(self, metrics: Mapping[str, float]) -> None:
        if self.logger is not None:
            self.logger.log(self.version - 1, metrics)

    def _save_where_due(self) -> None:
        every = self.settings.checkpoint_every
        due = every and self.version % every == 0
        best = self.state.best is not None and self.state.best[0] == self.version
        if (due or best) and self.version < self.settings.steps:
            self.state.save(self.version)

    def _stopped(self) -> int:
        """Save, say how to resume, and give the exit status of Ctrl-C or SIGTERM."""
        self.interrupt.ending()
        run, forced = self.settings.path, self.interrupt.forced
        if forced or self.processes.world.size > 1:
            # Several processes are stopped at different places, and cannot save together.
            folder = checkpoint.latest(run)
            where = " in the middle of an update" if forced else ""
            said = f"stopped{where}; the last checkpoint is {folder}"
        else:
            folder = self.state.save(self.version)
            said = f"stopped after step {self.version}, saved {folder}"
        if folder is not None:
            said += f"\nresume with: paravt train {run / 'config.yaml'} --run.resume=true"
        if self.processes.leads:
            print(f"\n{said}", flush=True)
        return self.interrupt.status
