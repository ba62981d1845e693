"""Messages between us and a worker: lengths, a line of JSON, raw bytes; plain data both ways.

Runs on both sides of the wall, so it imports the standard library alone. The receiver sets the
limit: what comes out of a sandbox is hostile. Tests: `pytest tests/sandbox/test_wire.py`.
"""

from __future__ import annotations

import json
import socket
import struct
import time
from typing import Any

LENGTHS = struct.Struct("<IQ")
"""Bytes of JSON, bytes that follow it."""

MOST_TEXT = 2**20
"""Bytes of JSON in one message."""


class WireError(ConnectionError):
    """The other side is gone, or sent what is no message."""


def send(link: socket.socket, message: dict[str, Any], raw: Any = b"") -> None:
    """Send a message and the bytes that belong to it (anything with a buffer).

    Raises:
        WireError: The other side is gone, or does not take it in time (`link.settimeout`).
    """
    text, view = json.dumps(message).encode(), memoryview(raw).cast("B")
    try:
        link.sendall(LENGTHS.pack(len(text), len(view)) + text)
        if len(view):
            link.sendall(view)
    except OSError as error:
        raise WireError(f"the other side does not listen: {error}") from None


def receive(
    link: socket.socket, most_raw: int, deadline: float | None = None
) -> tuple[dict[str, Any], bytearray]:
    """The next message and its bytes.

    Args:
        link: A connected socket.
        most_raw: Bytes beside the JSON that are taken.
        deadline: Instant of `time.monotonic()`; None waits.

    Raises:
        TimeoutError: The deadline passed.
        WireError: The other side is gone, or what it sent is larger than allowed or no object.
    """
    lengths = LENGTHS.unpack(_read(link, LENGTHS.size, deadline))
    if lengths[0] > MOST_TEXT or lengths[1] > most_raw:
        raise WireError(f"a message of {lengths[0]} and {lengths[1]} bytes is too large")
    text, raw = (_read(link, length, deadline) for length in lengths)
    try:
        message = json.loads(bytes(text))
    except (ValueError, RecursionError) as error:
        raise WireError(f"not a message: {error}") from None
    if not isinstance(message, dict):
        raise WireError("not a message: no JSON object")
    return message, raw


def _read(link: socket.socket, length: int, deadline: float | None) -> bytearray:
    data = bytearray(length)
    rest = memoryview(data)
    while rest:
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            raise TimeoutError
        try:
            link.settimeout(left)
            got = link.recv_into(rest)
        except TimeoutError:
            raise
        except OSError as error:
            raise WireError(f"the other side is gone: {error}") from None
        if not got:
            raise WireError("the other side is gone")
        rest = rest[got:]
    return data
