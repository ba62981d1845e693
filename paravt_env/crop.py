"""Crops: the windows that a turn asks for, what is wrong with each, and its result.

The stretch after parsing: windows in seconds -> **a status for each** -> frames, which
`episode/decode_crops.py` decodes -> evidence. A window is never rounded and never moved, only
clamped to the video. Run the tests with `pytest tests/env/test_crops.py`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

from paravt_env.video.sampler import window_times
from paravt_env.video.types import Frames

Window = tuple[float, float]
"""Start and end of a crop in seconds."""


class CropStatus(StrEnum):
    """The status of a call. Only `ok` was executed."""

    ok = "ok"  # its frames were decoded
    empty = "empty"  # start and end are the same instant
    reversed = "reversed"  # it ends before it starts
    not_finite = "not_finite"  # NaN or infinity
    outside = "outside"  # no part of it lies in the video
    too_long = "too_long"  # more seconds than one crop may have
    malformed = "malformed"  # the call could not be parsed: no window, or no possible density
    unknown_tool = "unknown_tool"  # it names a tool that does not exist
    wrong_video = "wrong_video"  # of older recordings: a path in a call is ignored
    over_limit = "over_limit"  # the turn already holds as many calls as are allowed
    refused = "refused"  # the forced-answer turn takes no calls
    timeout = "timeout"  # decoding ran past its deadline
    decode_error = "decode_error"  # the file could not be decoded there
    over_quota = "over_quota"  # its frames are more than the episode's quota has left
    code_error = "code_error"  # of code: it raised; its traceback says what
    denied = "denied"  # of code: it asked for a file, the network or a process
    out_of_memory = "out_of_memory"  # of code: it wanted more memory than it has
    output_limit = "output_limit"  # of code: it wrote or showed more than it may
    crashed = "crashed"  # of code: its process ended


CROP_STATUSES: tuple[CropStatus, ...] = tuple(CropStatus)
"""In the order of their codes: an observation holds 1 + the index here, and 0 for "no call"."""

OF_CODE = (
    CropStatus.code_error,
    CropStatus.denied,
    CropStatus.out_of_memory,
    CropStatus.output_limit,
    CropStatus.crashed,
)
"""What becomes of code alone; their codes come last."""

CHOSEN_BY_SETTING = math.nan
"""A call's frames a second where it asks for none: the setting `crop_fps` says."""

NO_WINDOW: Window = (math.nan, math.nan)
"""The window of a call that has none."""


@dataclass(frozen=True, eq=False)
class CropResult:
    """One call and its result."""

    window: Window
    """Seconds as asked; NaN, NaN when the call was malformed."""
    clipped: Window | None
    """Seconds as run, inside the video; None when nothing ran."""
    status: CropStatus
    message: str = ""
    """One line for the model: what was wrong and what is allowed; "" when ok."""
    frames: Frames | None = None
    """The frames when ok, else None."""
    fps: float = CHOSEN_BY_SETTING
    """Frames a second as asked; NaN where the setting says."""
    ran: CodeRun | None = None
    """Of a call that is code: what ran and what it brought."""


@dataclass(frozen=True)
class CodeRequest:
    """Python that a turn holds, ready to run."""

    code: str


@dataclass(frozen=True)
class CodeRun:
    """Code that ran, to its end or not."""

    code: str
    """As the model wrote it."""
    text: str
    """What it wrote, and why it stopped where it did not run to its end."""
    windows: tuple[Window, ...]
    """Seconds of the video that it was given frames of, inside the video."""
    seen: bytes
    """Digest of text and pictures: equal outcomes have equal digests."""


@dataclass(frozen=True)
class CropRequest:
    """A valid window of a video, ready to decode: `check_window` gave `clipped`."""

    path: str
    window: Window
    clipped: Window
    fps: float = CHOSEN_BY_SETTING
    """Frames a second as asked; NaN where the setting says."""


@dataclass(frozen=True)
class CropFrames:
    """How many frames crops show, as the prompt says it where the policy chooses or a bound holds.

    Attributes:
        fps: Frames a second of a crop, where a call asks for none.
        most: Frames of one crop.
        quota: Frames that all crops of an episode show at most; 0: no bound.
        chosen: Whether a call may ask for its own frames a second.
    """

    fps: float
    most: int
    quota: int
    chosen: bool

    def planned(self, clipped: Window, fps: float) -> int:
        """Frames of a crop of this part of the video, asked for at `fps` (NaN: the setting).

        >>> CropFrames(1.0, 16, 0, True).planned((10.0, 13.0), 4.0)
        12
        """
        return len(window_times(*clipped, self.fps if math.isnan(fps) else fps, self.most))


def check_window(
    window: Window, duration: float, max_seconds: float
) -> tuple[CropStatus, Window | None, str]:
    """Judge a window: its status, the part of it inside the video (None unless ok), a message.

    A window partly outside is clamped; the limit on its length counts the part inside.

    Args:
        window: start and end in seconds, any floats.
        duration: of the video, seconds.
        max_seconds: the longest crop that may run.

    >>> check_window((-5.0, 10.0), duration=60.0, max_seconds=45.0)
    (<CropStatus.ok: 'ok'>, (0.0, 10.0), '')
    >>> check_window((0.0, 60.0), duration=60.0, max_seconds=45.0)[2]
    'the crop is 60.0 s long; the limit is 45 s'
    """
    start, end = float(window[0]), float(window[1])
    if not (math.isfinite(start) and math.isfinite(end)):
        return CropStatus.not_finite, None, "start and end must be finite numbers of seconds"
    if start == end:
        return CropStatus.empty, None, f"the crop is empty: it starts and ends at {start:g} s"
    if start > end:
        return CropStatus.reversed, None, f"the crop ends ({end:g} s) before it starts ({start:g})"
    if end <= 0 or start >= duration:
        return CropStatus.outside, None, f"the crop lies outside the video, 0 to {duration:.1f} s"
    clipped = (max(start, 0.0), min(end, float(duration)))
    length = clipped[1] - clipped[0]
    if length > max_seconds + 1e-6:
        message = f"the crop is {length:.1f} s long; the limit is {max_seconds:g} s"
        return CropStatus.too_long, None, message
    return CropStatus.ok, clipped, ""
