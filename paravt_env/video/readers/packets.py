"""Where the key frames are: from the container's index, or from one pass over the packets.

`pyav.py` asks before it seeks. An mp4 holds a complete index, which costs nothing; mkv, MPEG-TS and
fragmented mp4 do not: their packets are read once (not decoded) and the result is kept with the
file's identity. The first and last instants of the video track come from the same place. A track
whose packets hold no presentation times of their own is described by `order.py` instead.

Run its tests: `python -m pytest tests/video/test_video.py`.
"""

from __future__ import annotations

import bisect
from dataclasses import dataclass
from typing import Protocol

import av


class KeyFrames(Protocol):
    """What the sampler asks of a video track; all instants are ticks of its time base."""

    first: int
    """The first key frame, named as `before` names it."""
    first_pts: int
    """When the first frame appears."""
    end_pts: int
    """When the last frame ends."""
    needs_reopening: bool
    """Whether the start of the file can be reached only by opening it again."""

    def before(self, tick: int) -> int:
        """The last key frame at or before `tick` (else the first)."""

    def target(self, tick: int) -> int:
        """Where to seek for the key frame that `before` gives for `tick`."""

    def around(self, tick: int) -> tuple[int, int]:
        """Where to seek for the key frames at or before `tick` and after it."""

    def missing(self, tick: int) -> bool:
        """Whether data that is gone from the file may be the frame on screen at `tick`."""

    def knows(self, pts: int) -> bool:
        """Whether a key frame is shown at `pts`: after a seek, some demuxers make times up."""


class IndexKeyFrames:
    """Key frames by the index of an mp4, whose entries hold decode times."""

    needs_reopening = False

    def __init__(self, stream: av.VideoStream, file_bytes: int) -> None:
        self._entries = entries = stream.index_entries
        self.first = entries[0].timestamp
        self.first_pts = stream.start_time if stream.start_time is not None else self.first
        last = entries[len(entries) - 1]
        self.last = last.timestamp
        self.end_pts = self.first_pts + (stream.duration or 0)
        # a frame is shown this much after it is decoded; a pre-roll is no such delay
        shift = self.first_pts - self.first
        reorder = stream.codec_context.reorder_depth * (stream.duration or 0) // len(entries)
        self._delay = max(0, min(shift, reorder))
        self.lost_from: int | None = None
        if last.pos + last.size > file_bytes:
            cut = bisect.bisect(range(len(entries)), file_bytes, key=self._end_of)
            self.lost_from = entries[cut].timestamp

    def _end_of(self, i: int) -> int:
        entry = self._entries[i]
        return entry.pos + entry.size

    def before(self, tick: int) -> int:
        """See `KeyFrames.before`."""
        i = self._entries.search_timestamp(tick - self._delay, backward=True)
        return self._entries[i].timestamp if i >= 0 else self.first

    def target(self, tick: int) -> int:
        """The tick: asked for a key frame's own decode time, FFmpeg takes the one before it."""
        return tick

    def around(self, tick: int) -> tuple[int, int]:
        """See `KeyFrames.around`; past the last key frame, that one twice.

        FFmpeg takes the last key frame *shown* before a tick, and the index tells only when one is
        decoded: halfway to the next key frame is after the one instant and before the other.
        """
        i = self._entries.search_timestamp(tick - self._delay + 1, backward=False)
        if i < 0:
            return tick, tick
        after = self._entries[i].timestamp
        j = self._entries.search_timestamp(after + 1, backward=False)
        return tick, (after + self._entries[j].timestamp) // 2 if j >= 0 else self.end_pts

    def knows(self, pts: int) -> bool:
        """Always: an mp4's times come from its tables."""
        return True

    def missing(self, tick: int) -> bool:
        """See `KeyFrames.missing`."""
        # a lost packet with a decode time up to `tick` may be the frame shown then
        return self.lost_from is not None and tick >= self.lost_from


@dataclass
class PassKeyFrames:
    """Key frames by a pass over all packets."""

    keys: tuple[int, ...]
    """When each appears, in order."""
    targets: dict[int, int]
    """Where to seek for each."""
    first: int
    first_pts: int
    end_pts: int
    needs_reopening: bool = True

    def before(self, tick: int) -> int:
        """See `KeyFrames.before`."""
        return self.keys[max(0, bisect.bisect_right(self.keys, tick) - 1)]

    def target(self, tick: int) -> int:
        """See `KeyFrames.target`."""
        return self.targets[self.before(tick)]

    def around(self, tick: int) -> tuple[int, int]:
        """See `KeyFrames.around`; past the last key frame, that one twice."""
        i = bisect.bisect_right(self.keys, tick)
        near = self.keys[max(0, i - 1)], self.keys[min(i, len(self.keys) - 1)]
        return self.targets[near[0]], self.targets[near[1]]

    def knows(self, pts: int) -> bool:
        """See `KeyFrames.knows`."""
        return pts in self.targets

    def missing(self, tick: int) -> bool:
        """Never known: the pass saw the packets that there are."""
        return False
