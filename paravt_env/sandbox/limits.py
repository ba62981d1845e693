"""What a run of code may use, and what may become of it: the vocabulary of the sandbox.

Named by the environment's settings, checked there, and sent to the worker before any code is.
Tests: `pytest tests/sandbox/test_sandbox.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np


class CodeStatus(StrEnum):
    """What became of a run of code."""

    ok = "ok"  # it ran to its end
    code_error = "code_error"  # it raised; the traceback says what
    denied = "denied"  # it asked for a file, the network or a process, which there is not
    out_of_memory = "out_of_memory"  # it wanted more memory than it has
    output_limit = "output_limit"  # it wrote more characters, or showed more pictures, than it may
    timeout = "timeout"  # it ran past its deadline: its session was killed
    crashed = "crashed"  # its process ended, or broke the protocol: its session is gone


LOST = (CodeStatus.timeout, CodeStatus.crashed)
"""After these nothing is left of a session: the next run starts a new one."""

MIB = 2**20


@dataclass(frozen=True)
class CodeLimits:
    """What the code of one session may use.

    Attributes:
        seconds: Wall time of one run; decoding what it asks for is not counted.
        memory: MiB of address space of its process.
        characters: Text that one run may write; an error's text comes on top, as many at most.
        pictures: Pictures that one run may show.
        size: Height and width in pixels that pictures are shown in.
        pixels: Pixels of one picture or frame that code may be given; a larger frame is scaled
            down, a larger picture is refused.
        frames: Frames of a video that one run may ask for.
    """

    seconds: float = 10.0
    memory: int = 1024
    characters: int = 4000
    pictures: int = 16
    size: tuple[int, int] = (160, 288)
    pixels: int = 50_000_000
    frames: int = 64


@dataclass(frozen=True, eq=False)
class CodeReply:
    """What a run brought.

    Attributes:
        status: What became of it.
        text: What it wrote, and at the end why it stopped where it did not run to its end.
        pictures: uint8 (N, H, W, 3), what it showed, in the size of its limits.
        times: float64 (N,), seconds of those that are frames of a video; NaN for others.
        asked: (start, end) in seconds of the video's stretches that it was given frames of.
        calls: How often it asked for frames or for a picture.
    """

    status: CodeStatus
    text: str = ""
    pictures: np.ndarray = field(default_factory=lambda: np.zeros((0, 0, 0, 3), np.uint8))
    times: np.ndarray = field(default_factory=lambda: np.zeros(0))
    asked: tuple[tuple[float, float], ...] = ()
    calls: int = 0


class SandboxError(RuntimeError):
    """Code cannot be kept apart on this machine; the message says why and what to do."""
