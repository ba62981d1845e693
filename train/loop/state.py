"""The state of a run beside its weights: every generator and the order of the tasks.

What a checkpoint holds so that a resumed run gives the numbers of one that was not stopped, on the
same engine, device and number of processes. The exception is a run that plays ahead (asynchronous
with `run.staleness` above 0): batches that were played before the stop are not saved, so that their
starts are played again, by the newer weights of the checkpoint. Tests: `pytest
tests/loop/test_checkpoint.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from train.common.errors import ConfigError
from train.learner import checkpoint
from train.learner.learner import Learner
from train.learner.moments import learner_state, learner_tensors, restore_learner
from train.rollout.difficulty import Pool
from train.rollout.selection import Selected
from train.workers.collector import Collector
from train.workers.source import Source

SCORE = "validation/accuracy"
"""The metric by which the best checkpoint is chosen."""


class RunState:
    """Marks where a run is, and writes and reads it with the weights.

    Args:
        folder: Of the run.
        seed: Of the run.
        learner: Weights, optimizer, schedule, order of the mini-batches.
        collector: Starts and sampling.
        pool: The tasks that are trained on.
        keep: Newest checkpoints that stay.

    Attributes:
        best: Step and score of the best validation so far, None before the first.
    """

    def __init__(
        self,
        folder: Path,
        seed: int,
        learner: Learner,
        collector: Collector,
        pool: Pool,
        keep: int = 2,
    ) -> None:
        self.folder, self.seed, self.pool, self.keep = folder, seed, pool, keep
        self.best: tuple[int, float] | None = None
        self.learner, self.collector = learner, collector
        self.processes = learner.processes
        self._marked: dict[str, Any] = {}

    def judge(self, version: int, metrics: Mapping[str, float]) -> None:
        """Take note of a validation of the weights; all processes call it."""
        if SCORE in metrics:
            score = self.processes.broadcast(metrics[SCORE], self.processes.leader)
            if self.best is None or score > self.best[1]:
                self.best = version, score

    def begin(self) -> None:
        """Forget the features that a frozen tower made in older steps.

        A resumed run does not have them, and a tower that encodes other images beside one rounds
        differently: so every step computes its own.
        """
        self.learner.vlm.features.clear()

    def mark(self, source: Source[Selected]) -> None:
        """Remember where every generator is: a step that is cut short leaves no trace."""
        self._marked = {
            "minibatches": self.learner.rng.bit_generator.state,
            "torch": torch.get_rng_state(),
            **source.resume_point(),
        }

    def save(self, version: int) -> Path:
        """Write the checkpoint of the `version` updates that were finished; all processes call it.

        Returns:
            The checkpoint's folder.
        """
        self.processes.progress.at("checkpoint", version)
        states, leads = dict(self._marked), self.processes.leads
        own = {
            "generator.sampling": torch.from_numpy(states.pop("sampling")),
            "generator.torch": states.pop("torch"),
        }
        tensors = {
            f"{name}{_of_process(rank)}": tensor
            for rank, generators in enumerate(self.processes.gather(own))
            for name, tensor in generators.items()
        }
        tensors |= learner_tensors(self.learner)
        folder = checkpoint.folder_of(self.folder, version)
        if leads:
            state = {
                "step": version,
                "tasks": len(self.pool.ids),
                "pool": self.pool.digest,
                **learner_state(self.learner),
                **({"best": list(self.best)} if self.best else {}),
                **states,
            }
            spare = (self.best[0],) if self.best else ()
            write = self.learner.vlm.save
            folder = checkpoint.save(self.folder, version, write, tensors, state, self.keep, spare)
        self.processes.barrier(patient=True)
        return folder

    def restore(self, saved: Path) -> int:
        """Take up a checkpoint whose policy the learner has already loaded.

        Returns:
            Updates that its weights have seen.

        Raises:
            ConfigError: It was trained on other tasks, or other parameters of the policy.
        """
        tensors, state = checkpoint.load(saved)
        tasks = len(self.pool.ids)
        if state["tasks"] != tasks:
            raise ConfigError(
                f"the checkpoint was trained on {state['tasks']} tasks, this set has {tasks}"
            )
        if state.get("pool", self.pool.digest) != self.pool.digest:
            raise ConfigError(
                f"the checkpoint was trained on as many tasks ({tasks}), but on others: resume "
                "with the same task set, and with the same selection and pass rates"
            )
        version: int = state["step"]
        self.best = tuple(state["best"]) if "best" in state else None
        self.collector.follow(state)
        self.learner.rng.bit_generator.state = state["minibatches"]
        self._restore_generators(tensors, version)
        restore_learner(self.learner, tensors, state)
        return version

    def _restore_generators(self, tensors: Mapping[str, torch.Tensor], version: int) -> None:
        """Take up this process's generators, or a fresh seed where the saved ones do not fit.

        The saved run may have had fewer processes, or have sampled elsewhere: the states of a CPU's
        generator and of a GPU's have other sizes.
        """
        rank, agent = self.processes.world.rank, self.collector.workers.agents[0]
        saved = tensors.get(f"generator.sampling{_of_process(rank)}")
        fits = saved is not None
        if saved is not None:
            torch.set_rng_state(tensors[f"generator.torch{_of_process(rank)}"])
            try:
                agent.set_generator_state(saved.numpy())
            except ValueError:
                fits = False
        if not fits:
            fresh = np.random.default_rng((self.seed, version, rank))
            agent.seed(int(fresh.integers(2**62)))
        fit = self.processes.gather(fits or not self.processes.plays)
        changed = ", ".join(str(rank) for rank, fine in enumerate(fit) if not fine)
        if changed and self.processes.leads:
            print(
                f"sampling continues with fresh seeds in process {changed}: the checkpoint was "
                "saved with another engine, device or number of processes"
            )


def _of_process(rank: int) -> str:
    """What the names of a process's generators end with.

    >>> _of_process(0), _of_process(2)
    ('', '.2')
    """
    return f".{rank}" if rank else ""
