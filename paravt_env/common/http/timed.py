"""HTTP whose timeout is a deadline for the whole exchange, however slowly a server trickles.

`http.client` allows its timeout to every packet anew. Here a connection has a clock: handshake,
sending and each read, of headers too, may take what is left. Under
`paravt_env.common.http.endpoint`, as handlers of `urllib.request`. Tests: `pytest
tests/rewards/test_judge.py`.
"""

from __future__ import annotations

import io
import socket
import time
import urllib.request
from functools import partial
from http.client import HTTPConnection, HTTPResponse, HTTPSConnection
from typing import Any


class _Clock:
    """Seconds that are left of an exchange."""

    def __init__(self, seconds: float) -> None:
        self.end = time.monotonic() + seconds

    def left(self) -> float:
        left = self.end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left


class _TimedReads(io.RawIOBase):
    """Reads a socket; each read may take what is left of the exchange."""

    def __init__(self, sock: socket.socket, clock: _Clock) -> None:
        self.sock, self.clock = sock, clock
        self.raw = sock.makefile("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self.sock.settimeout(self.clock.left())
        return self.raw.readinto(buffer)

    def close(self) -> None:
        self.raw.close()
        super().close()


class _Response(HTTPResponse):
    """Status, headers and body of a reply, all read against the clock."""

    def __init__(self, sock: socket.socket, *args: Any, clock: _Clock, **named: Any) -> None:
        super().__init__(sock, *args, **named)
        self.fp.close()
        self.fp = io.BufferedReader(_TimedReads(sock, clock))


class _Connection(HTTPConnection):
    """Its timeout is for the whole exchange; `http.client` gives it to each packet anew."""

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        assert self.timeout is not None, "give the request a timeout"
        self.clock = _Clock(self.timeout)
        self.response_class = partial(_Response, clock=self.clock)  # type: ignore[assignment]

    def connect(self) -> None:
        super().connect()
        self.sock.settimeout(self.clock.left())  # of the TLS handshake, if there is one

    def send(self, data: Any) -> None:
        if self.sock is None:
            self.connect()
        self.sock.settimeout(self.clock.left())
        super().send(data)


class _SecureConnection(HTTPSConnection, _Connection):
    """The same over TLS."""


class TimedHandler(urllib.request.HTTPHandler):
    """Opens `http:` addresses."""

    def http_open(self, request: urllib.request.Request) -> Any:
        """The response, headers read."""
        return self.do_open(_Connection, request)


class TimedSecureHandler(urllib.request.HTTPSHandler):
    """Opens `https:` addresses."""

    def https_open(self, request: urllib.request.Request) -> Any:
        """The response, headers read."""
        context = self._context  # type: ignore[attr-defined]
        return self.do_open(_SecureConnection, request, context=context)
