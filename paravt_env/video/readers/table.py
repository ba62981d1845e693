"""The frame table: when each frame of a file appears, by one pass over the packets.

For back ends that count frames where the sampler counts time: `decord.py` maps seconds to frame
numbers through it, and refuses the files that its library is known to get wrong. Nothing is
decoded. Run its tests: `python -m pytest tests/video/test_video_backends.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np


@dataclass(frozen=True, eq=False)
class FrameTable:
    """The frames of a video track in the order in which they appear."""

    starts: np.ndarray
    """float64 (N,), seconds from the first instant of the file."""
    keys: np.ndarray
    """bool (N,): which of them are key frames."""
    is_open: bool
    """Whether a frame is shown before the key frame that it follows in the file (open GOP)."""
    is_trimmed: bool
    """Whether the file holds frames that an edit list or a cut keeps from being shown."""
    starts_hidden: bool = False
    """Whether its first packet is one of them: the first frame shown depends on hidden ones."""

    def at(self, times: np.ndarray) -> np.ndarray:
        """Numbers (M,) of the frames on screen at `times` (seconds, (M,)).

        >>> table = FrameTable(np.array([0.0, 0.5, 2.0]), np.array([True] * 3), False, False)
        >>> table.at(np.array([-1.0, 0.5, 1.9, 99.0])).tolist()
        [0, 1, 1, 2]
        """
        after = np.searchsorted(self.starts, np.asarray(times, float) + 1e-7, side="right")
        return np.clip(after - 1, 0, len(self.starts) - 1)

    def nearest_keys(self, times: np.ndarray) -> np.ndarray:
        """When the key frames nearest to `times` (seconds, (M,)) appear, seconds (M,)."""
        keys = self.starts[self.keys]
        times = np.asarray(times, float)
        return keys[np.abs(keys[None] - times[:, None]).argmin(axis=1)]


def read_frame_table(
    container: av.container.InputContainer, stream: av.VideoStream, origin: int
) -> FrameTable:
    """Read all packets of a file that was just opened.

    Args:
        container: the open file, at its start.
        stream: the video track.
        origin: tick of the file's first instant in the track's time base.
    """
    base = Fraction(stream.time_base or 1)
    frames: list[tuple[int, bool]] = []
    is_open = is_trimmed = False
    key_pts: int | None = None
    first_key: int | None = None  # what is shown before it cannot be decoded
    starts_hidden: bool | None = None
    for packet in container.demux(stream):
        if packet.pts is None or packet.size == 0:
            continue
        if starts_hidden is None:
            starts_hidden = packet.is_discard
        if packet.is_keyframe:
            key_pts = packet.pts
        is_open |= key_pts is None or packet.pts < key_pts
        is_trimmed |= packet.is_discard
        if first_key is None and packet.is_keyframe:
            first_key = packet.pts
        if not packet.is_discard and first_key is not None and packet.pts >= first_key:
            frames.append((packet.pts, packet.is_keyframe))
    frames.sort()
    starts = np.array([float((pts - origin) * base) for pts, _ in frames])
    keys = np.array([key for _, key in frames], bool)
    return FrameTable(starts, keys, is_open, is_trimmed, bool(starts_hidden))
