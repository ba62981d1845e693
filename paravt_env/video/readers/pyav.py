"""The default back end: exact frames of a file by timestamp, on PyAV (FFmpeg's libraries).

Fast because it does the least that is exact: wanted frames are grouped by the key frame they
depend on; only packets up to the last wanted one are read; frames that nothing refers to are
skipped unless wanted; colour and size are converted in one step, of wanted frames only.

Exact because nothing is computed from a frame rate: a frame is on screen from its own timestamp
to the next one's, whatever the rate, the reordering or the edit list. Time 0 is the first
instant of the file, as in a player.

Where it sits: `store.py` opens it on a pool thread and closes it after use. Run its tests:
`python -m pytest tests/video/test_video.py`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from fractions import Fraction

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from paravt_env.video.deadline import check_deadline
from paravt_env.video.files import identify, refuse_playlist
from paravt_env.video.readers.packets import KeyFrames, find_key_frames
from paravt_env.video.readers.table import FrameTable, read_frame_table
from paravt_env.video.sampler import mark_wanted
from paravt_env.video.types import Frames, Size, VideoError, VideoInfo

SKIPPABLE = frozenset({"h264", "hevc", "mpeg2video", "mpeg4"})
"""Codecs whose decoder may be told from packet to packet to skip what nothing refers to."""

FOREVER = 2**62
"""A tick after the end of every file, and still one that FFmpeg can hold."""

NOT_VIDEO = frozenset({"tty", "bin", "adf", "idf", "xbin", "image2"})
"""Container formats in which FFmpeg shows texts and single pictures as video."""


class PyAVReader:
    """One open file. Used by one thread at a time, closed after use.

    Args:
        path: a local video file.

    Raises:
        VideoError: missing, empty, truncated, not a video, or without a video track.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._file = identify(path)
        self._reformatter = VideoReformatter()
        self._open()
        try:
            self._describe()
        except BaseException:
            self.close()
            raise

    @functools.cached_property
    def info(self) -> VideoInfo:
        """Duration, rate and size; the first frame is decoded to see how the picture is turned."""
        codec = self._stream.codec_context
        height, width = codec.height, codec.width
        if self._turns % 2:
            height, width = width, height
        duration = float((self._keys.end_pts - self._origin) * self._base)
        return VideoInfo(duration, self._rate, width, height)

    @property
    def is_turned(self) -> bool:
        """Whether the picture is stored lying or upside down."""
        return self._turns != 0

    def split(self, times: np.ndarray) -> list[np.ndarray]:
        """Index arrays of the times that depend on the same key frame, in order of time."""
        groups: dict[int, list[int]] = {}
        ticks = self._ticks(times)
        for i in np.argsort(ticks, kind="stable").tolist():
            groups.setdefault(self._keys.before(ticks[i]), []).append(i)
        return [np.array(group) for group in groups.values()]

    def frames_at(self, times: np.ndarray, size: Size, deadline: float | None = None) -> Frames:
        """The frames on screen at `times`: see `VideoReader.frames_at`."""
        times = np.asarray(times, float)
        if not np.isfinite(times).all():
            raise ValueError("times must be finite seconds")
        ticks = self._ticks(times)
        found: dict[int, tuple[int, np.ndarray]] = {}  # tick -> pts, pixels
        for group in self.split(times):
            try:
                found |= self._decode({ticks[i] for i in group.tolist()}, size, deadline)
            except av.FFmpegError as error:
                at = f"near {times[group[0]]:.2f} s ({error.strerror})"
                reason = f"cannot be decoded {at}: the file is damaged; copy or download it again"
                raise VideoError(self.path, reason) from error
        if not ticks:
            return Frames.empty(size)
        stamps = [float((found[t][0] - self._origin) * self._base) for t in ticks]
        return Frames(np.stack([found[t][1] for t in ticks]), np.array(stamps))

    def key_times(self, times: np.ndarray) -> np.ndarray:
        """When the nearest key frames appear, read off their packets: see `KeyFrameReader`.

        A time whose neighbourhood holds no key frame that is shown comes back as it is.
        """
        shown: dict[int, int | None] = {}  # where to seek -> when the key frame there appears
        nearest = []
        for time, tick in zip(np.asarray(times, float).tolist(), self._ticks(times), strict=True):
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

    def close(self) -> None:
        """Close the file and free the decoder."""
        self._container.close()

    def _open(self) -> None:
        refuse_playlist(self.path)
        try:
            self._container = av.open(self.path, options={"protocol_whitelist": "file"})
        except (av.FFmpegError, ValueError) as error:
            why = getattr(error, "strerror", None) or str(error)
            reason = f"is not a video that FFmpeg can open, or is truncated ({why}): "
            raise VideoError(self.path, f"{reason}copy or download it again") from error
        cover = av.stream.Disposition.attached_pic
        videos = [s for s in self._container.streams.video if not s.disposition & cover]
        name = self._container.format.name
        if not videos or name in NOT_VIDEO or name.endswith("_pipe"):  # png_pipe, ppm_pipe, ...
            has = "only audio" if self._container.streams.audio else "no video"
            self._container.close()
            raise VideoError(self.path, f"holds {has}: a task needs a file with a video track")
        self._stream = videos[0]
        self._stream.codec_context.thread_count = 1

    def _describe(self) -> None:
        stream = self._stream
        if not stream.time_base or not stream.codec_context.width:
            raise VideoError(self.path, "the video track has no picture size: the file is damaged")
        self._base = base = Fraction(stream.time_base)
        self._rate = float(stream.average_rate or stream.guessed_rate or 0)
        started = self._container.start_time
        self._keys: KeyFrames = find_key_frames(self._container, stream, self.path, self._file)
        self._origin = self._keys.first_pts
        if started is not None:  # sound may start before the picture
            self._origin = min(self._origin, round(Fraction(started, av.time_base) / base))
        if self._keys.end_pts <= self._origin:
            raise VideoError(self.path, "the video track is empty: the file is damaged")

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

    def _reopen(self) -> None:
        self._container.close()
        self._open()

    def _ticks(self, times: np.ndarray) -> list[int]:
        """Instants in the stream's time base; a timestamp that was returned maps to its frame."""
        exact = (np.asarray(times, float) / float(self._base)).tolist()
        ticks = (self._origin + math.floor(tick + 1e-3) for tick in exact)
        return [min(max(tick, self._keys.first_pts), FOREVER) for tick in ticks]

    def _decode(
        self, ticks: set[int], size: Size, deadline: float | None
    ) -> dict[int, tuple[int, np.ndarray]]:
        shown: dict[int, int] = {}
        wanted: set[int] = set()
        frames: dict[int, np.ndarray] = {}
        can_skip = self._stream.codec_context.name in SKIPPABLE
        for packet, want in mark_wanted(self._packets(min(ticks), deadline), sorted(ticks), shown):
            if want and packet.pts is not None:
                wanted.add(packet.pts)
            if can_skip:
                self._stream.codec_context.skip_frame = "DEFAULT" if want else "NONREF"
            self._keep(packet.decode(), wanted, size, frames)
        self._keep(self._stream.codec_context.decode(None), wanted, size, frames)
        for tick in sorted(ticks):
            pts = shown.get(tick)
            if pts is None or pts not in frames or self._keys.missing(tick):
                at = float((tick - self._origin) * self._base)
                reason = f"no intact frame at {at:.2f} s: the file is truncated or damaged"
                raise VideoError(self.path, f"{reason}; copy or download it again")
        return {tick: (shown[tick], frames[shown[tick]]) for tick in ticks}

    def _packets(self, tick: int, deadline: float | None) -> Iterator[av.Packet]:
        """Packets in decode order from a key frame that is on screen at or before `tick`.

        Seeking works on decode times, so the key frame it finds can be shown after `tick`: then
        an earlier one is tried, and at last the start of the file. Packets after the key frame
        but shown before it refer to frames that were not decoded (open GOP): they are dropped.
        """
        at = tick
        while True:
            key = self._keys.before(at)
            at_start = key <= self._keys.first
            if at_start and self._keys.needs_reopening:
                self._reopen()
            else:
                target = self._keys.target(at)
                self._container.seek(target, stream=self._stream, backward=True)
            key_pts: int | None = None
            for packet in self._container.demux(self._stream):
                check_deadline(self.path, deadline)
                if packet.size == 0 or packet.is_corrupt:
                    break
                if packet.pts is None:
                    reason = "its packets carry no presentation times: convert it to mp4 or mkv"
                    raise VideoError(self.path, reason)
                if key_pts is None:
                    if not packet.is_keyframe:
                        continue
                    if packet.pts > tick and not at_start:
                        break
                    key_pts = packet.pts
                if packet.pts >= key_pts:
                    yield packet
            if key_pts is not None or at_start:
                return
            at = key - 1

    def _keep(
        self, decoded: list, wanted: set[int], size: Size, frames: dict[int, np.ndarray]
    ) -> None:
        for frame in decoded:
            if frame.pts in wanted and not frame.is_corrupt:
                frames[frame.pts] = self._convert(frame, size)

    def _convert(self, frame: av.VideoFrame, size: Size) -> np.ndarray:
        turns = _quarter_turns(frame)
        height, width = reversed(size) if turns % 2 else size
        rgb = self._reformatter.reformat(
            frame, width, height, "rgb24", interpolation="BILINEAR", threads=1
        )
        plane = rgb.planes[0]
        rows = np.frombuffer(memoryview(plane), np.uint8).reshape(height, plane.line_size)
        pixels = rows[:, : 3 * width].reshape(height, width, 3)
        return np.rot90(pixels, turns).copy()

    @functools.cached_property
    def _turns(self) -> int:
        self._stream.codec_context.skip_frame = "DEFAULT"
        try:
            for packet in self._packets(self._keys.first_pts, None):
                for frame in packet.decode():
                    return _quarter_turns(frame)
            return next(map(_quarter_turns, self._stream.codec_context.decode(None)), 0)
        except av.FFmpegError as error:
            reason = f"its first frame cannot be decoded ({error.strerror}): the file is damaged"
            raise VideoError(self.path, reason) from error


def _quarter_turns(frame: av.VideoFrame) -> int:
    """Quarter turns counterclockwise that put the picture upright (phones store it lying)."""
    return round(frame.rotation / 90)
