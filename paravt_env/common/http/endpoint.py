"""One JSON request over HTTP with a deadline for the whole exchange, and the loop that repeats it.

Under the chat client (`paravt_env.common.http.client`) and the engine that is a vLLM server.
Standard library only. What went wrong is an `EndpointError` that says whether asking again may
help. Tests: `pytest tests/common/test_http.py`.
"""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from http.client import HTTPException, IncompleteRead, InvalidURL
from typing import Any, TypeVar

from paravt_env.common.http.timed import TimedHandler

MAX_REPLY_BYTES = 4 * 2**20
"""Of a reply that is one chat completion."""
_TEMPORARY = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})

T = TypeVar("T")


@dataclass(eq=False)
class EndpointError(RuntimeError):
    """No usable reply.

    Attributes:
        problem: What went wrong.
        temporary: Whether the same request may succeed later.
        retry_after: Seconds that the server asked to wait; 0 where it did not.
        status: HTTP status of a refusal; 0 where there was none.
        broken: Whether a connection was there and was lost.
        unread: Whether there was a reply that was not what was asked for.
    """

    problem: str
    temporary: bool
    retry_after: float = 0.0
    status: int = 0
    broken: bool = False
    unread: bool = False

    def __str__(self) -> str:
        return self.problem


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirected POST would arrive as a GET, and carry the key to another host."""

    def redirect_request(self, *_: Any) -> None:
        return None


_OPENER = urllib.request.build_opener(_NoRedirect, TimedHandler)


def exchange(
    url: str, body: Any = None, key: str = "", timeout: float = 30.0, limit: int | None = None
) -> bytes:
    """Send one request and read the body of its reply.

    Args:
        url: Address, with its query.
        body: What is posted, as JSON; None is a GET.
        key: Bearer token, "" for none.
        timeout: Seconds for the whole exchange, not for each packet. Only the system's look-up of
            the name, and a second address of a host whose first does not answer, come on top.
        limit: Bytes that the reply may have; None is `MAX_REPLY_BYTES`.

    Raises:
        EndpointError: No address, no connection, no reply in time, an error status (a redirect is
            one), or a reply that is cut or too long.
    """
    headers = {"Content-Type": "application/json"}
    if key:
        headers["Authorization"] = f"Bearer {key}"
    content = None if body is None else json.dumps(body).encode()
    try:
        request = urllib.request.Request(url, content, headers)
        with _OPENER.open(request, timeout=timeout) as response:
            return _read(response, MAX_REPLY_BYTES if limit is None else limit)
    except urllib.error.HTTPError as error:
        raise _status_error(error) from None
    except (InvalidURL, ValueError) as error:
        raise EndpointError(f"nothing can be sent to {url}: {error}", temporary=False) from None
    except (OSError, HTTPException) as error:
        raise _connection_error(error, timeout) from None


def _read(response: Any, limit: int) -> bytes:
    """The whole body."""
    content = response.read(limit + 1)
    if len(content) > limit:
        raise EndpointError(f"a reply of more than {limit} bytes", temporary=False)
    if response.length:
        raise IncompleteRead(content, response.length)
    return content


def _connection_error(error: Exception, timeout: float) -> EndpointError:
    reason = getattr(error, "reason", None) or error
    if isinstance(reason, TimeoutError):
        return EndpointError(f"no reply within {timeout:g} s", temporary=True)
    refused = isinstance(reason, ConnectionRefusedError)
    broken = isinstance(reason, ConnectionError | HTTPException) and not refused
    what = "the connection broke" if broken else "no connection"
    return EndpointError(f"{what}: {reason}", temporary=True, broken=broken)


def _status_error(error: urllib.error.HTTPError) -> EndpointError:
    """The status, the beginning of what the server said about it, and how long to wait."""
    try:
        with error:
            said = error.read1(500).decode("utf-8", "replace")
    except (OSError, HTTPException):
        said = ""
    wait = _seconds(error.headers.get("Retry-After", ""))
    message = f"HTTP status {error.code}: {' '.join(said.split())}"
    return EndpointError(message, error.code in _TEMPORARY, wait, error.code)


def _seconds(asked: str) -> float:
    """A `Retry-After` in seconds: a number or a date; 0 where it is neither or has passed.

    >>> _seconds("1.5"), _seconds("-3"), _seconds("Sun, 06 Nov 1994 08:49:37 GMT"), _seconds("soon")
    (1.5, 0.0, 0.0, 0.0)
    """
    try:
        wait = float(asked)
    except ValueError:
        try:
            date = parsedate_to_datetime(asked)
        except (ValueError, OverflowError):
            return 0.0
        wait = date.replace(tzinfo=date.tzinfo or UTC).timestamp() - time.time()
    return wait if wait > 0 else 0.0


def retried(
    attempt: Callable[[], T],
    waits: Iterable[float],
    longest: float,
    pause: Callable[[float], None] = time.sleep,
    again: Callable[[EndpointError], bool] = lambda error: error.temporary,
) -> T:
    """The result of `attempt`, repeated after each of the `waits` where it failed.

    Args:
        attempt: Makes one request.
        waits: Seconds before each repeat, unless the server asks for more.
        longest: Seconds of a wait at most, whatever a server asks for.
        pause: Waits.
        again: Whether another attempt may fare better.

    Raises:
        EndpointError: The error of the last attempt.
    """
    for wait in waits:
        try:
            return attempt()
        except EndpointError as error:
            if not again(error):
                raise
            seconds = min(max(wait, error.retry_after), longest)
        pause(seconds)
    return attempt()
