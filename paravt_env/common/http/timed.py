"""HTTP whose timeout is a deadline for the whole exchange, however slowly a server trickles.

`http.client` allows its timeout to every packet anew. Here each step of a connection (handshake,
sending, every read, of headers too) may take what is left. Under `paravt_env.common.http.endpoint`,
as a handler of `urllib.request`. Tests: `pytest tests/common/test_http.py`.
"""

from __future__ import annotations

import io
import socket
import time
import urllib.request
from collections.abc import Callable
from http.client import HTTPConnection, HTTPResponse, HTTPSConnection
from typing import Any


class _TimedReads(io.RawIOBase):
    """Reads a socket; each read may take the seconds that are `left`."""

    def __init__(self, sock: socket.socket, left: Callable[[], float]) -> None:
        self._sock, self._left = sock, left
        self._raw = sock.makefile("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._sock.settimeout(self._left())
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Connection(HTTPConnection):
    """Its timeout is for the whole exchange."""

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        assert self.timeout is not None, "give the request a timeout"
        self._end = time.monotonic() + self.timeout

    def _left(self) -> float:
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left

    def connect(self) -> None:
        super().connect()
        self.sock.settimeout(self._left())  # of the TLS handshake, if there is one

    def send(self, data: Any) -> None:
        if self.sock is None:
            self.connect()
        self.sock.settimeout(self._left())
        super().send(data)

    def response_class(  # type: ignore[override]
        self, sock: socket.socket, *args: Any, **named: Any
    ) -> HTTPResponse:
        """A response whose status, headers and body are all read against the deadline."""
        response = HTTPResponse(sock, *args, **named)
        response.fp.close()
        response.fp = io.BufferedReader(_TimedReads(sock, self._left))
        return response


class _SecureConnection(HTTPSConnection, _Connection):
    """The same over TLS."""


class TimedHandler(urllib.request.HTTPSHandler, urllib.request.HTTPHandler):
    """Opens `http:` and `https:` addresses; what it gives has its headers read."""

    def http_open(self, request: urllib.request.Request) -> Any:
        """By a plain connection."""
        return self.do_open(_Connection, request)

    def https_open(self, request: urllib.request.Request) -> Any:
        """By one over TLS."""
        context = self._context  # type: ignore[attr-defined]
        return self.do_open(_SecureConnection, request, context=context)
