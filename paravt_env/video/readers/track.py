"""An open file and its video track: where time 0 is, what its packets tell, how to start over.

What `pyav.py` and the two ways to decode (`runs.py`, `counted.py`) stand on. Run its tests:
`python -m pytest tests/video/test_video.py tests/video/test_video_kinds.py`.
"""

from __future__ import annotations

import math
from fractions import Fraction

import av
import numpy as np

from paravt_env.video.files import identify
from paravt_env.video.readers.bitstream import length_bytes
from paravt_env.video.readers.lookup import describe_packets
from paravt_env.video.readers.opening import open_video
from paravt_env.video.readers.order import DisplayOrder, frame_rate
from paravt_env.video.readers.packets import KeyFrames
from paravt_env.video.readers.picture import Converter
from paravt_env.video.types import VideoError

FOREVER = 2**62
"""A tick after the end of every file, and still one that FFmpeg can hold."""

Found = dict[int, tuple[int, np.ndarray]]
"""Tick -> when the frame on screen then appeared, in ticks, and its pixels."""


class Track:
    """One open file. Used by one thread at a time, closed after use.

    Args:
        path: a local video file.

    Raises:
        VideoError: missing, empty, truncated, not a video, or without a video track.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._file = identify(path)
        self._converter = Converter()
        self._primed = False
        self._open()
        try:
            self._describe()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the file and free the decoder."""
        self._container.close()

    def _open(self) -> None:
        self._container, self._stream = open_video(self.path)

    def _describe(self) -> None:
        stream = self._stream
        self._base = base = Fraction(stream.time_base or 1)
        self._rate = float(frame_rate(stream))
        context = stream.codec_context
        self._unit_length = length_bytes(context.name, context.extradata)
        started = self._container.start_time
        known = describe_packets(self._container, stream, self.path, self._file)
        self._order = known if isinstance(known, DisplayOrder) else None
        if isinstance(known, DisplayOrder):
            first, end = int(known.starts[0]), known.end
        else:
            self._keys: KeyFrames = known
            first, end = known.first_pts, known.end_pts
        self._first = self._origin = first
        if started is not None:  # sound may start before the picture
            self._origin = min(first, round(Fraction(started, av.time_base) / base))
        if end <= self._origin:
            raise VideoError(self.path, "the video track is empty: the file is damaged")

    def _reopen(self) -> None:
        self._container.close()
        self._primed = False
        self._open()

    def _prime(self) -> None:
        """Let the decoder read the note of the encoder, which the first packet alone holds.

        x264 before its build 151 coded 4:4:4 in a way of its own: a decoder that has not read the
        build decodes other pictures.
        """
        if self._primed or not self._may_need_note():
            return
        first = self._first_packet()
        self._primed = True
        if first is not None and first.size:
            first.decode()  # what it returns, if anything, is flushed by the next seek

    def _may_need_note(self) -> bool:
        context = self._stream.codec_context
        return context.name == "h264" and "444" in (context.pix_fmt or "")

    def _first_packet(self) -> av.Packet | None:
        if self._order is not None or self._keys.needs_reopening:
            self._reopen()
        else:
            self._container.seek(self._keys.first, stream=self._stream, backward=True)
        return next(self._container.demux(self._stream), None)

    def _ticks(self, times: np.ndarray) -> list[int]:
        """Instants in the stream's time base; a timestamp that was returned maps to its frame."""
        exact = (np.asarray(times, float) / float(self._base)).tolist()
        ticks = (self._origin + math.floor(tick + 1e-3) for tick in exact)
        return [min(max(tick, self._first), FOREVER) for tick in ticks]
