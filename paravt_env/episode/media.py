"""What the code of an episode may ask for: frames of the task's video, the task's pictures.

Between the sandbox, which passes questions on, and the readers: frames come from the store that
decodes everything else, pictures from `video.pictures`. Asked by the thread that runs the code.
Run the tests with `pytest tests/env/test_code.py`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from paravt_env.crop import Window, check_window
from paravt_env.sandbox.process import Refusal
from paravt_env.settings import EnvSettings
from paravt_env.task import Task
from paravt_env.video.pictures import Pictures
from paravt_env.video.sampler import window_times
from paravt_env.video.store.store import FrameStore
from paravt_env.video.types import Size, VideoError, VideoInfo

FRAME_PIXELS = 2_100_000
"""Pixels of a frame that code is given: 1920 x 1080; a larger one is scaled down."""


class TaskMedia:
    """The media of one task (a `sandbox.process.Media`).

    Attributes:
        windows: Seconds of the video that code was given frames of since they were last taken.
    """

    def __init__(
        self,
        task: Task,
        video: VideoInfo,
        settings: EnvSettings,
        store: FrameStore,
        pictures: Pictures,
    ) -> None:
        self.task, self.video, self.settings = task, video, settings
        self.store, self.pictures = store, pictures
        self.windows: list[Window] = []

    def about(self) -> dict[str, Any]:
        """What code is told without asking."""
        video = self.video
        told = {
            "duration": video.duration,
            "fps": video.fps,
            "width": video.width,
            "height": video.height,
        }
        return {"video": told if self.task.video else None, "images": len(self.task.images)}

    def frames(self, start: float, end: float, count: int) -> tuple[np.ndarray, np.ndarray]:
        """`count` frames at the middles of equal parts of a window; it is cut to the video.

        Raises:
            Refusal: No such window, or its frames cannot be decoded.
        """
        if not self.task.video:
            raise Refusal("there is no video, only images")
        duration = self.video.duration
        _, clipped, message = check_window((start, end), duration, duration)
        if clipped is None:
            raise Refusal(message)
        times = window_times(*clipped, fps=count / (clipped[1] - clipped[0]), max_frames=count)
        size = within(self.video, FRAME_PIXELS)
        timeout = self.settings.crop_timeout
        try:
            frames = self.store.submit(self.task.video, times, size, timeout=timeout).result()
        except VideoError as error:  # the reason, never the path
            raise Refusal(error.reason) from error
        self.windows.append(clipped)
        return frames.pixels, frames.timestamps

    def image(self, index: int) -> np.ndarray:
        """A whole picture.

        Raises:
            Refusal: There is no such picture, or it cannot be read.
        """
        if not 0 <= index < len(self.task.images):
            raise Refusal(f"there are {len(self.task.images)} images, counted from 0")
        try:
            return self.pictures.read(self.task.images[index])
        except VideoError as error:
            raise Refusal(error.reason) from error


def within(video: VideoInfo, most: int) -> Size:
    """Height and width of a video's frames, scaled down to `most` pixels where they have more.

    >>> within(VideoInfo(1.0, 25.0, 3840, 2160), 2_100_000)
    (1086, 1932)
    """
    scale = min(1.0, (most / max(1, video.width * video.height)) ** 0.5)
    return max(1, int(video.height * scale)), max(1, int(video.width * scale))
