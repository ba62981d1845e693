"""Subtitle files: SubRip (`.srt`, and WebVTT) and JSON, read as lines with times.

Between a data set's folder and `Task.subtitles`; `paravt_env/subtitles.py` chooses what an
observation shows of them. Mark-up is taken out, so that a line can hold neither tags of the text
protocol nor a model's special tokens. Run the tests with `pytest
tests/tasksets/test_tasksets_subtitles.py`.
"""

from __future__ import annotations

import codecs
import functools
import json
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

from paravt_env.task import Subtitle, TaskError
from paravt_env.tasksets.rows import is_number

MAX_SUBTITLE_BYTES = 16 * 2**20
"""The largest subtitle file; an hour of speech has about 0.1 MiB."""
MAX_SUBTITLE_CHARS = 2000
"""The longest text of one line; what is longer is cut and ends in "..."."""

_CLOCK = r"(?:\d+:)?\d{1,2}:\d{2}(?:[.,]\d{1,6})?"
_TIMES = re.compile(rf"^[ \t]*({_CLOCK})[ \t]*-->[ \t]*({_CLOCK})", re.MULTILINE)
_BLANK = re.compile(r"^[ \t]*$", re.MULTILINE)
_MARKUP = re.compile(r"<[^<>]*>|\{\\[^{}]*\}")


@dataclass(frozen=True)
class SubtitleFile(Sequence[Subtitle]):
    """The lines of a subtitle file, read when first looked at; pickled as its path.

    Attributes:
        path: An `.srt`, `.vtt` or `.json` file.
        offset: Seconds of the file's clock at which the video starts.

    Raises:
        TaskError: On first use: the file cannot be read.
    """

    path: str
    offset: float = 0.0

    @overload
    def __getitem__(self, index: int) -> Subtitle: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Subtitle]: ...
    def __getitem__(self, index: int | slice) -> Subtitle | Sequence[Subtitle]:
        """A line, or several."""
        return load_subtitles(self.path, self.offset)[index]

    def __len__(self) -> int:
        """Number of lines."""
        return len(load_subtitles(self.path, self.offset))


@functools.lru_cache(maxsize=256)
def load_subtitles(path: str, offset: float = 0.0) -> tuple[Subtitle, ...]:
    """The lines of a file by start time, on the clock of a video that starts at `offset` seconds.

    Lines that end before the video starts are not part of it.

    Raises:
        TaskError: The file is absent, too large, or not subtitles; the message names it.
    """
    try:
        if Path(path).stat().st_size > MAX_SUBTITLE_BYTES:
            raise TaskError(f"{path}: subtitles larger than {MAX_SUBTITLE_BYTES} bytes")
        text = _decoded(Path(path).read_bytes())
        lines = parse_json(text) if path.lower().endswith(".json") else parse_srt(text)
    except OSError as error:
        raise TaskError(f"{path}: cannot read the subtitles: {error}") from error
    except ValueError as error:
        raise TaskError(f"{path}: {error}") from error
    shifted = (Subtitle(max(s - offset, 0.0), e - offset, text) for s, e, text in lines)
    return tuple(sorted((s for s in shifted if s.end > 0 and s.text), key=lambda s: s.start))


def _decoded(data: bytes) -> str:
    """Text in UTF-8, or in UTF-16 with a byte order mark."""
    wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return data.decode("utf-16" if wide else "utf-8-sig", errors="replace")


def parse_srt(text: str) -> list[tuple[float, float, str]]:
    r"""(start, end, text) of each block of SubRip or WebVTT text, in seconds.

    Raises:
        ValueError: No block has a line of times.

    >>> parse_srt("1\n00:00:01,500 --> 00:01:02,000\n<i>Hello</i>\nthere\n")
    [(1.5, 62.0, 'Hello there')]
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    found = list(_TIMES.finditer(text))
    if text.strip() and not found:
        raise ValueError("no times such as 00:00:01,000 --> 00:00:02,000: not SubRip")
    lines: list[tuple[float, float, str]] = []
    ends = [*(match.start() for match in found), len(text)][1:]
    for match, end in zip(found, ends, strict=True):
        below = text[match.end() : end].partition("\n")[2]
        lines.append((clock(match[1]), clock(match[2]), clean(_BLANK.split(below, 1)[0])))
    return lines


def parse_json(text: str) -> list[tuple[float, float, str]]:
    """(start, end, text) of each line of a JSON list, in either published form.

    `{"timestamp": [start, end], "text": ...}` or `{"start": ..., "end": ..., "line": ...}`, in
    seconds or as hh:mm:ss; an `end` of null is the end of the video.

    Raises:
        ValueError: Not JSON, or an entry of another form; the message gives its number.

    >>> parse_json('[{"timestamp": [1, null], "text": "a"}, {"start": "0:01:00", "end": 61, \
"line": "b"}]')
    [(1.0, inf, 'a'), (60.0, 61.0, 'b')]
    """
    try:
        entries = json.loads(text)
    except RecursionError as error:
        raise ValueError("the JSON is nested too deeply") from error
    if not isinstance(entries, list):
        raise ValueError(f"a list of subtitles expected, not {type(entries).__name__}")
    return [read_entry(entry, number) for number, entry in enumerate(entries, 1)]


def read_entry(entry: Any, number: int) -> tuple[float, float, str]:
    """(start, end, text) of one JSON subtitle; raises `ValueError` with its `number`."""
    try:
        times = entry["timestamp"] if "timestamp" in entry else (entry["start"], entry["end"])
        start, end = times
        words = next(entry[key] for key in ("text", "line") if key in entry)
        if not isinstance(words, str):
            raise TypeError(f"text expected, not {words!r}")
        span = seconds(start), math.inf if end is None else seconds(end)
    except (KeyError, StopIteration, TypeError, ValueError) as error:
        why = f"{error} is missing" if isinstance(error, KeyError) else str(error) or "no text"
        raise ValueError(f"subtitle {number}: {why}") from error
    if not 0 <= span[0] <= span[1]:
        raise ValueError(f"subtitle {number}: ({span[0]}, {span[1]}) is not a span of seconds")
    return *span, clean(words)


def seconds(value: Any) -> float:
    """A time given as a number of seconds or as (hh:)mm:ss.

    >>> seconds(1.5), seconds("01:00:02.250")
    (1.5, 3602.25)
    """
    if is_number(value):
        return float(value)
    if isinstance(value, str) and re.fullmatch(_CLOCK, value.strip()):
        return clock(value.strip())
    raise ValueError(f"{value!r} is no time: seconds or hh:mm:ss expected")


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
    """
    if len(text) > MAX_SUBTITLE_CHARS:
        text = text[:MAX_SUBTITLE_CHARS] + "..."
    previous = ""
    while text != previous:  # what is left when mark-up goes may be mark-up again
        previous, text = text, _MARKUP.sub("", text)
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def as_subtitles(lines: Iterable[tuple[float, float, str]]) -> tuple[Subtitle, ...]:
    """Lines as `Subtitle`s by start time."""
    return tuple(sorted((Subtitle(*line) for line in lines), key=lambda line: line.start))
