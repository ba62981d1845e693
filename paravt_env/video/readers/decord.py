"""The `decord` back end: for those who ask for it, and only on files that it reads right.

decord 0.6.0 (2021, FFmpeg 4.1 inside) counts frames, not time, seeks to the wrong frame in open
groups of pictures and in cuts made without re-encoding, ignores how a picture is turned, and hangs
for ever on an edit list that trims the end. Here seconds are mapped to frame numbers through the
packets' own times (so a variable frame rate is exact), and a file of any of those kinds is refused.
A reader is opened for each request and never kept: a decord reader keeps decoding by itself.
What hangs all the same is killed, since `auto` isolation gives this back end a process.

    pip install 'paravt[decord]'

Run its tests: `python -m pytest tests/video/test_video_backends.py`.
"""

from __future__ import annotations

import decord
import numpy as np

from paravt_env.video.deadline import check_deadline
from paravt_env.video.readers.facts import INSTEAD, describe
from paravt_env.video.readers.table import FrameTable
from paravt_env.video.types import Frames, Size, VideoError, VideoInfo

UNIT = 16
"""Frames decoded between two looks at the deadline."""

TOLERANCE = 2e-3
"""Seconds by which decord's own table of times (float32, rounded) may differ from the packets'."""

if not decord.__version__.startswith("0."):
    raise ImportError(
        f"decord {decord.__version__} is decord2, which returns wrong frames: pip uninstall "
        "decord2, then pip install decord==0.6.0, or choose backend='pyav'"
    )


class DecordReader:
    """One file, described by its packets; decord itself is opened when frames are asked for.

    Raises:
        VideoError: the file is broken, or of a kind that decord reads wrong.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.info, self._table = _describe(path)

    def split(self, times: np.ndarray) -> list[np.ndarray]:
        """One unit: opening a second decord reader costs more than it saves."""
        return [np.arange(len(times))] if len(times) else []

    def frames_at(self, times: np.ndarray, size: Size, deadline: float | None = None) -> Frames:
        """The frames on screen at `times`: see `VideoReader.frames_at`."""
        times = np.asarray(times, float)
        if not np.isfinite(times).all():
            raise ValueError("times must be finite seconds")
        if not len(times):
            return Frames.empty(size)
        numbers = self._table.at(times)
        unique, back = np.unique(numbers, return_inverse=True)
        height, width = size
        try:
            reader = decord.VideoReader(
                self.path, ctx=decord.cpu(0), width=width, height=height, num_threads=1
            )
            self._compare(reader)
            parts = []
            for i in range(0, len(unique), UNIT):
                check_deadline(self.path, deadline)
                parts.append(reader.get_batch(unique[i : i + UNIT].tolist()).asnumpy())
            del reader
        except (decord.DECORDError, IndexError) as error:
            why = next(iter(str(error).strip().splitlines()), "no reason given")
            raise VideoError(self.path, f"decord cannot decode it ({why}): {INSTEAD}") from error
        return Frames(np.concatenate(parts)[back], self._table.starts[numbers])

    def key_times(self, times: np.ndarray) -> np.ndarray:
        """See `KeyFrameReader.key_times`."""
        return self._table.nearest_keys(times)

    def close(self) -> None:
        """Nothing is open between two calls."""

    def _compare(self, reader: decord.VideoReader) -> None:
        """Decord must see the frames that the packets hold, at their times."""
        starts = self._table.starts
        if len(reader) == len(starts):
            seen = reader.get_frame_timestamp(range(len(starts)))[:, 0].astype(float)
            if np.abs((seen - seen[0]) - (starts - starts[0])).max() < TOLERANCE:
                return
        reason = f"decord sees other frames or times than the file holds: {INSTEAD}"
        raise VideoError(self.path, reason)


def _describe(path: str) -> tuple[VideoInfo, FrameTable]:
    facts = describe(path, "decord")
    table = facts.table
    for wrong, kind in (
        (facts.is_turned, "turned pictures (a phone's)"),
        (table.is_open, "open groups of pictures"),
        (table.is_trimmed, "edit lists that hide frames"),
        (facts.tracks > 1, "files with several video tracks"),
        (facts.needs_note, "4:4:4 of old encoders"),
        (facts.is_untagged_hd, "the colours of HD that are not tagged"),
        (len(table.starts) == 0, "files without a frame"),
    ):
        if wrong:
            raise VideoError(path, f"decord reads {kind} wrong: {INSTEAD}")
    return facts.info, table
