"""What a video reader takes and gives: the vocabulary of the video room.

The first stretch of the journey: file -> **frames with timestamps** -> observation. This module
imports numpy only, so that spaces, crops and tests can name these types without loading FFmpeg.

Run its tests: `python -m pytest tests/video/test_video.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np

Size = tuple[int, int]
"""Height and width in pixels, in this order."""


@dataclass(frozen=True)
class VideoInfo:
    """What is known of a video before any of its frames is decoded."""

    duration: float
    """Seconds from the first instant of the file to the end of the video track."""
    fps: float
    """Average frames a second (a variable frame rate has no other); 0.0 when unknown."""
    width: int
    """Stored pixels of the upright picture, before any resizing; they need not be square."""
    height: int
    """Likewise."""
    pixel_aspect: float = 1.0
    """How many times as wide as high a pixel is shown (the sample aspect ratio)."""

    def square(self) -> VideoInfo:
        """The same with the width that a player shows, in square pixels.

        >>> VideoInfo(60.0, 25.0, 720, 576, 64 / 45).square().width
        1024
        """
        width = max(1, round(self.width * self.pixel_aspect))
        return replace(self, width=width, pixel_aspect=1.0)


@dataclass(frozen=True, eq=False)
class Frames:
    """Decoded frames and the moments at which they appear on screen."""

    images: np.ndarray | Sequence[np.ndarray]
    """RGB, uint8: one array (N, H, W, 3), or N of (H, W, 3), read-only where a store keeps them."""
    timestamps: np.ndarray
    """float64 (N,), seconds: when each frame appears, not when it was asked for."""
    slow: np.ndarray | None = None
    """bool (N,): which of them only a decode from further back than needed gave; None: none."""

    @property
    def pixels(self) -> np.ndarray:
        """The images in one array, uint8 (N, H, W, 3); copied on each call where they are N."""
        return self.images if isinstance(self.images, np.ndarray) else np.stack(self.images)

    @property
    def slow_count(self) -> int:
        """How many of them are `slow`."""
        return 0 if self.slow is None else int(self.slow.sum())

    def __len__(self) -> int:
        """Number of frames, repeated ones included."""
        return len(self.timestamps)

    @staticmethod
    def empty(size: Size) -> Frames:
        """No frames at all, of the given size.

        >>> Frames.empty((2, 3)).pixels.shape
        (0, 2, 3, 3)
        """
        return Frames(np.zeros((0, *size, 3), np.uint8), np.zeros(0))


class VideoError(RuntimeError):
    """A file cannot be read as asked: `path` says which, `reason` why and what to do."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason

    def __reduce__(self) -> tuple:
        """Both arguments survive pickling: errors cross process borders in vector environments."""
        return type(self), (self.path, self.reason)


class VideoTimeoutError(VideoError):
    """The deadline passed before the frames were there."""


@runtime_checkable
class VideoReader(Protocol):
    """A back end: one open file, used by one thread, closed after use."""

    @property
    def info(self) -> VideoInfo:
        """Duration, frame rate and size."""

    def split(self, times: np.ndarray) -> list[np.ndarray]:
        """Index arrays that cover `times` (seconds, (N,)): each is a unit worth its own thread."""

    def frames_at(self, times: np.ndarray, size: Size, deadline: float | None = None) -> Frames:
        """The frames on screen at `times` (seconds, (N,), any order), resized to `size`.

        A frame is on screen from its timestamp until the next one's; before the first frame the
        first one is, after the last the last. N times give N frames, repeated where they must be.

        Args:
            times: finite seconds.
            size: height and width of the result in pixels.
            deadline: instant of `time.monotonic()` after which decoding is given up.

        Raises:
            VideoError: some frame cannot be decoded.
            VideoTimeoutError: the deadline passed.
        """

    def close(self) -> None:
        """Release the file and the decoder."""


@runtime_checkable
class KeyFrameReader(VideoReader, Protocol):
    """A back end that also knows where the key frames are: what `snap` needs."""

    def key_times(self, times: np.ndarray) -> np.ndarray | None:
        """When the key frames nearest to `times` (seconds, (N,)) appear, seconds (N,).

        Each is a time at which `frames_at` gives that key frame. None: it cannot tell after all.
        """
