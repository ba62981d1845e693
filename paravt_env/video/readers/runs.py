"""Frames by their own times: decoding runs from key frames, and from further back where they must.

The way of `pyav.py` for files whose packets say when their frames are shown. Run its tests:
`python -m pytest tests/video/test_video.py tests/video/test_video_kinds.py`.
"""

from __future__ import annotations

from collections.abc import Iterator

import av
import numpy as np

from paravt_env.video.deadline import check_deadline
from paravt_env.video.readers.bitstream import h264_recovery
from paravt_env.video.readers.lookup import REORDERED, has_entries, is_damaged, note_damage
from paravt_env.video.readers.track import Found, Track
from paravt_env.video.sampler import mark_wanted
from paravt_env.video.types import Size, VideoError

SKIPPABLE = frozenset({"h264", "hevc", "mpeg2video", "mpeg4"})
"""Codecs whose decoder may be told from packet to packet to skip what nothing refers to."""

REORDER = 16
"""The most pictures that one may be stored behind and be shown before (H.264 A.3.1, HEVC A.4)."""

FURTHER_BACK = (0, 1, 2, 4)
"""Key frames before the nearest at which a decoder starts, by attempt; then the file's start."""


PATIENCE = 3
"""Seeks that end at key frames of unknown times before the file is read from its start."""


class TimedRuns(Track):
    """Decodes the frames on screen at given ticks by the presentation times of their packets."""

    _lost_track = False  # whether a seek ended where the pass over the packets saw no key frame

    def _decode(self, ticks: set[int], size: Size, deadline: float | None, slow: set[int]) -> Found:
        """Frames by their own times; those that only a later attempt gives are added to `slow`."""
        found: Found = {}
        error: av.FFmpegError | None = None
        known_damage = is_damaged(self._file)
        attempts = (0,) if known_damage else (*FURTHER_BACK, None)
        for attempt, back in enumerate(attempts):
            left = {tick for tick in ticks - found.keys() if not self._keys.missing(tick)}
            if not left:
                break
            self._lost_track = False
            try:
                self._run(left, back, size, deadline, found)
            except av.FFmpegError as failed:
                error = failed
            if attempt or self._lost_track:
                slow |= left & found.keys()
        lost = sorted(ticks - found.keys())
        if not lost:
            return found
        if not self._keys.missing(lost[0]):
            note_damage(self._file)
        at = float((lost[0] - self._origin) * self._base)
        if error is not None:
            reason = f"cannot be decoded near {at:.2f} s ({error.strerror}): the file is damaged"
        else:
            reason = f"no intact frame at {at:.2f} s: the file is truncated or damaged"
        raise VideoError(self.path, f"{reason}; copy or download it again") from error

    def _run(
        self, ticks: set[int], back: int | None, size: Size, deadline: float | None, found: Found
    ) -> None:
        """One decoding run from a key frame to the last frame wanted; fills `found`.

        Args:
            ticks: wanted.
            back: key frames to start further back than needed; None: start where the file does
                and decode everything.
            size: height and width in pixels.
            deadline: see `VideoReader.frames_at`.
            found: gets the frames that came intact.
        """
        shown: dict[int, int] = {}
        wanted: set[int] = set()
        frames: dict[int, np.ndarray] = {}
        context = self._stream.codec_context
        can_skip = context.name in SKIPPABLE and back is not None
        context.skip_frame = "DEFAULT"
        reorder = REORDER if context.name in REORDERED else 0
        packets = self._packets(min(ticks), deadline, back)
        try:
            for packet, want in mark_wanted(packets, sorted(ticks), shown, reorder):
                if want and packet.pts is not None:
                    wanted.add(packet.pts)
                if can_skip:
                    self._stream.codec_context.skip_frame = "DEFAULT" if want else "NONREF"
                self._keep(packet.decode(), wanted, size, frames)
            self._keep(self._stream.codec_context.decode(None), wanted, size, frames)
        finally:
            for tick, pts in shown.items():
                if pts in frames:
                    found[tick] = pts, frames[pts]

    def _packets(
        self, tick: int, deadline: float | None, back: int | None = 0
    ) -> Iterator[av.Packet]:
        """Packets in decode order from a key frame that is on screen at or before `tick`.

        Seeking works on decode times, so the key frame it finds can be shown after `tick`: then
        an earlier one is tried, and at last the start of the file. So it is with a key frame from
        which a decoder is not right at once. Packets after the key frame but shown before it
        refer to frames that were not decoded (open GOP): they are dropped.
        """
        self._prime()
        at = tick
        left = back if tick <= self._keys.first_pts or self._has_entries() else None
        self._lost_track |= left is None and self._keys.before(tick) > self._keys.first
        strangers = 0
        while True:
            key = self._keys.before(at)
            at_start = key <= self._keys.first or left is None
            if at_start and self._keys.needs_reopening:
                self._reopen()
            else:
                target = self._keys.first if at_start else self._keys.target(at)
                self._container.seek(target, stream=self._stream, backward=True)
            key_pts: int | None = None
            for packet in self._container.demux(self._stream):
                check_deadline(self.path, deadline)
                if packet.size == 0:
                    if packet.pts is None and packet.dts is None:
                        break  # the end
                    continue  # Theora's "once more the last picture"
                if packet.is_corrupt:
                    break
                if packet.pts is None:
                    continue  # `lookup.py` let it pass: it leads into a cut and is never shown
                if key_pts is None:
                    if not packet.is_keyframe:
                        continue
                    if not at_start and not self._keys.knows(packet.pts):
                        self._lost_track = True
                        strangers += 1
                        left = left if strangers < PATIENCE else None
                        break
                    if not at_start and (packet.pts > tick or left or not self._is_entry(packet)):
                        left = left and left - (packet.pts <= tick)
                        break
                    key_pts = packet.pts
                if packet.pts >= key_pts:
                    yield packet
            if key_pts is not None or at_start:
                return
            at = key - 1

    def _is_entry(self, packet: av.Packet) -> bool:
        """Whether a decoder that starts at this key packet is right from its picture on."""
        if self._stream.codec_context.name != "h264":
            return True
        return h264_recovery(bytes(packet), self._unit_length) == 0

    def _has_entries(self) -> bool:
        """Whether a decoder may start at the key frames of an mp4's index, asked once a file.

        H.264 of some writers has I pictures there of which nothing says that later pictures do not
        refer to earlier ones; FFmpeg does not call them key frames. All wanted frames are one run
        from the start then.
        """
        if self._keys.needs_reopening or self._stream.codec_context.name != "h264":
            return True
        return has_entries(self._file, self._see_entries)

    def _see_entries(self) -> bool:
        for tick in ((self._keys.first_pts + self._keys.end_pts) // 2, self._keys.end_pts):
            try:
                self._container.seek(self._keys.target(tick), stream=self._stream, backward=True)
                key = next((p for p in self._container.demux(self._stream) if p.size), None)
            except av.FFmpegError:  # data is gone there: decoding says where
                continue
            if key is not None and not key.is_keyframe and not key.is_corrupt:
                return False
        return True

    def _keep(
        self, decoded: list, wanted: set[int], size: Size, frames: dict[int, np.ndarray]
    ) -> None:
        for frame in decoded:
            if frame.pts in wanted and not frame.is_corrupt:
                frames[frame.pts] = self._converter.convert(frame, size)
