"""Starts: which task each group plays, and the seed that fixes its frame budget.

The first stretch of a step. A group is several equal starts in a row. The draws are a run's own, in
every process the same, and a checkpoint keeps where they are. Tests: `pytest
tests/rollout/test_selection.py tests/loop/test_checkpoint.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from paravt_env.task import TaskSet
from paravt_env.tasksets.mixture import Mixture, part_of


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

    def state(self) -> list[int]:
        """What is left of this pass."""
        return list(self.remaining)

    def follow(self, state: Any) -> None:
        """Go on with what `state` said."""
        self.remaining = list(state)


class WeightedOrder:
    """Tasks of several sets: a set by its weight, then the next task of its own endless passes.

    So a small set with a large weight is gone through more often, and every task of a set as often
    as the others of it.

    Args:
        sets: Each set's indices, and its weight.
        rng: Draws the sets and the passes.

    >>> order = WeightedOrder([([0, 1], 1.0), ([2, 3, 4], 3.0)], np.random.default_rng(0))
    >>> sum(index >= 2 for index in order.take(400))
    307
    """

    def __init__(
        self, sets: Sequence[tuple[Sequence[int], float]], rng: np.random.Generator
    ) -> None:
        self.rng, self.sets = rng, [list(indices) for indices, _ in sets]
        self.orders = [TaskOrder(len(indices), rng) for indices in self.sets]
        weights = np.array([weight for _, weight in sets])
        self.ends = np.cumsum(weights) / weights.sum()

    def take(self, count: int) -> list[int]:
        """Indices of the next `count` tasks."""
        chosen = np.searchsorted(self.ends, self.rng.random(count), side="right")
        return [self.sets[which][self.orders[which].take(1)[0]] for which in chosen.tolist()]

    def state(self) -> list[list[int]]:
        """What is left of each set's pass."""
        return [order.state() for order in self.orders]

    def follow(self, state: Any) -> None:
        """Go on with what `state` said."""
        for order, left in zip(self.orders, state, strict=True):
            order.follow(left)


def sets_of(ids: Sequence[str], tasks: TaskSet) -> list[tuple[list[int], float]]:
    """The indices of `ids` by the set of a mixture, with the set's weight; empty for other sets.

    Raises:
        ValueError: No task of a set is among `ids`, so that its weight cannot be.
    """
    if not isinstance(tasks, Mixture):
        return []
    found: dict[str, list[int]] = {name: [] for name in tasks.weights}
    for index, task_id in enumerate(ids):
        found[part_of(tasks.by_id(task_id))].append(index)
    if empty := [name for name, indices in found.items() if not indices]:
        raise ValueError(
            f"no task of the set {empty[0]!r} is left to train on: leave the set out of the "
            "mixture, or its tasks in (selection)"
        )
    return [(indices, tasks.weights[name]) for name, indices in found.items()]


class Starts:
    """The starts of a run.

    Args:
        ids: The tasks to train on.
        seed: Of the run.
        size: Rollouts of a group.
        sets: Of a mixture, from `sets_of`; empty draws all tasks equally often.
    """

    def __init__(
        self,
        ids: Sequence[str],
        seed: int,
        size: int,
        sets: Sequence[tuple[Sequence[int], float]] = (),
    ) -> None:
        self.ids, self.size = ids, size
        self.rng = np.random.default_rng(seed)
        self.order = WeightedOrder(sets, self.rng) if sets else TaskOrder(len(ids), self.rng)

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
        return {"starts": self.rng.bit_generator.state, "order": self.order.state()}

    def follow(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` said, here or in another process."""
        self.rng.bit_generator.state = state["starts"]
        self.order.follow(state["order"])
