"""The deadline of a decode: looked at between frames, the same in every back end."""

from __future__ import annotations

import time

from paravt_env.video.types import VideoTimeoutError

LATE = "was not decoded in time: raise the timeout, or check the disk and the file"


def check_deadline(path: str, deadline: float | None) -> None:
    """Raise `VideoTimeoutError` once `deadline`, an instant of `time.monotonic()`, has passed."""
    if deadline is not None and time.monotonic() > deadline:
        raise VideoTimeoutError(path, LATE)
