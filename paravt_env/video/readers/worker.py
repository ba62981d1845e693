"""A decoder in a process of its own: opens one file at a time and answers over a socket.

Started by `isolation.py`, so that a decoder which hangs or crashes inside C takes nothing with it.
Messages are a length, a line of JSON and raw pixels: plain data both ways. Run its tests:
`python -m pytest tests/video/test_video_isolation.py`.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import time
import traceback
from typing import Any

import numpy as np

from paravt_env.common.parent import end_with
from paravt_env.video.readers.backends import Backend
from paravt_env.video.types import (
    Frames,
    KeyFrameReader,
    VideoError,
    VideoInfo,
    VideoReader,
    VideoTimeoutError,
)

LENGTHS = struct.Struct("<IQ")
"""Bytes of JSON, bytes that follow it."""

Message = dict[str, Any]


def send(link: socket.socket, message: Message, raw: memoryview | bytes = b"") -> None:
    """Send a message and the bytes that belong to it."""
    text = json.dumps(message).encode()
    link.sendall(LENGTHS.pack(len(text), len(raw)) + text)
    if len(raw):
        link.sendall(raw)


def receive(link: socket.socket, deadline: float | None = None) -> tuple[Message, bytearray]:
    """The next message and its bytes.

    Raises:
        TimeoutError: `deadline`, an instant of `time.monotonic()`, passed.
        ConnectionError: the other side is gone.
    """
    lengths = LENGTHS.unpack(_read(link, LENGTHS.size, deadline))
    text, raw = (_read(link, length, deadline) for length in lengths)
    return json.loads(text), raw


def _read(link: socket.socket, length: int, deadline: float | None) -> bytearray:
    data = bytearray(length)
    rest = memoryview(data)
    while rest:
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            raise TimeoutError
        link.settimeout(left)
        got = link.recv_into(rest)
        if not got:
            raise ConnectionResetError("the other side is gone")
        rest = rest[got:]
    return data


class Worker:
    """The open file and what may be asked of it; a method a request."""

    def __init__(self) -> None:
        self._reader: VideoReader | None = None

    def answer(self, request: Message) -> tuple[Message, memoryview | bytes]:
        """Do what the request says; an error of the video is an answer too."""
        try:
            result = getattr(self, request["do"])(**request["with"])
        except VideoError as error:
            kind = "timeout" if isinstance(error, VideoTimeoutError) else "video"
            return {"error": kind, "reason": error.reason}, b""
        except ImportError as error:
            return {"error": "import", "reason": str(error)}, b""
        except Exception:
            return {"error": "bug", "reason": traceback.format_exc()}, b""
        if isinstance(result, Frames):
            shape = list(result.pixels.shape)
            raw = np.ascontiguousarray(result.pixels).data.cast("B") if len(result) else b""
            slow = None if result.slow is None else result.slow.tolist()
            about = {"shape": shape, "timestamps": result.timestamps.tolist(), "slow": slow}
            return {"result": about}, raw
        return {"result": result}, b""

    def open(self, name: str, target: str, path: str, device: str) -> None:
        """Open a file with the back end at `target`."""
        self.close()
        self._reader = Backend(name, target, "", device).load()(path)

    def info(self) -> Message:
        """The fields of `VideoInfo`."""
        info: VideoInfo = self._open.info
        return vars(info)

    def split(self, times: list[float]) -> list[list[int]]:
        """See `VideoReader.split`."""
        return [unit.tolist() for unit in self._open.split(np.array(times, float))]

    def frames_at(self, times: list[float], size: list[int], left: float | None) -> Frames:
        """See `VideoReader.frames_at`; `left` is the seconds until the deadline."""
        deadline = None if left is None else time.monotonic() + left
        return self._open.frames_at(np.array(times, float), (size[0], size[1]), deadline)

    def key_times(self, times: list[float]) -> list[float] | None:
        """See `KeyFrameReader.key_times`; None from a back end that cannot tell."""
        reader = self._open
        if not isinstance(reader, KeyFrameReader):
            return None
        found = reader.key_times(np.array(times, float))
        return None if found is None else found.tolist()

    def close(self) -> None:
        """Close the file, if one is open."""
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.close()

    @property
    def _open(self) -> VideoReader:
        if self._reader is None:
            raise RuntimeError("no file is open in this worker")
        return self._reader


def main(descriptor: int) -> None:
    """Answer on a socket until the other side closes it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, who closes the socket
    end_with(os.getppid())  # even if the decoder hangs
    link = socket.socket(fileno=descriptor)
    worker = Worker()
    while True:
        try:
            request, _ = receive(link)
            send(link, *worker.answer(request))
        except ConnectionError:
            return
