"""One batch ahead, in the disaggregated layout: some play the next batch, the others update.

The counterpart over several processes of `Ahead` (`train/workers/ahead.py`), which has a thread for
it. Here none is needed: the processes that play have nothing else to do during an update. All
processes meet twice a step, where a batch is handed over and where the new weights are. So a batch
is one update older than the policy that it trains, or none (`staleness=0`, the first batch); to be
further ahead would win nothing, as those that play wait at both places.

Command: `pytest tests/workers/test_pipeline.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import Any, Generic, TypeVar

from train.distributed.processes import Processes
from train.workers.source import Played

T = TypeVar("T")


class Pipeline(Generic[T]):
    """Every process makes one and calls the same methods in the same order.

    Args:
        play: Plays one batch with the other processes that play.
        sync: Hands the weights of a version to the engine of this process.
        staleness: 0 to take turns; else the next batch is played during the update of this one.
        state: Everything that `play` changes besides its result, for checkpoints.
        follow: Takes up a worker's `state` where nothing is played.
        processes: All of them, in the disaggregated layout.
        version: Updates that the weights have seen.
    """

    def __init__(
        self,
        play: Callable[[], T],
        sync: Callable[[int], None],
        staleness: int,
        state: Callable[[], Any],
        follow: Callable[[Any], None],
        processes: Processes,
        version: int = 0,
    ) -> None:
        self._play, self._sync, self._state, self._follow = play, sync, state, follow
        self._processes, self.staleness = processes, staleness
        self.waited = 0.0
        """Seconds that this process waited for a batch: idle time of a learner."""
        self.idled = 0.0
        """Seconds that this process waited for newer weights: idle time of an engine."""
        self._playing_version = version
        self._ready: Played[T] | None = None
        self._done = 0.0

    def take(self, version: int) -> Played[T]:
        """The next batch, for the update that makes `version + 1` of `version`; all call it."""
        began, plays = perf_counter(), self._processes.plays
        if self._ready is not None:
            self.idled += began - self._done
        if self._playing_version != version:
            self._sync(version)
            self._playing_version = version
        if plays and self._ready is None:
            self._ready = self._one()
        handed, state = self._processes.broadcast((self._ready, plays and self._state()), 0)
        self._ready = None
        if not plays:
            self._follow(state)
            self.waited += perf_counter() - began
        return handed

    def updating(self, last: bool) -> None:
        """The update of the batch begins; `last` if none follows."""
        if self._processes.plays and self.staleness and not last:
            self._ready = self._one()
            self._done = perf_counter()

    def updated(self, version: int) -> None:
        """The weights change hands in `take`, where all processes meet."""

    def counters(self) -> dict[str, float]:
        """Seconds that this process waited, as a learner for a batch or as a worker for weights."""
        return {"time/waiting_for_rollouts": self.waited, "time/workers_waiting": self.idled}

    def resume_point(self) -> Any:
        """`state` before the batch that no update has taken yet."""
        return self._state() if self._ready is None else self._ready.before

    def close(self) -> None:
        """Nothing runs between two calls."""

    def _one(self) -> Played[T]:
        before = self._state()
        return Played(self._play(), self._playing_version, before)
