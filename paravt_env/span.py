"""Spans of time in seconds: how they are read from text, and how two of them overlap.

Used by the answer term, by task sets whose gold answers are spans, by the reading of calls, and by
the evaluation. Tests: `pytest tests/rewards/test_spans.py tests/rewards/test_rewards.py`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

Span = tuple[float, float]
"""Start and end in seconds."""

_HOURS, _MINUTES, _SECONDS = r"h(?:(?:ou)?rs?)?", r"m(?:in(?:ute)?s?)?", r"s(?:ec(?:ond)?s?)?"
_NUMBER = re.compile(r"(?<![\w.:])[0-9][\w.:]*", re.ASCII)
_PLAIN = re.compile(r"([0-9]+(?:\.[0-9]+)?)([a-z]*)")
_CLOCK = re.compile(r"(?:([0-9]+):)?([0-9]+):([0-5]?[0-9](?:\.[0-9]+)?)")
_LETTERED = re.compile(
    rf"(?:([0-9]+){_HOURS})?(?:([0-9]+){_MINUTES})?(?:([0-9]+(?:\.[0-9]+)?){_SECONDS})?"
)
_UNIT = re.compile(r" ?-? ?(hours?|hrs?|minutes?|mins?|seconds?|secs?|[hms])\b", re.IGNORECASE)
_UNIT_SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0}
_SMALLER = re.compile(r",? ?(?:and )?", re.IGNORECASE)
_TO = re.compile(
    r"[)\]\"' ]*(?:-+>?|[\u2010-\u2015\u2212~,;\u2192\u301c\uff5e\u81f3\u5230]|\.\.+|\u2026|"
    r"\b(?:to|and|until|till|through|thru)\b)"
    r"(?: ?(?:at|about|around|approximately|t ?=))?[(\[\"' ]*",
    re.IGNORECASE,
)
_OR = re.compile(r"[)\]\"', ]*\bor\b[(\[\"' ]*", re.IGNORECASE)
_LABEL = re.compile(
    r"\b(?:crop|call|window|frame|clip|step|event|option|part|no\.?|#)s? ?#?$", re.I
)
_LENGTH = re.compile(
    r"[- ]*(?:long|video|clip|film|movie|crop|window|segment|in length|in duration|in total)\b",
    re.I,
)
_NEAR = 24
"""Characters between two times, or beside one, that are looked at."""


class _Time(NamedTuple):
    """A time in a text: seconds (None: a word that is none), its unit ("" without), its place."""

    seconds: float | None
    unit: str
    start: int
    end: int


def parse_span(text: str) -> Span | None:
    """Read a time span in seconds: two numbers, plain, with a unit, or as (hh:)mm:ss.

    The first two times that are joined as start and end ("10-20", "10 s to 1:05", "10, 20") count,
    whatever follows, as in the published evaluation. Where none are, the text must hold two times
    and no third; labels ("crop 1") and lengths ("25 s long", "a 300-second video") are no times.

    Returns:
        (start, end), or None; None also where another span is offered with "or".

    >>> parse_span("from 1:05 to 70.5 s"), parse_span("1.2.3 - 5")
    ((65.0, 70.5), None)
    >>> parse_span("Crop 1: 65-90 (25 s long)"), parse_span("1.5 to 2 minutes")
    ((65.0, 90.0), (90.0, 120.0))
    """
    text = " ".join(text.split())
    before: _Time | None = None
    alone: list[_Time] = []
    times = _merged(text)
    for time in times:
        gap = text[before.end : time.start] if before is not None else ""
        if before is not None and len(gap) <= _NEAR and _TO.fullmatch(gap):
            found = _joined(before, time)
            if found is not None:
                return None if _offers_another(text, time, next(times, None)) else found
        if before is not None and len(gap) <= _NEAR and _OR.fullmatch(gap):
            return None
        before = time
        if len(alone) < 3 and not _no_time(text, time):
            alone.append(time)
    return _joined(*alone) if len(alone) == 2 else None


def sole_span(text: str) -> Span | None:
    """The span of a text that holds two times and no third number; None for any other text.

    >>> sole_span("12.5 - 20"), sole_span("3 cars, 2 of them red, leave at 20")
    ((12.5, 20.0), None)
    """
    return parse_span(text) if len(_NUMBER.findall(text)) == 2 else None


def read_time(word: str) -> float | None:
    """Seconds of one time as people write it; None for any other word.

    >>> read_time("01:30"), read_time("00:01:30"), read_time("10s"), read_time("1m 30s")
    (90.0, 90.0, 10.0, 90.0)
    """
    word = " ".join(word.split())
    times = list(_merged(word)) if len(word) <= _NEAR else []
    whole = len(times) == 1 and times[0].start == 0 and times[0].end == len(word)
    return times[0].seconds if whole else None


def temporal_iou(predicted: Span | None, gold: Span) -> float:
    """Intersection over union of two spans in seconds; 0 for none, an empty or a reversed one.

    >>> temporal_iou((0.0, 10.0), (5.0, 20.0))
    0.25
    """
    if predicted is None or not predicted[0] < predicted[1] < math.inf or not gold[0] < gold[1]:
        return 0.0
    overlap = max(0.0, min(predicted[1], gold[1]) - max(predicted[0], gold[0]))
    return overlap / ((predicted[1] - predicted[0]) + (gold[1] - gold[0]) - overlap)


def _joined(first: _Time, second: _Time) -> Span | None:
    """Start and end; a start without a unit takes that of the end ("1 to 2 minutes")."""
    if first.seconds is None or second.seconds is None:
        return None
    scaled = first.seconds * _UNIT_SECONDS.get(second.unit, 1.0)
    start = scaled if not first.unit and scaled < second.seconds else first.seconds
    return start, second.seconds


def _offers_another(text: str, end: _Time, following: _Time | None) -> bool:
    gap = text[end.end : following.start] if following is not None else ""
    return bool(gap) and len(gap) <= _NEAR and _OR.fullmatch(gap) is not None


def _no_time(text: str, time: _Time) -> bool:
    """Whether a number is a label or a length: "crop 1", "25 s long"."""
    before = text[max(0, time.start - _NEAR) : time.start]
    return bool(_LABEL.search(before)) or _LENGTH.match(text, time.end) is not None


def _merged(text: str) -> Iterator[_Time]:
    """The times of a text in order; "1 min 5 s" is one."""
    held: _Time | None = None
    for time in _times(text):
        if (
            held is not None
            and held.unit in ("h", "m")
            and time.unit in ("m", "s")
            and held.unit != time.unit
            and held.seconds is not None
            and time.seconds is not None
            and time.start - held.end < 6
            and _SMALLER.fullmatch(text, held.end, time.start)
        ):
            held = _Time(held.seconds + time.seconds, time.unit, held.start, time.end)
            continue
        if held is not None:
            yield held
        held = time
    if held is not None:
        yield held


def _times(text: str) -> Iterator[_Time]:
    for match in _NUMBER.finditer(text):
        word = match[0].rstrip(".:")
        end = match.start() + len(word)
        seconds, unit = _seconds(word.lower())
        if not unit and ":" not in word and (named := _UNIT.match(text, end)) is not None:
            unit, end = named[1][0].lower(), named.end()
            seconds = None if seconds is None else seconds * _UNIT_SECONDS[unit]
        yield _Time(seconds, unit, match.start(), end)


def _seconds(word: str) -> tuple[float | None, str]:
    """Seconds and unit of one word: "10", "10.5s", "1:05", "1m30s"."""
    plain = _PLAIN.fullmatch(word)
    if plain is not None and not plain[2]:
        return float(plain[1]), ""
    if (clock := _CLOCK.fullmatch(word)) is not None:
        hours, minutes, seconds = (float(part or 0) for part in clock.groups())
        return 3600 * hours + 60 * minutes + seconds, "clock"
    if plain is not None and (unit := _UNIT.fullmatch(plain[2])) is not None:
        return float(plain[1]) * _UNIT_SECONDS[unit[1][0]], unit[1][0]
    if (lettered := _LETTERED.fullmatch(word)) is not None:
        hours, minutes, seconds = (float(part or 0) for part in lettered.groups())
        return 3600 * hours + 60 * minutes + seconds, "clock"
    return None, ""
