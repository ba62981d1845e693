"""The collector: plays the groups of one update, with the other processes, until they are enough.

The first half of a step: starts -> rollouts of all processes -> selection. Tests: `pytest
tests/rollout/test_selection.py tests/distributed`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from train.config.selection import SelectionConfig
from train.distributed.processes import HAND_OVER, Processes
from train.rollout.play import Rollout
from train.rollout.selection import Group, Selected, Selection
from train.rollout.starts import Start, Starts
from train.workers.rollout_workers import RolloutWorkers


class Collector:
    """Makes the batches of a run.

    Args:
        workers: They play this process's part.
        starts: Which tasks, from which seeds.
        selection: What is left out of a batch.
        groups: Groups of one update.
        processes: Each plays its part and then knows all groups, so that all select the same.
        meeting: All processes meet where a batch is handed over; false where only those that play
            do, as the others update meanwhile.
    """

    def __init__(
        self,
        workers: RolloutWorkers,
        starts: Starts,
        selection: SelectionConfig,
        groups: int,
        processes: Processes,
        meeting: bool = True,
    ) -> None:
        self.workers, self.starts, self.selection = workers, starts, selection
        self.groups, self.processes, self.meeting = groups, processes, meeting

    def collect(self) -> Selected:
        """The groups of one update: play, leave out what is not worth one, count both."""
        selection = Selection(self.selection, self.groups)
        while selection.wanted:
            selection.add(self.play(self.starts.take(selection.wanted)))
        return selection.selected()

    def play(self, starts: Sequence[Start]) -> list[Group]:
        """Play the starts of whole groups, this process its part of them."""
        size, workers = self.starts.size, self.processes.workers
        mine = workers.split(len(starts) // size) if self.processes.plays else slice(0, 0)
        own = starts[mine.start * size : mine.stop * size]
        played = self._handed_over(self.workers.play(own, size) if own else [])
        return [played[i : i + size] for i in range(0, len(played), size)]

    def _handed_over(self, own: list[Rollout]) -> list[Rollout]:
        """The rollouts of all processes that play, in order."""
        if self.meeting:
            progress = self.processes.progress
            progress.at(HAND_OVER, progress.step)
            parts = self.processes.from_workers(own)
            progress.at("collect", progress.step)
        else:
            parts = self.processes.from_workers(own, self.processes.workers)
        return [rollout for part in parts for rollout in part]

    def state(self) -> dict[str, Any]:
        """What playing a batch changes: the draws of starts and of the first agent's tokens."""
        return {**self.starts.state(), "sampling": self.workers.agents[0].generator_state()}

    def follow(self, state: Mapping[str, Any]) -> None:
        """Take up a worker's state, except for its sampling: this process draws nothing."""
        self.starts.follow(state)
