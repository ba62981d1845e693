"""A chat completion over HTTP: one request to an OpenAI-style endpoint, with a real deadline.

Used by the LLM judge. Standard library only. What went wrong is an `EndpointError` that says
whether asking again may help; retries are the caller's. Tests: `pytest tests/test_judge.py`.
"""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from http.client import HTTPException
from typing import Any, NamedTuple

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


_OPENER = urllib.request.build_opener(_NoRedirect)


def chat(url: str, body: Mapping[str, Any], key: str = "", timeout: float = 30.0) -> Reply:
    """Post `body` to `url`/chat/completions.

    Args:
        url: Base address, such as http://localhost:8000/v1.
        body: The request: `model`, `messages` and options.
        key: Bearer token, "" for none.
        timeout: Seconds for the whole exchange, not for each packet.

    Raises:
        EndpointError: No connection, no reply in time, an error status, or a reply that is no chat
            completion.
    """
    headers = {"Content-Type": "application/json"} | (
        {"Authorization": f"Bearer {key}"} if key else {}
    )
    request = urllib.request.Request(
        url.rstrip("/") + "/chat/completions", json.dumps(body).encode(), headers, method="POST"
    )
    deadline = time.monotonic() + timeout
    try:
        with _OPENER.open(request, timeout=timeout) as response:
            content = _read(response, deadline)
    except urllib.error.HTTPError as error:
        raise _status_error(error) from None
    except TimeoutError:
        raise EndpointError(f"no reply within {timeout:g} s", temporary=True) from None
    except (OSError, HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise EndpointError(f"no connection: {reason}", temporary=True) from None
    return _reply(content)


def _read(response: Any, deadline: float) -> bytes:
    """The whole body; a server that trickles bytes does not get past the deadline."""
    content = b""
    while piece := response.read1(2**16):
        content += piece
        if time.monotonic() > deadline:
            raise TimeoutError
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
    asked = error.headers.get("Retry-After", "")
    wait = float(asked) if asked.isdecimal() else 0.0
    message = f"HTTP status {error.code}: {' '.join(said.split())}"
    return EndpointError(message, error.code in _TEMPORARY, wait, error.code)


def _reply(content: bytes) -> Reply:
    try:
        reply = json.loads(content)
        message = reply["choices"][0]["message"]
        text = message.get("content") if message.get("tool_calls") else message["content"]
        usage = reply.get("usage") or {}
        sent, drawn = (int(usage.get(f"{who}_tokens") or 0) for who in ("prompt", "completion"))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise EndpointError("the reply is not a chat completion", temporary=True) from None
    return Reply(text if isinstance(text, str) else "", sent, drawn, message)
