"""Pictures: PNG and JPEG files of tasks, whole, and scaled into a frame.

Beside the readers of videos, for tasks about images. A file says its size in its first bytes; one
with more pixels than allowed is refused before any of them is decoded. What was decoded is kept for
a while, as the rows of a group look at the same picture. Run the tests with `pytest
tests/video/test_pictures.py`.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Any

import av
import numpy as np

from paravt_env.common.images import decode_picture, picture_size
from paravt_env.video.files import FileId, identify
from paravt_env.video.types import Size, VideoError

KEPT_BYTES = 256 * 2**20
"""Most that kept pictures take; a larger one is not kept."""

FILE_BYTES = 256 * 2**20
"""The largest file that is read."""


class Pictures:
    """Decoded pictures of a process, safe from any thread.

    Args:
        most_pixels: A picture with more is refused.
    """

    def __init__(self, most_pixels: int) -> None:
        self.most_pixels = most_pixels
        self._kept: OrderedDict[FileId, np.ndarray] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        """The limit alone: pictures are decoded again."""
        return {"most_pixels": self.most_pixels}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Start with nothing kept."""
        self.__init__(**state)  # type: ignore[misc]

    def size(self, path: str) -> Size:
        """Height and width in pixels, without decoding.

        Raises:
            VideoError: No such file, no PNG or JPEG, or one with too many pixels.
        """
        identify(path)
        return self._size(path, _head(path))

    def read(self, path: str) -> np.ndarray:
        """The whole picture, uint8 (H, W, 3), read-only.

        Raises:
            VideoError: As `size`, or the file is broken.
        """
        name = identify(path)
        with self._lock:
            if (kept := self._kept.get(name)) is not None:
                self._kept.move_to_end(name)
                return kept
        if name[1] > FILE_BYTES:
            raise VideoError(path, f"has more than {FILE_BYTES} bytes: make the picture smaller")
        data = _head(path, name[1])
        size = self._size(path, data)
        try:
            picture = decode_picture(data, size)
        except ValueError as error:
            raise VideoError(path, f"is no picture that can be read: {error}") from error
        picture.flags.writeable = False
        self._keep(name, picture)
        return picture

    def _size(self, path: str, data: bytes) -> Size:
        size = picture_size(data)
        if size is None:
            raise VideoError(path, "is no PNG or JPEG picture: convert it")
        if size[0] * size[1] > self.most_pixels:
            raise VideoError(
                path,
                f"has {size[1]} x {size[0]} pixels, more than {self.most_pixels}: make it smaller, "
                "or raise picture_pixels",
            )
        return size

    def _keep(self, name: FileId, picture: np.ndarray) -> None:
        with self._lock:
            if picture.nbytes > KEPT_BYTES or name in self._kept:
                return
            self._kept[name] = picture
            self._bytes += picture.nbytes
            while self._bytes > KEPT_BYTES:
                self._bytes -= self._kept.popitem(last=False)[1].nbytes


HEAD_BYTES = 2**20
"""How much of a file is read for its size; a JPEG's stands behind what cameras write first."""


def _head(path: str, count: int = HEAD_BYTES) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(count)
    except OSError as error:
        raise VideoError(path, f"cannot be opened ({error.strerror}): check its permissions") from (
            error
        )


def is_picture(path: str) -> bool:
    """Whether a file begins as a PNG or JPEG picture does.

    Raises:
        VideoError: There is no such file.
    """
    identify(path)
    return picture_size(_head(path)) is not None


def fitted(picture: np.ndarray, size: Size) -> np.ndarray:
    """A picture as large as it fits into a frame, in its own proportions, the rest black.

    Args:
        picture: uint8 (H, W, 3).
        size: Height and width of the frame in pixels.

    >>> fitted(np.full((2, 4, 3), 9, np.uint8), (4, 4))[:, 0, 0].tolist()
    [0, 9, 9, 0]
    """
    height, width = size
    scale = min(width / picture.shape[1], height / picture.shape[0])
    inner = [max(1, round(side * scale)) for side in picture.shape[:2]]
    if inner != list(picture.shape[:2]):
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
        picture = frame.reformat(
            width=inner[1], height=inner[0], interpolation="AREA", threads=1
        ).to_ndarray()
    top, left = (height - inner[0]) // 2, (width - inner[1]) // 2
    result = np.zeros((height, width, 3), np.uint8)
    result[top : top + inner[0], left : left + inner[1]] = picture
    return result
