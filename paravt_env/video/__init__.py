"""Video: which frames (`sampler`), from which file (`pyav`), decoded once (`store`).

The first stretch of the journey: file -> frames with timestamps. Importing this package loads
numpy only; FFmpeg is loaded when the first file is opened.

Run its tests: `python -m pytest tests/video/test_video.py`.
"""

from paravt_env.video.sampler import overview_times, window_times
from paravt_env.video.store.store import BACKENDS, FrameStore
from paravt_env.video.types import (
    Frames,
    Size,
    VideoError,
    VideoInfo,
    VideoReader,
    VideoTimeoutError,
)

__all__ = [
    "BACKENDS",
    "FrameStore",
    "Frames",
    "Size",
    "VideoError",
    "VideoInfo",
    "VideoReader",
    "VideoTimeoutError",
    "overview_times",
    "window_times",
]
