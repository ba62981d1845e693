"""One worker: a locked-in process, the code that is sent to it, and what it may be given.

Between the pool, which starts workers ahead, and `guest.py` inside. Nothing that a worker says is
believed: sizes, kinds and numbers are checked, and one that breaks the protocol is killed. Tests:
`pytest tests/sandbox/test_sandbox.py`.
"""

from __future__ import annotations

import os
import socket
import time
import weakref
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from typing import Any, Protocol

import numpy as np

from paravt_env.sandbox.limits import MIB, CodeLimits, CodeReply, CodeStatus, SandboxError
from paravt_env.sandbox.server import STARTING, ForkServer
from paravt_env.sandbox.wire import WireError, receive, send

FILES = 64
"""Open files of a worker; its own are one."""

ASKS = 256
"""Times that one run may ask for media."""


class Refusal(ValueError):
    """Media that code asked for and cannot have; the message goes to the code."""


class Media(Protocol):
    """What a task's code may ask for; called by the thread that runs the code."""

    def about(self) -> dict[str, Any]:
        """What is known before anything is asked: `video` (or None) and the number of `images`."""

    def frames(self, start: float, end: float, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Frames of the video, uint8 (N, H, W, 3), and their times (N,) in seconds.

        Raises:
            Refusal: There are none, or too many were asked for.
        """

    def image(self, index: int) -> np.ndarray:
        """A whole picture, uint8 (H, W, 3).

        Raises:
            Refusal: There is no such picture, or it cannot be read.
        """


class Worker:
    """A process that runs the code of one session, and is killed after it.

    Args:
        server: Forks it; both are of one sandbox.

    Raises:
        SandboxError: The server is gone.
    """

    def __init__(self, server: ForkServer) -> None:
        self._link, number = server.fork()
        self._limits = CodeLimits()
        self.server = server
        self._finalizer = weakref.finalize(self, _end, server, number, self._link, os.getpid())

    @property
    def alive(self) -> bool:
        """Whether it can run code."""
        return self.server.alive and self._link.fileno() >= 0

    def begin(self, limits: CodeLimits, media: Media) -> None:
        """Wait until it is ready and tell it its limits and its task.

        Raises:
            SandboxError: It did not start.
        """
        self._limits = limits
        bounds = {
            "RLIMIT_AS": limits.memory * MIB,
            "RLIMIT_FSIZE": 0,
            "RLIMIT_CORE": 0,
            "RLIMIT_NOFILE": FILES,
        }
        told = {"limits": asdict(limits), "rlimits": bounds, "task": media.about()}
        try:
            receive(self._link, 0, time.monotonic() + STARTING)
            send(self._link, told)
        except (TimeoutError, WireError) as error:
            self.kill()
            raise SandboxError(f"a sandbox did not start: {error or 'it took too long'}") from None

    def run(self, code: str, media: Media) -> CodeReply:
        """Run code in the session; the process is gone afterwards where it was stopped.

        Args:
            code: What the model wrote.
            media: Answers what the code asks for; the time that this takes is not the code's.
        """
        asked: list[tuple[float, float]] = []
        calls, frames_left = 0, self._limits.frames
        left = self._limits.seconds
        try:
            self._link.settimeout(left)
            send(self._link, {"code": code})
            while True:
                began = time.monotonic()
                message, raw = receive(self._link, self._most_raw(), began + left)
                if "done" in message:
                    return self._reply(message, raw, asked, calls)
                calls += 1
                if calls > ASKS:
                    raise WireError("it asks for media without end")
                paused = time.monotonic()
                answer, pixels = self._answer(message, media, asked, frames_left)
                began += time.monotonic() - paused
                frames_left -= len(answer.get("times", ()))
                self._link.settimeout(max(left + began - time.monotonic(), 1e-3))
                send(self._link, answer, pixels)
                left += began - time.monotonic()
        except TimeoutError:
            self.kill()
            reason = f"stopped: it ran longer than {self._limits.seconds:g} s"
            status = CodeStatus.timeout
        except WireError:
            self.kill()
            reason, status = "stopped: its process ended", CodeStatus.crashed
        text = f"{reason}; names that were set are gone"
        return CodeReply(status, text, asked=tuple(asked), calls=calls)

    def kill(self) -> None:
        """End it at once; it has no process but its own."""
        self._finalizer()

    def _most_raw(self) -> int:
        height, width = self._limits.size
        return self._limits.pictures * height * width * 3

    def _answer(
        self,
        message: Mapping[str, Any],
        media: Media,
        asked: list[tuple[float, float]],
        frames_left: int,
    ) -> tuple[dict[str, Any], np.ndarray | bytes]:
        """What the code asked for, or why it cannot have it."""
        try:
            if message.get("ask") == "image":
                image = np.ascontiguousarray(media.image(_whole(message.get("index"))))
                return {"size": image.shape[:2]}, image
            if message.get("ask") != "frames":
                raise WireError("it asked for something that does not exist")
            start, end, count = (message.get(name) for name in ("start", "end", "n"))
            if not (isinstance(start, float) and isinstance(end, float)):
                raise Refusal("start and end must be numbers of seconds")
            if not 0 < _whole(count) <= frames_left:
                raise Refusal(
                    f"n must be from 1 to {frames_left}, the frames that this turn has left of "
                    f"{self._limits.frames}, not {count}"
                )
            pixels, times = media.frames(start, end, _whole(count))
            asked.append((start, end))
            about = {"size": pixels.shape[1:3], "times": times.tolist()}
            return about, np.ascontiguousarray(pixels)
        except Refusal as refusal:
            return {"refused": str(refusal)}, b""

    def _reply(
        self,
        message: Mapping[str, Any],
        raw: bytearray,
        asked: list[tuple[float, float]],
        calls: int,
    ) -> CodeReply:
        """What a worker says at the end of a run, every part of it checked.

        Raises:
            WireError: It is no such thing.
        """
        height, width = self._limits.size
        text, error, times = (message.get(name) for name in ("text", "error", "times"))
        try:
            status = CodeStatus(message["done"])
        except ValueError:
            raise WireError("no such status") from None
        if not isinstance(text, str) or not isinstance(error, str) or not isinstance(times, list):
            raise WireError("no such reply")
        if len(raw) != len(times) * height * width * 3 or len(times) > self._limits.pictures:
            raise WireError("pictures of another size")
        most = self._limits.characters
        text, error = text[:most], error[-most:]
        return CodeReply(
            status=status,
            text="\n".join(part for part in (text.rstrip("\n"), error) if part),
            pictures=np.frombuffer(raw, np.uint8).reshape(len(times), height, width, 3),
            times=np.array([_seconds(one) for one in times], float),
            asked=tuple(asked),
            calls=calls,
        )


def _whole(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise Refusal(f"a whole number was expected, not {str(value)[:40]!r}")
    return value


def _seconds(value: Any) -> float:
    """A moment that a worker says a picture is of; NaN where it says none, or nonsense."""
    number = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e9
    return float(value) if number else float("nan")


def _end(server: ForkServer, number: int, link: socket.socket, owner: int) -> None:
    if os.getpid() != owner:
        return  # a fork has a copy of the worker: it is its parent's
    server.end(number)
    with suppress(OSError):
        link.shutdown(socket.SHUT_RDWR)
    link.close()
