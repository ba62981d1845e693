"""A sandbox for tests: media of a few pixels, and the reason to skip without isolation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from paravt_env.sandbox import isolation
from paravt_env.sandbox.limits import SandboxError
from paravt_env.sandbox.process import Refusal


def missing() -> str:
    """Why code cannot run on this machine; "" where it can."""
    try:
        isolation.check()
    except SandboxError as error:
        return str(error)
    return ""


needs_sandbox = pytest.mark.skipif(bool(missing()), reason=missing() or "there is isolation")


class TinyMedia:
    """Ten seconds of grey video whose frames are as bright as their second, and one red picture."""

    def about(self) -> dict[str, Any]:
        return {"video": {"duration": 10.0, "fps": 25.0, "width": 4, "height": 2}, "images": 1}

    def frames(self, start: float, end: float, count: int) -> tuple[np.ndarray, np.ndarray]:
        if not 0 <= start < end:
            raise Refusal("no such seconds")
        times = np.linspace(start, end, count)
        grey = np.floor(times).astype(np.uint8)
        return np.repeat(grey, 2 * 4 * 3).reshape(count, 2, 4, 3), times

    def image(self, index: int) -> np.ndarray:
        picture = np.zeros((6, 8, 3), np.uint8)
        picture[..., 0] = 200
        picture[3:, 4:, 1] = 100  # its lower right quarter is orange
        return picture
