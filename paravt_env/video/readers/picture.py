"""From a decoded frame to an upright RGB picture of the size asked for.

The last step of `pyav.py`: colour and size in one call of libswscale, then the display matrix that
a phone or a front camera stores beside the picture. Run its tests:
`python -m pytest tests/video/test_video_kinds.py`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import av
import numpy as np
from av.sidedata.sidedata import Type as SideData
from av.video.reformatter import Colorspace, VideoReformatter

from paravt_env.video.types import Size

HD_LINES = 720
"""A picture of this height and more that names no colour matrix is BT.709, as in players."""

UNNAMED = 2
"""The colour matrix of a picture that names none (ITU-T H.273)."""


class Orientation(NamedTuple):
    """How a stored picture becomes upright: transposed first, then mirrored."""

    transposed: bool = False
    left_right: bool = False
    up_down: bool = False

    def upright(self, pixels: np.ndarray) -> np.ndarray:
        """A stored picture (h, w, 3) as it is shown, a view.

        >>> stored = np.arange(6).reshape(2, 3, 1)
        >>> Orientation(True, True, False).upright(stored)[..., 0].tolist()  # a quarter turn right
        [[3, 0], [4, 1], [5, 2]]
        """
        pixels = pixels.swapaxes(0, 1) if self.transposed else pixels
        return pixels[:: -1 if self.up_down else 1, :: -1 if self.left_right else 1]


UPRIGHT = Orientation()


def orientation(frame: av.VideoFrame) -> Orientation:
    """The display matrix of a frame, to the nearest of the eight that keep pixels on a grid.

    The matrix (ISO/IEC 14496-12, 6.2.2) maps a stored pixel (x, y) to the shown
    (a x + c y, b x + d y), y downwards.
    """
    sides: Any = frame.side_data  # its stub types the values as texts
    side = sides.get(SideData.DISPLAYMATRIX)
    if side is None:
        return UPRIGHT
    a, b, _, c, d = np.frombuffer(side, np.int32)[:5].tolist()
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return Orientation(False, a < 0, d < 0)
    return Orientation(True, c < 0, b < 0)


def is_untagged_hd(frame: av.VideoFrame) -> bool:
    """Whether a frame names no colour matrix and is large enough to be BT.709."""
    return frame.colorspace == UNNAMED and frame.height >= HD_LINES


class Converter:
    """Converts frames of one file to RGB; keeps the scaler, so one a thread."""

    def __init__(self) -> None:
        self._reformatter = VideoReformatter()
        self._turn: Orientation | None = None

    def convert(self, frame: av.VideoFrame, size: Size) -> np.ndarray:
        """The upright picture, uint8 (*size, 3), a copy."""
        if self._turn is None:  # of the file; and PyAV keeps a frame alive that was asked for it
            self._turn = orientation(frame)
        turn = self._turn
        height, width = reversed(size) if turn.transposed else size
        colour = {"src_colorspace": Colorspace.ITU709} if is_untagged_hd(frame) else {}
        rgb = self._reformatter.reformat(
            frame, width, height, "rgb24", interpolation="BILINEAR", threads=1, **colour
        )
        plane = rgb.planes[0]
        rows = np.frombuffer(memoryview(plane), np.uint8).reshape(height, plane.line_size)
        return turn.upright(rows[:, : 3 * width].reshape(height, width, 3)).copy()
