"""The default back end: exact frames of a file by timestamp, on PyAV (FFmpeg's libraries).

Fast because it does the least that is exact: wanted frames are grouped by the key frame they
depend on; only packets up to the last wanted one are read; frames that nothing refers to are
skipped unless wanted; colour and size are converted in one step, of wanted frames only.

Exact because nothing is computed from a frame rate: a frame is on screen from its own timestamp
to the next one's, whatever the rate, the reordering or the edit list. Time 0 is the first
instant of the file, as in a player. Where a decoder that starts at the nearest key frame does not
yield the frame, it starts at earlier ones, and at last at the start of the file (`Frames.slow`
tells which frames); a file without presentation times is read in the decoder's order (`order.py`).

Where it sits: `store.py` opens it on a pool thread and closes it after use. Run its tests:
`python -m pytest tests/video/test_video.py tests/video/test_video_kinds.py`.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

import av
import numpy as np

from paravt_env.video.readers.bitstream import FIRST_444, x264_build
from paravt_env.video.readers.counted import CountedRuns
from paravt_env.video.readers.lookup import last_end
from paravt_env.video.readers.opening import moving_tracks
from paravt_env.video.readers.picture import (
    UPRIGHT,
    Orientation,
    is_untagged_hd,
    orientation,
)
from paravt_env.video.readers.runs import TimedRuns
from paravt_env.video.readers.table import FrameTable, read_frame_table
from paravt_env.video.readers.track import Found
from paravt_env.video.types import Frames, Size, VideoError, VideoInfo


class PyAVReader(TimedRuns, CountedRuns):
    """One open file. Used by one thread at a time, closed after use.

    Args:
        path: a local video file.

    Raises:
        VideoError: missing, empty, truncated, not a video, or without a video track.
    """

    @functools.cached_property
    def info(self) -> VideoInfo:
        """Duration, rate and size; the first frame is decoded to see how the picture is turned."""
        codec = self._stream.codec_context
        height, width = codec.height, codec.width
        aspect = float(self._stream.sample_aspect_ratio or 1)
        if self._turn.transposed:
            height, width, aspect = width, height, 1 / aspect
        end = (
            self._order.end if self._order else last_end(self._container, self._stream, self._keys)
        )
        duration = float((end - self._origin) * self._base)
        return VideoInfo(duration, self._rate, width, height, aspect)

    @property
    def track(self) -> int:
        """The number of the video track among the file's streams."""
        return self._stream.index

    @property
    def is_turned(self) -> bool:
        """Whether the picture is stored lying, upside down or mirrored."""
        return self._turn != UPRIGHT

    @property
    def is_mirrored(self) -> bool:
        """Whether turning alone does not put the picture upright."""
        return self._turn.transposed ^ self._turn.left_right ^ self._turn.up_down

    @property
    def tracks(self) -> int:
        """How many tracks of moving pictures the file holds."""
        return len(moving_tracks(self._container))

    @property
    def needs_note(self) -> bool:
        """Whether only a decoder that has read the first packet shows the right pictures."""
        packet = self._first_packet() if self._may_need_note() else None
        build = None if packet is None else x264_build(bytes(packet))
        return build is not None and build < FIRST_444

    @property
    def is_untagged_hd(self) -> bool:
        """Whether the picture names no colour matrix and is taken as BT.709."""
        frame = self._first_shown
        return frame is not None and is_untagged_hd(frame)

    @property
    def has_times(self) -> bool:
        """Whether the packets say when their frames are shown."""
        return self._order is None

    def split(self, times: np.ndarray) -> list[np.ndarray]:
        """Index arrays of the times that depend on the same key frame, in order of time."""
        groups: dict[int, list[int]] = {}
        ticks = self._ticks(times)
        for i in np.argsort(ticks, kind="stable").tolist():
            groups.setdefault(self._start_of(ticks[i]), []).append(i)
        return [np.array(group) for group in groups.values()]

    def frames_at(self, times: np.ndarray, size: Size, deadline: float | None = None) -> Frames:
        """The frames on screen at `times`: see `VideoReader.frames_at`."""
        times = np.asarray(times, float)
        if not np.isfinite(times).all():
            raise ValueError("times must be finite seconds")
        ticks = self._ticks(times)
        if not ticks:
            return Frames.empty(size)
        found: Found = {}
        slow: set[int] = set()
        for group in self.split(times):
            wanted = {ticks[i] for i in group.tolist()}
            decode = self._decode if self._order is None else self._decode_in_order
            found |= decode(wanted, size, deadline, slow)
        stamps = [float((found[t][0] - self._origin) * self._base) for t in ticks]
        slowly = np.array([t in slow for t in ticks]) if slow else None
        return Frames(np.stack([found[t][1] for t in ticks]), np.array(stamps), slowly)

    def key_times(self, times: np.ndarray) -> np.ndarray:
        """When the nearest key frames appear, read off their packets: see `KeyFrameReader`.

        A time whose neighbourhood holds no key frame that is shown comes back as it is.
        """
        times = np.asarray(times, float)
        if self._order is not None:
            keys = [self._order.start_of(restart) for restart in self._order.restarts]
            shows = np.array([float((key - self._origin) * self._base) for key in keys])
            return shows[np.abs(shows[None] - times[:, None]).argmin(axis=1)]
        shown: dict[int, int | None] = {}  # where to seek -> when the key frame there appears
        nearest = []
        for time, tick in zip(times.tolist(), self._ticks(times), strict=True):
            around = set(self._keys.around(tick))
            for target in around - shown.keys():
                shown[target] = self._key_at(target)
            found = [pts for target in around if (pts := shown[target]) is not None]
            pts = min(found, key=lambda p: (abs(p - tick), p), default=None)
            nearest.append(time if pts is None else float((pts - self._origin) * self._base))
        return np.array(nearest, float)

    def frame_table(self) -> FrameTable:
        """When each frame appears, and what may confuse other readers; a pass over the packets."""
        if self._keys.needs_reopening:
            self._reopen()
        else:  # the index belongs to the open file
            self._container.seek(self._keys.first, stream=self._stream, backward=True)
        return read_frame_table(self._container, self._stream, self._origin)

    def _start_of(self, tick: int) -> int:
        """What the frame on screen at `tick` depends on: two of one start are decoded together."""
        if self._order is not None:
            return self._order.restart(self._order.at(tick)[0]).tick
        return self._keys.before(tick) if self._has_entries() else self._keys.first

    def _key_at(self, target: int) -> int | None:
        """When the key frame that a seek to `target` finds appears; None if it never does."""
        try:
            self._container.seek(target, stream=self._stream, backward=True)
            packet = next(p for p in self._container.demux(self._stream) if p.is_keyframe)
        except (av.FFmpegError, StopIteration):  # data is gone there: not a frame to offer
            return None
        if packet.pts is None or packet.is_discard or packet.pts < self._keys.first_pts:
            return None
        return None if self._keys.missing(packet.pts) else packet.pts

    @functools.cached_property
    def _turn(self) -> Orientation:
        return UPRIGHT if self._first_shown is None else orientation(self._first_shown)

    @functools.cached_property
    def _first_shown(self) -> av.VideoFrame | None:
        context = self._stream.codec_context
        context.skip_frame = "DEFAULT"
        packets: Iterator[av.Packet]
        try:
            if self._order is not None:
                self._reopen()
                packets = (p for p in self._container.demux(self._stream) if p.size)
            else:
                packets = self._packets(self._keys.first_pts, None)
            for packet in packets:
                for frame in packet.decode():
                    return frame
            return next(iter(self._stream.codec_context.decode(None)), None)
        except av.FFmpegError as error:
            reason = f"its first frame cannot be decoded ({error.strerror}): the file is damaged"
            raise VideoError(self.path, reason) from error
