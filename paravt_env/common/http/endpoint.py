"""A chat completion over HTTP: one request to an OpenAI-style endpoint, with a real deadline.

Used by the LLM judge. Standard library only. What went wrong is an `EndpointError` that says
whether asking again may help; retries are the caller's. Tests: `pytest
tests/rewards/test_judge.py`.
"""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from http.client import HTTPException
from typing import Any, NamedTuple

from paravt_env.common.http.timed import TimedHandler, TimedSecureHandler

MAX_REPLY_BYTES = 4 * 2**20
_TEMPORARY = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})


class EndpointError(RuntimeError):
    """No usable reply.

    Attributes:
        temporary: Whether the same request may succeed later.
        retry_after: Seconds that the server asked to wait; 0 where it did not.
        status: HTTP status of a refusal; 0 where there was none.
    """

    def __init__(
        self, message: str, temporary: bool, retry_after: float = 0.0, status: int = 0
    ) -> None:
        super().__init__(message)
        self.temporary, self.retry_after, self.status = temporary, retry_after, status


class Reply(NamedTuple):
    """What the model said and what it cost in tokens, as the server reports them.

    `content` is its text, "" where it wrote none beside calls or reasoning; a refusal is text too.
    `message` is the whole message: tool calls and reasoning are in it where there are any.
    """

    content: str
    prompt_tokens: int
    completion_tokens: int
    message: Mapping[str, Any] = {}


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirected POST would arrive as a GET, and carry the key to another host."""

    def redirect_request(self, *_: Any) -> None:
        return None


_OPENER = urllib.request.build_opener(_NoRedirect, TimedHandler, TimedSecureHandler)


def chat(url: str, body: Mapping[str, Any], key: str = "", timeout: float = 30.0) -> Reply:
    """Post `body` to `url`/chat/completions.

    Args:
        url: Base address, such as http://localhost:8000/v1.
        body: The request: `model`, `messages` and options.
        key: Bearer token, "" for none.
        timeout: Seconds for the whole exchange, not for each packet. Only the system's look-up of
            the name, and a second address of a host whose first does not answer, come on top.

    Raises:
        EndpointError: No connection, no reply in time, an error status, or a reply that is no chat
            completion or was withheld.
    """
    headers = {"Content-Type": "application/json"} | (
        {"Authorization": f"Bearer {key}"} if key else {}
    )
    request = urllib.request.Request(
        url.rstrip("/") + "/chat/completions", json.dumps(body).encode(), headers, method="POST"
    )
    try:
        with _OPENER.open(request, timeout=timeout) as response:
            content = _read(response)
    except urllib.error.HTTPError as error:
        raise _status_error(error) from None
    except (OSError, HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        late = isinstance(reason, TimeoutError)
        problem = f"no reply within {timeout:g} s" if late else f"no connection: {reason}"
        raise EndpointError(problem, temporary=True) from None
    return _reply(content)


def _read(response: Any) -> bytes:
    """The whole body."""
    content = b""
    while piece := response.read1(2**16):
        content += piece
        if len(content) > MAX_REPLY_BYTES:
            raise EndpointError(f"a reply of more than {MAX_REPLY_BYTES} bytes", temporary=False)
    return content


def _status_error(error: urllib.error.HTTPError) -> EndpointError:
    """The status, the beginning of what the server said about it, and how long to wait."""
    try:
        with error:
            said = error.read1(300).decode("utf-8", "replace")
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


def _reply(content: bytes) -> Reply:
    try:
        reply = json.loads(content)
        choice = reply["choices"][0]
        text = _text(choice["message"], choice.get("finish_reason"))
        usage = reply.get("usage") or {}
        sent, drawn = (int(usage.get(f"{who}_tokens") or 0) for who in ("prompt", "completion"))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise EndpointError("the reply is not a chat completion", temporary=True) from None
    return Reply(text, sent, drawn, choice["message"])


def _text(message: Mapping[str, Any], finish: Any) -> str:
    """What the model wrote, in whichever of the forms that servers use.

    Args:
        message: Its `content` is a string, a list of parts, or null beside calls, reasoning, a
            refusal, or nothing at all.
        finish: The choice's `finish_reason`.

    Raises:
        EndpointError: A form that is none of these, or a reply that a filter withheld.
        KeyError: Neither content nor anything that stands for it.
    """
    beside = any(message.get(name) for name in ("tool_calls", "refusal"))
    content = message.get("content") if beside else message["content"]
    parts = content if isinstance(content, list) else [content]
    text = "".join(map(_piece, parts)) or _piece(message.get("refusal"))
    if finish == "content_filter" and not text and not message.get("tool_calls"):
        raise EndpointError("the server's content filter withheld the reply", temporary=False)
    return text


def _piece(part: Any) -> str:
    """The text of a part; null holds none."""
    if isinstance(part, Mapping) and part.get("type") in ("text", "refusal"):
        part = part.get(part["type"])
    if part is not None and not isinstance(part, str):
        problem = f"the reply's content is neither text nor parts of text: {str(part)[:80]}"
        raise EndpointError(problem, temporary=True)
    return part or ""
