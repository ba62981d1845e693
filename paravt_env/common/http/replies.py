"""What a chat server's reply says: its text, in whichever form, and its tokens; pure functions.

Between the bytes of `paravt_env.common.http.endpoint` and the caller. Tests: `pytest
tests/common/test_http.py`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from paravt_env.common.http.endpoint import EndpointError


class Reply(NamedTuple):
    """What the model said and what it cost in tokens, as the server reports them.

    `content` is its text, "" where it wrote none beside calls or reasoning; a refusal is text too.
    `message` is the whole message: tool calls and reasoning are in it where there are any. `finish`
    says why the model stopped ("length" at the limit), "" where the server does not.
    """

    content: str
    prompt_tokens: int
    completion_tokens: int
    message: Mapping[str, Any] = {}
    finish: str = ""


def read_reply(content: bytes) -> Reply:
    """Read the body of a chat completion.

    Raises:
        EndpointError: It is none, or was withheld.
    """
    try:
        reply = json.loads(content)
        choice = reply["choices"][0]
        text = _text(choice["message"], choice.get("finish_reason"))
        usage = reply.get("usage") or {}
        sent, sampled = (_count(usage.get(f"{who}_tokens")) for who in ("prompt", "completion"))
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError):
        raise EndpointError(
            "the reply is not a chat completion", temporary=True, unread=True
        ) from None
    return Reply(text, sent, sampled, choice["message"], str(choice.get("finish_reason") or ""))


def _count(tokens: Any) -> int:
    """Tokens as the server counts them; null is 0.

    Raises:
        ValueError: No count of tokens: it would be a cost below zero, or beyond any.
    """
    count = int(tokens or 0)
    if not 0 <= count < 2**53:
        raise ValueError(count)
    return count


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
        raise EndpointError(problem, temporary=True, unread=True)
    return part or ""
