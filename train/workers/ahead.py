"""Asynchronous rollouts: the next batches are played in a thread while this one updates.

How far the thread may run ahead is the staleness bound: a batch is played only if the update that
will use it is at most that many updates newer than the weights that play it. With 0 the two take
turns, and the numbers are those of the synchronous loop.

Weights change hands in :meth:`Ahead.take` alone, between two updates and between two batches, so a
completion never mixes two versions.

Command: `pytest tests/workers/test_asynchronous.py`.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable
from time import perf_counter
from typing import Any, Generic, TypeVar

from train.workers.lanes import Cancelled, Heartbeat
from train.workers.source import Played

T = TypeVar("T")


class StalledError(RuntimeError):
    """Rollouts that make no progress: an engine or an environment hangs."""


class Ahead(Generic[T]):
    """Plays batches in a thread while the caller updates.

    Args:
        play: Plays one batch, and tells `heartbeat` of every turn.
        sync: Hands the learner's weights of a version to the workers. Called in the caller's
            thread, when nothing is being played and nothing updated.
        staleness: Updates between the weights that play a batch and the update that uses it, at
            most.
        state: Everything that `play` changes besides its result, for checkpoints.
        version: Updates that the weights have seen; the workers hold the same ones.
        patience: Seconds without a turn of `play` after which `take` gives up.
        heartbeat: What `play` tells of its turns; it ends the batch when the run is closed.
    """

    def __init__(
        self,
        play: Callable[[], T],
        sync: Callable[[int], None],
        staleness: int,
        state: Callable[[], Any] = lambda: None,
        version: int = 0,
        patience: float = math.inf,
        heartbeat: Heartbeat | None = None,
    ) -> None:
        if staleness < 0:
            raise ValueError(f"staleness {staleness}: at least 0 is needed")
        self._play, self._sync, self._state = play, sync, state
        self.staleness = staleness
        self.waited = 0.0
        """Seconds that the caller waited for a batch: idle time of the learner."""
        self.idled = 0.0
        """Seconds that the workers waited for newer weights: idle time of the engine."""
        self.patience = patience
        self._heartbeat = heartbeat or Heartbeat()
        self._playing_version = version
        self._next = version
        self._ready: deque[Played[T]] = deque()
        self._error: BaseException | None = None
        self._playing = self._closed = False
        self._before: Any = None
        self._offered: int | None = None
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def take(self, version: int) -> Played[T]:
        """The next batch, for the update that makes `version + 1` of `version`.

        Raises:
            StalledError: Nothing has moved for `patience` seconds.
            Exception: What `play` or `sync` raised.
        """
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="rollouts", daemon=True)
            self._thread.start()
        began = perf_counter()
        with self._changed:
            self._offered = version
            try:
                while True:
                    if self._error is not None:
                        raise self._error
                    if not self._playing and self._playing_version != version:
                        self._sync(version)
                        self._playing_version = version
                        self._changed.notify_all()
                    if self._ready:
                        return self._ready.popleft()
                    self._wait_for_play()
            finally:
                self._offered = None
                self.waited += perf_counter() - began

    def _wait_for_play(self) -> None:
        left = self._heartbeat.moved + self.patience - perf_counter() if self._playing else math.inf
        if left <= 0:
            self._error = StalledError(
                f"the rollouts have made no turn for {self.patience:g} s: look whether the engine "
                "still runs and the videos can be read, or raise parallel.long_timeout"
            )
            raise self._error
        self._changed.wait(None if left == math.inf else left)

    def updating(self, last: bool) -> None:
        """The update of the batch begins; the thread plays on by itself."""

    def updated(self, version: int) -> None:
        """The weights change hands in `take`, where nothing is being played."""

    def counters(self) -> dict[str, float]:
        """Seconds that the learner waited for a batch, and the workers for newer weights."""
        return {"time/waiting_for_rollouts": self.waited, "time/workers_waiting": self.idled}

    def resume_point(self) -> Any:
        """`state` before the oldest batch that no update has taken yet."""
        with self._changed:
            if self._ready:
                return self._ready[0].before
            return self._before if self._playing else self._state()

    def close(self) -> None:
        """Give up what is being played, at the end of its turn."""
        with self._changed:
            self._closed = self._heartbeat.stopping = True
            self._changed.notify_all()
        if self._thread is not None and not isinstance(self._error, StalledError):
            self._thread.join()

    def _run(self) -> None:
        try:
            while self._wait_for_weights():
                batch = self._play()
                with self._changed:
                    self._ready.append(Played(batch, self._playing_version, self._before))
                    self._next += 1
                    self._playing = False
                    self._changed.notify_all()
        except Cancelled:
            pass
        except BaseException as error:
            with self._changed:
                self._error = error
                self._playing = False
                self._changed.notify_all()

    def _wait_for_weights(self) -> bool:
        """Wait until the next batch may begin; False when the run ends.

        It may once the bound allows it, and the newest weights are taken where they are offered.
        """
        began = perf_counter()
        with self._changed:
            while not self._closed and (
                self._next - self._playing_version > self.staleness
                or self._offered not in (None, self._playing_version)
            ):
                self._changed.wait()
            self.idled += perf_counter() - began
            self._playing = not self._closed
            self._heartbeat.moved = perf_counter()
            if self._playing:
                self._before = self._state()
            return self._playing
