"""Where the trainer's batches come from: played in turn, ahead in a thread, or by other processes.

Between the collector and the step. All three are called alike, so that the step does not know which
it has; here is what they share, and the one that takes turns. Tests: `pytest
tests/workers/test_asynchronous.py tests/workers/test_pipeline.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Played(Generic[T]):
    """A batch and what it was played with."""

    batch: T
    version: int
    """Weights that played it: the number of updates they had seen."""
    before: Any
    """What `state` said before it was played: where a resumed run plays it again."""


class Source(Protocol[T]):
    """What the trainer asks for its batches."""

    def take(self, version: int) -> Played[T]:
        """The next batch, for the update that makes `version + 1` of `version`."""

    def updating(self, last: bool) -> None:
        """The update of the batch begins; `last` if none follows."""

    def updated(self, version: int) -> None:
        """The weights are those of `version` now."""

    def resume_point(self) -> Any:
        """What playing had changed before the oldest batch that no update has taken yet."""

    def counters(self) -> dict[str, float]:
        """Seconds waited so far, by who waited."""

    def close(self) -> None:
        """Give up what is being played, at the end of its turn."""


class InTurn(Generic[T]):
    """Playing and updating take turns.

    Args:
        play: Plays one batch.
        sync: Hands the learner's weights of a version to the rollout workers.
        state: Everything that `play` changes besides its result, for checkpoints.
        version: Updates that the weights have seen.
    """

    def __init__(
        self,
        play: Callable[[], T],
        sync: Callable[[int], None],
        state: Callable[[], Any],
        version: int = 0,
    ) -> None:
        self._play, self._sync, self._state, self._version = play, sync, state, version

    def take(self, version: int) -> Played[T]:
        """Play a batch now."""
        before = self._state()
        return Played(self._play(), self._version, before)

    def updating(self, last: bool) -> None:
        """Nothing is played meanwhile."""

    def updated(self, version: int) -> None:
        """Hand over the weights at once."""
        self._sync(version)
        self._version = version

    def resume_point(self) -> Any:
        """What `state` says now: no batch waits."""
        return self._state()

    def counters(self) -> dict[str, float]:
        """Empty: playing and updating take turns."""
        return {}

    def close(self) -> None:
        """Nothing runs between two calls."""
