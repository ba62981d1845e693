"""Videos and frames of rollouts, for the browser.

A file is served because a row of a run names it, and only if it is a regular file that the decoder
takes for a video: a run from somewhere else may name anything. Tests: `pytest
tests/viewer/test_server.py`.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from paravt_env.common.images import encode_jpeg
from paravt_env.video import FrameStore, VideoError
from paravt_env.video.files import identify, refuse_playlist
from train.viewer.errors import CannotShow

HEIGHTS = (72, 144, 288)
"""Pixels of the frames that can be asked for."""
KINDS = {
    ".mp4": "video/mp4",
    ".mov": "video/mp4",
    ".webm": "video/webm",
    ".mkv": "video/x-matroska",
}
MEMORY = 128 * 2**20
"""Bytes of decoded frames that are kept."""


class Media:
    """Reads videos; safe from any thread."""

    def __init__(self) -> None:
        self.store = FrameStore(memory_bytes=MEMORY)

    def file(self, video: str) -> tuple[Path, str]:
        """Path and type of a video.

        Raises:
            CannotShow: It is not there, or no video.
        """
        try:
            real = identify(video)[0]
            refuse_playlist(real)
            self.store.info(real)
        except VideoError as error:
            raise CannotShow(f"the video cannot be shown: {error}") from error
        return Path(real), KINDS.get(Path(real).suffix.lower(), "application/octet-stream")

    def frame(self, video: str, seconds: float, height: int) -> bytes:
        """The frame on screen at an instant, as JPEG.

        Raises:
            CannotShow: A height that is not offered, no such instant, or no video.
        """
        if height not in HEIGHTS or not math.isfinite(seconds) or seconds < 0:
            raise CannotShow("no such frame", 400)
        path, _ = self.file(video)
        try:
            info = self.store.info(str(path))
            width = max(2, min(4 * height, round(height * info.width / info.height / 2) * 2))
            times = np.array([min(seconds, info.duration)])
            frames = self.store.frames(str(path), times, (height, width))
        except VideoError as error:
            raise CannotShow(f"the frame cannot be shown: {error}") from error
        return encode_jpeg(np.asarray(frames.pixels)[0])

    def close(self) -> None:
        """Stop decoding."""
        self.store.close()
