"""Subtitle files: SubRip, WebVTT (`captions.py`) and JSON, read as lines with times.

Between a data set's folder and `Task.subtitles`; `paravt_env/subtitles.py` chooses what an
observation shows of them. Cues whose times make no sense are left out, counted and logged. Run the
tests with `pytest tests/tasksets/test_tasksets_subtitles.py`.
"""

from __future__ import annotations

import codecs
import functools
import json
import logging
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

from paravt_env.task import Subtitle, TaskError
from paravt_env.tasksets.captions import CLOCK, Cue, Cues, clean, clock, parse_cues
from paravt_env.tasksets.rows import is_number

MAX_SUBTITLE_BYTES = 16 * 2**20
"""The largest subtitle file; an hour of speech has about 0.1 MiB."""

log = logging.getLogger("paravt_env.tasksets")


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

    @property
    def skipped(self) -> int:
        """Cues left out, as their times are reversed, negative, or no times at all."""
        return _read(self.path).skipped


@functools.lru_cache(maxsize=256)
def load_subtitles(path: str, offset: float = 0.0) -> tuple[Subtitle, ...]:
    """The lines of a file by start time, on the clock of a video that starts at `offset` seconds.

    Lines that end before the video starts are not part of it.

    Raises:
        TaskError: The file is absent, too large, or not subtitles; the message names it.
    """
    lines = _read(path).cues
    shifted = (Subtitle(max(s - offset, 0.0), e - offset, text) for s, e, text in lines)
    return tuple(sorted((s for s in shifted if s.end > 0 and s.text), key=lambda s: s.start))


@functools.lru_cache(maxsize=64)
def _read(path: str) -> Cues:
    try:
        if Path(path).stat().st_size > MAX_SUBTITLE_BYTES:
            raise TaskError(f"{path}: subtitles larger than {MAX_SUBTITLE_BYTES} bytes")
        text = decoded(Path(path).read_bytes())
        if path.lower().endswith(".json"):
            return Cues([Cue(*line) for line in parse_json(text)], 0)
        read = parse_cues(text)
    except OSError as error:
        raise TaskError(f"{path}: cannot read the subtitles: {error}") from error
    except ValueError as error:
        raise TaskError(f"{path}: {error}") from error
    if read.skipped:
        count = f"{read.skipped} of {read.skipped + len(read.cues)}"
        log.warning("%s: %s cues left out: reversed, negative or unreadable times", path, count)
    return read


def decoded(data: bytes) -> str:
    r"""The text of a file: UTF-16 where its first bytes say so, else UTF-8.

    >>> decoded("hi".encode("utf-16")), decoded(b"\xef\xbb\xbfhi")
    ('hi', 'hi')
    """
    wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return data.decode("utf-16" if wide else "utf-8-sig", errors="replace")


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
    if isinstance(value, str) and re.fullmatch(CLOCK, value.strip()):
        return clock(value.strip())
    raise ValueError(f"{value!r} is no time: seconds or hh:mm:ss expected")


def as_subtitles(lines: Iterable[tuple[float, float, str]]) -> tuple[Subtitle, ...]:
    """Lines as `Subtitle`s by start time."""
    return tuple(sorted((Subtitle(*line) for line in lines), key=lambda line: line.start))
