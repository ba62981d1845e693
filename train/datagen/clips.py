"""A video's clips: windows of equal length, or shots, and the frames that are shown of each.

Second step of the data engine. Cuts are found by PySceneDetect's content detector on frames of our
own reader, so that no other decoder opens a file and times are exact. Tests: `pytest
tests/datagen/test_clips.py`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from paravt_env.span import Span
from paravt_env.video.sampler import window_times
from paravt_env.video.store.store import FrameStore
from paravt_env.video.types import Frames, VideoError
from train.common.errors import ConfigError
from train.config.reason import ClipConfig
from train.datagen.refusal import Rejected
from train.datagen.videos import Film

_SCANNED = 256
"""Frames that are compared at a time."""
_SCAN_HEIGHT = 72
_WIDEST = 4
"""Width over height of a frame at most: a film strip of a file must not fill the memory."""


class Clip(NamedTuple):
    """A stretch of a video in seconds, numbered from 1."""

    number: int
    start: float
    end: float

    def as_data(self) -> dict[str, Any]:
        """As requests and files hold it."""
        return {"clip": self.number, "start": self.start, "end": self.end}


def clips_of(film: Film, store: FrameStore, config: ClipConfig) -> list[Clip]:
    """The clips of a video, which cover it from end to end.

    Raises:
        Rejected: The video cannot be read.
        ConfigError: Shots are asked for and PySceneDetect is not installed.
    """
    cuts = cuts_of(film, store, config) if config.boundaries == "shots" else []
    spans = pieces(cuts, film.duration, config.seconds, config.shortest)
    return [Clip(number, *span) for number, span in enumerate(spans, 1)]


def pieces(cuts: Sequence[float], duration: float, longest: float, shortest: float) -> list[Span]:
    """Spans from cut to cut, short ones joined to the one before, long ones divided evenly.

    Args:
        cuts: Seconds, in order; none gives windows of equal length.
        duration: Of the video, seconds.
        longest: Seconds of a span at most.
        shortest: Seconds that a shot must last to be one.

    >>> pieces([], 25.0, 10.0, 2.0)
    [(0.0, 8.333), (8.333, 16.667), (16.667, 25.0)]
    >>> pieces([6.0, 7.0, 24.5], 25.0, 20.0, 2.0)
    [(0.0, 7.0), (7.0, 25.0)]
    """
    shots: list[Span] = []
    for start, end in pairwise([0.0, *(cut for cut in cuts if 0 < cut < duration), duration]):
        if shots and end - start < shortest:
            shots[-1] = (shots[-1][0], end)
        else:
            shots.append((start, end))
    if len(shots) > 1 and shots[0][1] < shortest:
        shots[:2] = [(0.0, shots[1][1])]
    return [part for shot in shots for part in _divided(*shot, longest)]


def _divided(start: float, end: float, longest: float) -> Iterator[Span]:
    """Equal parts of at most `longest` seconds; inner edges in whole milliseconds."""
    parts = max(1, math.ceil((end - start) / longest - 1e-9))
    edges = [round(start + (end - start) * part / parts, 3) for part in range(1, parts)]
    yield from pairwise([start, *edges, end])


def cuts_of(film: Film, store: FrameStore, config: ClipConfig) -> list[float]:
    """Seconds at which PySceneDetect sees another shot begin.

    Raises:
        Rejected: The video cannot be read.
        ConfigError: PySceneDetect is not installed.
    """
    try:
        from scenedetect import FrameTimecode
        from scenedetect.detectors import ContentDetector
    except ImportError as error:
        raise ConfigError(
            f"clips.boundaries=shots needs PySceneDetect ({error}): pip install 'paravt[shots]', "
            "or set clips.boundaries=windows"
        ) from error
    detector = ContentDetector(config.threshold, min_scene_len=1)
    count = max(1, math.floor(film.duration * config.scan_fps))
    size, found = frame_size(film, _SCAN_HEIGHT), list[int]()
    for first in range(0, count, _SCANNED):
        places = range(first, min(first + _SCANNED, count))
        frames = read(film, np.array(places) / config.scan_fps, size, store)
        for place, pixels in zip(places, frames.pixels, strict=True):
            stamp = FrameTimecode(place, fps=config.scan_fps)
            bgr = np.ascontiguousarray(pixels[..., ::-1])
            found += [cut.frame_num for cut in detector.process_frame(stamp, bgr)]
    return [place / config.scan_fps for place in found]


def shown(film: Film, span: Span, count: int, height: int, store: FrameStore) -> Frames:
    """`count` frames of a span at even distances.

    Raises:
        Rejected: They cannot be read.
    """
    times = window_times(*span, fps=1000.0, max_frames=count)
    return read(film, times, frame_size(film, height), store)


def read(film: Film, times: np.ndarray, size: tuple[int, int], store: FrameStore) -> Frames:
    """Frames at `times` (seconds).

    Raises:
        Rejected: They cannot be read.
    """
    try:
        return store.frames(film.path, times, size)
    except VideoError as error:
        raise Rejected("unreadable_video", str(error)) from error


def frame_size(film: Film, height: int) -> tuple[int, int]:
    """Even height and width of at most `height`, in the proportion of the video's pictures.

    >>> frame_size(Film("v", "/v", "", "", 1.0, (1080, 1920)), 361)
    (360, 640)
    """
    own_height, own_width = film.size
    tall = 2 * max(1, min(height, own_height) // 2)
    wide = 2 * round(min(own_width / own_height, _WIDEST) * tall / 2)
    return tall, max(2, wide)
