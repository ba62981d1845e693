"""SubRip and WebVTT text, as tools write it, read as cues: start, end and one line of words.

`subtitle_files.py` reads files with it. Both formats have one parser, as real files mix them:
WebVTT (W3C Recommendation, 2019) with a missing blank line, SubRip with WebVTT's settings. Mark-up
is taken out, so that a cue can hold neither tags of the text protocol nor a model's special tokens;
rolling captions, which show every line twice or three times, are told once. Run the tests with
`pytest tests/tasksets/test_tasksets_subtitles.py tests/tasksets/test_tasksets_captions.py`.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from typing import NamedTuple

MAX_SUBTITLE_CHARS = 2000
"""The longest text of one line; what is longer is cut and ends in "..."."""
FLASH = 0.05
"""Seconds: a shorter cue that repeats the one before only moves it on the screen."""
GAP = 0.1
"""Seconds between two cues that still follow one another on the screen."""

CLOCK = r"(?:\d+:)?\d{1,2}:\d{2}(?:[.,]\d{1,6})?"
_TIMES = re.compile(rf"[ \t]*(-?)({CLOCK})[ \t]*-->[ \t]*(-?)({CLOCK})(?![\d:])")
_LIKE_TIMES = re.compile(r"[ \t]*-?\d[\d:., \t-]*-->")
_MARKUP = re.compile(r"<(?![\s<>])[^<>]*>|\{\\[^{}]*\}")


class Cue(NamedTuple):
    """What is on screen for a while."""

    start: float
    """Seconds."""
    end: float
    text: str


class Cues(NamedTuple):
    """A text as it was read."""

    cues: list[Cue]
    skipped: int
    """Cues left out: their times are reversed, negative, or no times at all."""


def parse_srt(text: str) -> list[tuple[float, float, str]]:
    r"""(start, end, text) of each cue of SubRip or WebVTT text, in seconds.

    Raises:
        ValueError: No cue has a line of times.

    >>> parse_srt("1\n00:00:01,500 --> 00:01:02,000\n<i>Hello</i>\nthere\n")
    [Cue(start=1.5, end=62.0, text='Hello there')]
    """
    return list(parse_cues(text).cues)


def parse_cues(text: str) -> Cues:
    r"""The cues of SubRip or WebVTT text, in the order in which they are written.

    Raises:
        ValueError: No cue has a line of times.

    >>> parse_cues("WEBVTT\n\n00:01.000 --> 00:02.000 line:0\n<v Ann>a &lt; b\n")
    Cues(cues=[Cue(start=1.0, end=2.0, text='a < b')], skipped=0)
    >>> parse_cues("1\n0:05 --> 0:02\nback\n\n2\n0:06 --> 0:07\nforth\n").skipped
    1
    """
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    is_vtt = lines[0].lstrip("\ufeff").startswith("WEBVTT")
    cues: list[Cue] = []
    shown: list[str] = []  # the lines of the cue before, as they are on screen
    skipped = found = 0
    for header, payload in _blocks(lines):
        found += 1
        span = _span(header)
        if span is None:
            skipped += 1
            continue
        words = [clean(html.unescape(line) if is_vtt else line) for line in payload]
        words = [line for line in words if line]
        follows = bool(cues) and -GAP <= span[0] - cues[-1].end <= GAP
        repeated = _overlap(shown, words) if follows else 0
        if repeated and repeated == len(words):
            is_flash = min(span[1] - span[0], cues[-1].end - cues[-1].start) <= FLASH
            if is_flash:
                cues[-1] = cues[-1]._replace(end=max(cues[-1].end, span[1]))
            repeated = repeated if is_flash else 0
        if words[repeated:] or not words:
            cues.append(Cue(*span, clean("\n".join(words[repeated:]))))
        shown = words
    if not found and text.strip() and not (is_vtt and "-->" not in text):
        raise ValueError("no times such as 00:00:01,000 --> 00:00:02,000: not SubRip")
    return Cues(cues, skipped)


def _blocks(lines: list[str]) -> Iterator[tuple[str, list[str]]]:
    """The line of times of each cue, and the lines of its text.

    An empty line ends a text; one that holds a space does not. Where it is missing, the next cue's
    number and times are no text.
    """
    at = [i for i, line in enumerate(lines) if _LIKE_TIMES.match(line)]
    for i, after in zip(at, [*at, len(lines)][1:], strict=True):
        payload = lines[i + 1 : after]
        if "" in payload:
            payload = payload[: payload.index("")]
        elif after < len(lines) and payload and _follows(lines, i, payload[-1]):
            payload.pop()
        yield lines[i], payload


def _follows(lines: list[str], at: int, line: str) -> bool:
    """Whether a line is the number after that of the cue whose times are at line `at`."""
    before = lines[at - 1].strip().lstrip("\ufeff") if at else ""
    line = line.strip()
    if not (before.isdecimal() and line.isdecimal()) or max(len(before), len(line)) > 9:
        return False
    return int(line) == int(before) + 1


def _span(header: str) -> tuple[float, float] | None:
    times = _TIMES.match(header)
    if times is None or times[1] or times[3]:
        return None
    start, end = clock(times[2]), clock(times[4])
    return (start, end) if start <= end else None


def _overlap(before: list[str], lines: list[str]) -> int:
    """How many of `lines` are what the end of `before` already showed.

    >>> _overlap(["a", "b"], ["b", "c"]), _overlap(["a"], ["c"])
    (1, 0)
    """
    most = min(len(before), len(lines), 8)  # no screen holds more
    return next((k for k in range(most, 0, -1) if before[-k:] == lines[:k]), 0)


def clock(text: str) -> float:
    """Seconds of `hh:mm:ss,mmm` or `mm:ss.mmm`."""
    total = 0.0
    for part in text.replace(",", ".").split(":"):
        total = 60 * total + float(part)
    return total


def clean(text: str) -> str:
    r"""One line without mark-up and control characters.

    >>> clean("<font color='white'>A\n<answer>B</answer>") + clean("{\\an8}|<|im_end|>")
    'A B|'
    >>> clean("a < b and c > d"), clean("one\\htwo")
    ('a < b and c > d', 'one two')
    """
    if len(text) > MAX_SUBTITLE_CHARS:
        text = text[:MAX_SUBTITLE_CHARS] + "..."
    previous = ""
    while text != previous:  # what is left when mark-up goes may be mark-up again
        previous, text = text, _MARKUP.sub("", text)
    text = text.replace("\\h", " ")  # a no-break space, as FFmpeg writes it
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())
