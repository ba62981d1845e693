"""Who may ask the viewer: pages of its own, on this machine.

In front of every request, as plain ASGI. A web page of another site can make a browser send
requests here; so the host that it was called by must be a loopback name (a name that an attacker's
DNS points here is none), and what changes something must come from a page of this origin. Every
answer carries the policy that lets a page load from here alone. Tests: `pytest
tests/viewer/test_server.py`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "media-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}
SAFE = ("GET", "HEAD")
MAX_BODY = 64 * 1024
"""Bytes of a request's body."""

Message = MutableMapping[str, Any]
App = Callable[
    [Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]],
    Awaitable[None],
]


def refusal(method: str, headers: dict[str, str]) -> str:
    """Why a request is refused; "" where it is not.

    Args:
        method: Of HTTP.
        headers: By lower-case name.

    >>> refusal("GET", {"host": "localhost:8765"})
    ''
    >>> refusal("GET", {"host": "rebound.example:8765"})
    'the host is not a name of this machine alone'
    >>> refusal("POST", {"host": "localhost:8765", "origin": "https://elsewhere.example"})
    'the request comes from another page than this one'
    """
    host = headers.get("host", "")
    name = host if host.endswith("]") else host.rpartition(":")[0] or host
    if name not in LOOPBACK:
        return "the host is not a name of this machine alone"
    if method in SAFE:
        return ""
    if headers.get("origin") != f"http://{host}":
        return "the request comes from another page than this one"
    if headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        return "a request that changes something must be JSON"
    length = headers.get("content-length", "")
    if not length.isdecimal() or int(length) > MAX_BODY:
        return f"a request has at most {MAX_BODY} bytes, and says how many"
    return ""


class Guard:
    """ASGI around an application."""

    def __init__(self, app: App) -> None:
        self.app = app

    async def __call__(
        self,
        scope: Message,
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        """Refuse, or pass on and put the policy on the answer."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":  # no web sockets here
            await send({"type": "websocket.close", "code": 1008})
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message["headers"] = [*message.get("headers", []), *own]
            await send(message)

        headers = {
            name.decode("latin-1").lower(): value.decode("latin-1")
            for name, value in scope["headers"]
        }
        why = refusal(scope["method"], headers)
        if not why:
            await self.app(scope, receive, guarded)
            return
        plain = [(b"content-type", b"text/plain; charset=utf-8")]
        await guarded({"type": "http.response.start", "status": 403, "headers": plain})
        await guarded({"type": "http.response.body", "body": why.encode()})
