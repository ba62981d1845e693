"""Asynchronous rollouts: generation, cropping and updating at the same time, within a bound.

Two overlaps, each of which may be used alone. :func:`play_in_lanes` divides a batch into lanes that
play side by side over one engine: while the crops of one lane are decoded, another generates.
:class:`Ahead` plays the next batches in a thread of its own while the learner updates on this one.
How far it may run ahead is the staleness bound: a batch is played only if the update that will use
it is at most that many updates newer than the weights that play it. With 0 the two take turns,
and the numbers are those of the synchronous loop.

Weights change hands in :meth:`Ahead.take` alone, between two updates and between two batches, so a
completion never mixes two versions.

Command: `pytest tests/workers/test_asynchronous.py`.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Generic, TypeVar

import numpy as np

from agents.base import Agent
from paravt_env.vector import LongVideoVectorEnv
from train.rollout.play import Rollout, Start, play

T = TypeVar("T")
Progress = Callable[[int, int], None]


class StalledError(RuntimeError):
    """Rollouts that make no progress: an engine or an environment hangs."""


class Cancelled(Exception):
    """A batch was given up half-way because the run ends."""


@dataclass(frozen=True)
class Lane:
    """Rows of its own and an agent of its own; the engine behind the agents may be shared."""

    env: LongVideoVectorEnv
    agent: Agent


def divide(groups: int, lanes: int) -> list[int]:
    """Groups that each lane plays, as even as possible.

    >>> divide(7, 3)
    [3, 2, 2]
    """
    if not 1 <= lanes <= groups:
        raise ValueError(f"{groups} groups cannot be divided over {lanes} lanes")
    return [len(part) for part in np.array_split(np.arange(groups), lanes)]


def play_in_lanes(
    lanes: Sequence[Lane], starts: Sequence[Start], size: int, progress: Progress | None = None
) -> list[Rollout]:
    """Play one batch with every lane in a thread of its own; groups stay whole.

    Args:
        lanes: Where to play; one lane plays in the calling thread, exactly as `play`.
        starts: A group is `size` equal starts in a row.
        size: Rollouts of a group.
        progress: Called with (finished rows, rows) of a lane after each of its turns; what it
            raises ends the lane.

    Returns:
        One rollout a start, in order.

    Raises:
        Exception: The first error of a lane, after the other lanes have ended.
    """
    parts, at = [], 0
    for groups in divide(len(starts) // size, len(lanes)):
        parts.append(starts[at : at + groups * size])
        at += groups * size
    if at != len(starts):
        raise ValueError(f"{len(starts)} starts are no whole groups of {size}")
    if len(lanes) == 1:
        return play(lanes[0].env, lanes[0].agent, parts[0], progress)
    with ThreadPoolExecutor(len(lanes), "lane") as pool:
        running = [
            pool.submit(play, lane.env, lane.agent, part, progress)
            for lane, part in zip(lanes, parts, strict=True)
        ]
    return [rollout for future in running for rollout in future.result()]


@dataclass(frozen=True)
class Played(Generic[T]):
    """A batch and what it was played with."""

    batch: T
    version: int
    """Weights that played it: the number of updates they had seen."""
    before: Any
    """What `state` said before it was played: where a resumed run plays it again."""


class Ahead(Generic[T]):
    """Plays batches in a thread while the caller updates.

    Args:
        play: Plays one batch; given a progress callback that must be called between turns, as it
            ends the batch when the run is closed.
        sync: Hands the learner's weights of a version to whoever plays. Called in the caller's
            thread, when nothing is being played and nothing updated.
        staleness: Updates between the weights that play a batch and the update that uses it, at
            most.
        state: Everything that `play` changes besides its result, for checkpoints.
        version: Updates that the weights have seen; the players hold the same ones.
        patience: Seconds without progress of `play` after which `take` gives up.
    """

    def __init__(
        self,
        play: Callable[[Progress], T],
        sync: Callable[[int], None],
        staleness: int,
        state: Callable[[], Any] = lambda: None,
        version: int = 0,
        patience: float = math.inf,
    ) -> None:
        if staleness < 0:
            raise ValueError(f"staleness {staleness}: at least 0 is needed")
        self._play, self._sync, self._state = play, sync, state
        self.staleness = staleness
        self.waited = 0.0
        """Seconds that the caller waited for a batch: idle time of the learner."""
        self.parked = 0.0
        """Seconds that the players waited for newer weights: idle time of the engine."""
        self.patience = patience
        self._moved = perf_counter()
        self._held = version
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
                    if not self._playing and self._held != version:
                        self._sync(version)
                        self._held = version
                        self._changed.notify_all()
                    if self._ready:
                        return self._ready.popleft()
                    self._wait_for_play()
            finally:
                self._offered = None
                self.waited += perf_counter() - began

    def _wait_for_play(self) -> None:
        left = self._moved + self.patience - perf_counter() if self._playing else math.inf
        if left <= 0:
            self._error = StalledError(
                f"the rollouts have made no turn for {self.patience:g} s: look whether the engine "
                "still runs and the videos can be read, or raise parallel.long_timeout"
            )
            raise self._error
        self._changed.wait(None if left == math.inf else left)

    def updating(self, last: bool) -> None:
        """The update of the batch begins; the thread plays on by itself."""

    def resume_point(self) -> Any:
        """`state` before the oldest batch that no update has taken yet."""
        with self._changed:
            if self._ready:
                return self._ready[0].before
            return self._before if self._playing else self._state()

    def close(self) -> None:
        """Give up what is being played, at the end of its turn."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread is not None and not isinstance(self._error, StalledError):
            self._thread.join()

    def _progress(self, done: int, rows: int) -> None:
        self._moved = perf_counter()
        if self._closed and done < rows:
            raise Cancelled

    def _run(self) -> None:
        try:
            while self._wait_for_weights():
                batch = self._play(self._progress)
                with self._changed:
                    self._ready.append(Played(batch, self._held, self._before))
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
                self._next - self._held > self.staleness or self._offered not in (None, self._held)
            ):
                self._changed.wait()
            self.parked += perf_counter() - began
            self._playing = not self._closed
            self._moved = perf_counter()
            if self._playing:
                self._before = self._state()
            return self._playing
