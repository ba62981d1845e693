"""What can be asked of a recording: stretches without a cut, counts in a window, steady values.

Between `record` and `questions`. Every answer is clear to a viewer who is a second off: nothing
that counts happens within `EDGE` seconds of a window's edge, and a value that is asked for does not
change around the moment that is named. Pure functions; run `pytest
tests/tasksets/test_tasksets_atari.py`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from paravt_env.span import Span
from paravt_env.tasksets.made.atari.games import GAMES, Game
from paravt_env.tasksets.made.atari.plan import Programme, Shot
from paravt_env.tasksets.made.atari.record import Change, Log, Recording

EDGE = 2.0  # seconds: a lost life shows before or after its number changes
ROOM_SECONDS = 1.0  # shortest stay in a room that a viewer is sure to count


@dataclass(frozen=True)
class Aired:
    """One programme as it was recorded."""

    programme: Programme
    log: Log

    @property
    def game(self) -> Game:
        """The programme's game."""
        return GAMES[self.programme.shot.game]

    @property
    def cut(self) -> Shot:
        """What interrupts it."""
        assert self.programme.cut is not None
        return self.programme.cut

    @property
    def parts(self) -> tuple[Span, ...]:
        """When the programme itself is on: before and after its interruption."""
        shot, cut = self.programme.shot, self.programme.cut
        if cut is None:
            return ((shot.start, shot.end),)
        return ((shot.start, cut.start), (cut.end, shot.end))

    def around(self, time: float, before: float, after: float) -> Span:
        """From `before` seconds before `time` to `after` after it, within the part it lies in."""
        start, end = next(p for p in self.parts if p[0] <= time < p[1])
        return (max(start, time - before), min(end, time + after))


def aired(recording: Recording) -> list[Aired]:
    """The programmes of a recording in time order."""
    pairs = zip(recording.plan.programmes, recording.logs, strict=True)
    return [Aired(programme, log) for programme, log in pairs]


def lives_lost(log: Log) -> list[float]:
    """When the number of lives falls, a time for each fall."""
    return [time for (_, one), (time, other) in pairwise(log.lives) if other < one]


def rooms_entered(log: Log) -> list[float]:
    """When another room appears."""
    return [time for time, _ in log.rooms[1:]]


def clear_count(times: Sequence[float], window: Span, apart: float = 0.0) -> int | None:
    """How many of `times` lie in the window; None if one is near an edge or two are not `apart`.

    >>> clear_count([5.0, 12.0, 18.0], (8.0, 30.0)), clear_count([9.0], (8.0, 30.0))
    (2, None)
    """
    start, end = window
    near = [t for t in times if start - EDGE < t < end + EDGE]
    if any(min(abs(t - start), abs(t - end)) < EDGE for t in near):
        return None
    if any(two - one < apart for one, two in pairwise(near)):
        return None
    return len(near)


def value_at(changes: Sequence[Change], time: float) -> int:
    """The value that holds at `time`."""
    return changes[bisect_right(changes, time, key=lambda change: change[0]) - 1][1]


def steady(changes: Sequence[Change], start: float, end: float) -> int | None:
    """The value that holds from `start` to `end`, None if it changes in between."""
    one, other = value_at(changes, start), value_at(changes, end)
    return one if one == other and not any(start < time <= end for time, _ in changes) else None
