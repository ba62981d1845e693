"""Subtitles in an observation: the lines of the times that its frames show, within a budget.

Between `Task.subtitles` and what an agent is told (`protocol/parts.py`). The overview brings the
lines that are on screen at its frames' times, a crop those that are spoken inside its window; each
of them has the whole budget of characters. In an observation they are one text, a line each: window
(0 the overview, i the i-th crop of the turn), start and end in seconds and the words, separated by
tabs. Run the tests with `pytest tests/tasksets/test_tasksets_subtitles.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from paravt_env.span import Span
from paravt_env.task import Subtitle


class SubtitleLine(NamedTuple):
    """One line of an observation's subtitles."""

    window: int
    start: float
    end: float
    text: str


def at_times(subtitles: Sequence[Subtitle], times: np.ndarray) -> list[Subtitle]:
    """The lines on screen at one of `times` (seconds), in order.

    >>> lines = [Subtitle(0, 2, "a"), Subtitle(2, 4, "b"), Subtitle(5, 9, "c")]
    >>> [line.text for line in at_times(lines, np.array([2.0, 6.0]))]
    ['b', 'c']
    """
    ordered = np.sort(np.asarray(times, float))
    spans = np.array([(line.start, line.end) for line in subtitles], float).reshape(-1, 2)
    first, past = np.searchsorted(ordered, spans).T
    return [subtitles[i] for i in np.flatnonzero(first < past)]


def in_window(subtitles: Sequence[Subtitle], window: Span) -> list[Subtitle]:
    """The lines that are on screen at some moment of `window` (seconds), in order.

    >>> lines = [Subtitle(0, 2, "a"), Subtitle(2, 4, "b"), Subtitle(5, 9, "c")]
    >>> [line.text for line in in_window(lines, (1.0, 5.0))]
    ['a', 'b']
    """
    start, end = window
    return [line for line in subtitles if line.start < end and line.end > start]


def within_budget(lines: Sequence[Subtitle], characters: int) -> list[Subtitle]:
    """At most `characters` characters of text: lines evenly spread over all, and how many are left.

    The note on what was left out is not counted. Where not even one line fits, the middle one is
    cut.

    >>> lines = [Subtitle(i, i + 1, "word") for i in range(5)]
    >>> [(line.start, line.text) for line in within_budget(lines, 8)]
    [(1, 'word'), (3, 'word'), (4, '(3 more lines)')]
    """
    lengths = np.array([len(line.text) for line in lines], int)
    if lengths.sum() <= characters:
        return list(lines)
    for count in range(min(len(lines) - 1, characters), 0, -1):
        chosen = ((np.arange(count) + 0.5) * len(lines) / count).astype(int)
        if lengths[chosen].sum() <= characters:
            kept = [lines[i] for i in chosen]
            break
    else:
        middle = lines[len(lines) // 2]
        kept = [Subtitle(middle.start, middle.end, f"{middle.text[:characters]}...")]
    left = len(lines) - len(kept)
    if left:
        last = lines[-1]
        kept.append(Subtitle(last.start, last.end, f"({left} more line{'s' * (left > 1)})"))
    return kept


def as_text(
    sections: Iterable[tuple[int, Sequence[Subtitle]]], characters: int, duration: float
) -> str:
    """The subtitles of an observation.

    Args:
        sections: Window code and its lines, in order.
        characters: Budget of each section.
        duration: Of the video in seconds: no line ends later.
    """
    return "\n".join(
        f"{window}\t{line.start:.1f}\t{min(line.end, duration):.1f}\t{' '.join(line.text.split())}"
        for window, lines in sections
        for line in within_budget(lines, characters)
    )


def lines_of(text: str, window: int) -> list[SubtitleLine]:
    r"""The lines of one window of an observation's subtitles.

    >>> lines_of("0\t1.0\t2.5\tHello\n1\t9.0\t9.5\tthere", 1)
    [SubtitleLine(window=1, start=9.0, end=9.5, text='there')]
    """
    found = []
    for line in text.splitlines():
        code, start, end, words = line.split("\t", 3)
        if int(code) == window:
            found.append(SubtitleLine(window, float(start), float(end), words))
    return found
