"""Back ends that misbehave inside C, for `isolation="process"`: named "support.bad_readers:X".

A window's start in whole seconds says what to do: the frames of other windows are 10 x the second.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np

from paravt_env.video import Frames, VideoError, VideoInfo

HANG, ABORT, DAMAGED, BUG = 3.0, 5.0, 7.0, 9.0
FOREVER = 3600.0


class Reader:
    """Hangs at 3 s, aborts the process at 5 s, is damaged at 7 s, has a bug at 9 s."""

    info = VideoInfo(100.0, 1.0, 4, 2)

    def __init__(self, path: str) -> None:
        self.path = path
        if "hangs" in Path(path).name:
            time.sleep(FOREVER)
        if "crashes" in Path(path).name:
            os.abort()

    def split(self, times):
        return [np.array([i]) for i in range(len(times))]

    def frames_at(self, times, size, deadline=None):
        if HANG in times:
            Path(self.path).with_suffix(".hangs").touch()  # for a test to see
            time.sleep(FOREVER)
        if ABORT in times:
            os.abort()
        if DAMAGED in times:
            raise VideoError(self.path, "damaged there")
        if BUG in times:
            raise ZeroDivisionError("a bug of ours")
        stamps = np.floor(times)
        pixels = np.zeros((len(times), *size, 3), np.uint8)
        return Frames(pixels + (10 * stamps).astype(np.uint8)[:, None, None, None], stamps)

    def close(self):
        pass


class Missing:
    """A back end whose package is not there."""

    def __init__(self, path: str) -> None:
        raise ImportError("the video back end is not installed: pip install it")
