"""How far long work is: an estimate of the time left, and a line at least every half minute.

Used where videos are made, which needs the core installation alone, and by the benchmarks;
`train/common/console.py` draws the same on a terminal with rich. Tests: `pytest
tests/commands/test_progress.py`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TextIO, TypeVar

Item = TypeVar("Item")

EVERY = 30.0
"""Seconds between two lines where nothing can be redrawn in place."""
ENOUGH, SHARE = 16.0, 0.02
"""An estimate rests on this share of the work, or on this much of it, whichever is less."""


class Pace:
    """When the progress of long work is told, and how long the rest may take.

    Args:
        total: All of the work, in any unit.
        done: What was done before, which says nothing about the speed.
        every: Most seconds between two lines.
        clock: Seconds from any start; it never runs backwards.
    """

    def __init__(
        self,
        total: float,
        done: float = 0.0,
        every: float = EVERY,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.total, self.first, self.every, self.clock = total, done, every, clock
        self.began = clock()
        self._told: float | None = None

    def due(self, done: float) -> bool:
        """Whether a line is due: the first one, the last one, or `every` seconds have passed."""
        now = self.clock()
        due = self._told is None or done >= self.total or now - self._told >= self.every
        if due:
            self._told = now
        return due

    def left(self, done: float) -> str:
        """The estimate in words; "" at the end, and before enough was done to measure a speed."""
        enough = min(ENOUGH, SHARE * (self.total - self.first))
        if done <= self.first or done - self.first < enough or done >= self.total:
            return ""
        speed = (self.clock() - self.began) / (done - self.first)
        return f"about {in_words(speed * (self.total - done))} left"


class Progress:
    """A bar that is redrawn on a terminal; elsewhere a line at least every half minute.

    Args:
        what: Before the bar.
        total: All of the work.
        shown: False shows nothing.
        stream: Where to; standard error, which carries no results.
        pace: Replaces the clock.
    """

    def __init__(
        self,
        what: str,
        total: float,
        shown: bool = True,
        stream: TextIO | None = None,
        pace: Pace | None = None,
    ) -> None:
        self.what, self.total, self.shown = what, total, shown
        self.stream = stream or sys.stderr
        self.pace = pace or Pace(total)

    def show(self, done: float, amount: str) -> None:
        """Tell how far the work is.

        Args:
            done: How much of `total`.
            amount: The same in words.
        """
        terminal = self.stream.isatty()
        if not self.shown or not (terminal or self.pace.due(done)):
            return
        filled = int(24 * done / self.total)
        bar = "#" * filled + "." * (24 - filled)
        left = self.pace.left(done)
        text = f"{self.what} [{bar}] {amount}{', ' + left if left else ''}"
        start, end = ("\r", "\x1b[K") if terminal else ("", "")
        close = "\n" if done >= self.total or not terminal else ""
        self.stream.write(f"{start}{text}{end}{close}")
        self.stream.flush()


def counted(what: str, items: Iterable[Item], stream: TextIO | None = None) -> Iterator[Item]:
    """The items one by one, with a bar on standard error of how many are done.

    >>> import io
    >>> list(counted("cells", "ab", io.StringIO()))
    ['a', 'b']
    """
    known = list(items)
    bar = Progress(what, len(known), bool(known), stream)
    bar.show(0, f"0/{len(known)}")
    for done, item in enumerate(known, 1):
        yield item
        bar.show(done, f"{done}/{len(known)}")


def in_words(seconds: float) -> str:
    """A duration as a person says it.

    >>> in_words(8.2), in_words(90), in_words(4000)
    ('8 s', '2 min', '1 h 7 min')
    """
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
