"""Spans of time in seconds: how they are read from text, and how two of them overlap.

Used by the answer term, by task sets whose gold answers are spans, and by the evaluation. Tests:
`pytest tests/rewards/test_rewards.py`.
"""

from __future__ import annotations

import math
import re

Span = tuple[float, float]
"""Start and end in seconds."""

_NUMBER = re.compile(r"(?<![\w.:])[0-9][\w.:]*", re.ASCII)
_PLAIN = re.compile(r"([0-9]+(?:\.[0-9]+)?)(?:s|secs?|seconds?)?")
_CLOCK = re.compile(r"(?:([0-9]+):)?([0-9]+):([0-5]?[0-9](?:\.[0-9]+)?)")


def parse_span(text: str) -> Span | None:
    """Read a time span in seconds: exactly two numbers, plain, with "s", or as (hh:)mm:ss.

    Returns:
        (start, end), or None: anything else, as a text with three times is no answer.

    >>> parse_span("from 1:05 to 70.5 s"), parse_span("1.2.3 - 5")
    ((65.0, 70.5), None)
    """
    times = [_seconds(match.rstrip(".:")) for match in _NUMBER.findall(text)]
    if len(times) != 2 or times[0] is None or times[1] is None:
        return None
    return times[0], times[1]


def _seconds(word: str) -> float | None:
    if plain := _PLAIN.fullmatch(word):
        return float(plain[1])
    if clock := _CLOCK.fullmatch(word):
        hours, minutes, seconds = (float(part or 0) for part in clock.groups())
        return 3600 * hours + 60 * minutes + seconds
    return None


def temporal_iou(predicted: Span | None, gold: Span) -> float:
    """Intersection over union of two spans in seconds; 0 for none, an empty or a reversed one.

    >>> temporal_iou((0.0, 10.0), (5.0, 20.0))
    0.25
    """
    if predicted is None or not predicted[0] < predicted[1] < math.inf:
        return 0.0
    overlap = max(0.0, min(predicted[1], gold[1]) - max(predicted[0], gold[0]))
    return overlap / ((predicted[1] - predicted[0]) + (gold[1] - gold[0]) - overlap)
