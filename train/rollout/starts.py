"""Starts: which task each group plays, and the seed that fixes its frame budget.

The first stretch of a step. A group is several equal starts in a row. The draws are a run's own, in
every process the same, and a checkpoint keeps where they are. Tests: `pytest
tests/rollout/test_selection.py tests/loop/test_checkpoint.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np


class Start(NamedTuple):
    """Where an episode begins; what is None is drawn by the row's generator."""

    task_id: str | None = None
    frame_budget: int | None = None
    seed: int | None = None


class TaskOrder:
    """Endless passes over the tasks, each in a new order.

    >>> order = TaskOrder(3, np.random.default_rng(0))
    >>> sorted(order.take(3)), len(order.take(4))
    ([0, 1, 2], 4)
    """

    def __init__(self, tasks: int, rng: np.random.Generator) -> None:
        self.tasks, self.rng = tasks, rng
        self.remaining: list[int] = []

    def take(self, count: int) -> list[int]:
        """Indices of the next `count` tasks; a new pass begins where one ends."""
        while len(self.remaining) < count:
            self.remaining += self.rng.permutation(self.tasks).tolist()
        taken, self.remaining = self.remaining[:count], self.remaining[count:]
        return taken


class Starts:
    """The starts of a run.

    Args:
        ids: The tasks to train on.
        seed: Of the run.
        size: Rollouts of a group.
    """

    def __init__(self, ids: Sequence[str], seed: int, size: int) -> None:
        self.ids, self.size = ids, size
        self.rng = np.random.default_rng(seed)
        self.order = TaskOrder(len(ids), self.rng)

    def take(self, groups: int) -> list[Start]:
        """The starts of the next `groups` groups: `groups * size` of them, group by group."""
        seeds = self.rng.integers(2**31, size=groups).tolist()
        return [
            Start(self.ids[task], None, seed)
            for task, seed in zip(self.order.take(groups), seeds, strict=True)
            for _ in range(self.size)
        ]

    def state(self) -> dict[str, Any]:
        """Where the draws are, as plain data."""
        return {"starts": self.rng.bit_generator.state, "order": list(self.order.remaining)}

    def follow(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` said, here or in another process."""
        self.rng.bit_generator.state = state["starts"]
        self.order.remaining = list(state["order"])
