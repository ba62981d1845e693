"""Many questions to a chat server at once, and the settings that say where it is.

Between `agents.chat.agent`, which writes the messages, and the client that every question goes
through (`paravt_env.common.http.client`). Tests: `pytest tests/policies/test_openai_agent.py`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, Literal, TypeVar

from paravt_env.common.http.client import ClientSettings, RetryingClient, Usage
from paravt_env.common.http.endpoint import EndpointError
from paravt_env.common.http.replies import Reply
from paravt_env.common.names import known_name

T = TypeVar("T")
GONE = 8
"""Questions of one call that get no reply, one after another, before the others are not asked."""
NO_SERVER = (0, 502, 503, 504)
"""Statuses of a server that is not there: none, and those of a proxy before it."""


@dataclass(frozen=True)
class ChatConfig(ClientSettings):
    """How a chat server is asked; `ClientSettings` has the key, retries and prices."""

    base_url: str = ""
    """Address before ``/chat/completions``, such as ``http://localhost:8000/v1``."""
    model: str = ""
    """The model's name there."""
    _: KW_ONLY
    calls: Literal["tags", "native"] = "tags"
    """``tags``: the model writes calls as text; ``native``: the server lists the tool and reads
    its calls (use the prompt style ``tool_calling``)."""
    prefill: bool = False
    """Start every turn with the agent's forced prefix: for servers that continue a message (vLLM,
    SGLang)."""
    pictures: Literal["jpeg", "png"] = "jpeg"
    """Encoding of the frames; ``png`` is lossless and about ten times larger."""
    concurrency: int = 8
    """Requests that run at the same time."""

    def __post_init__(self) -> None:
        """Check ranges; the address and the model may be filled in later."""
        super().__post_init__()
        known_name("ChatConfig.calls", self.calls, ("tags", "native"))
        known_name("ChatConfig.pictures", self.pictures, ("jpeg", "png"))
        self.check("concurrency", 1, whole=True)


@dataclass(frozen=True)
class ChatRequest:
    """One question: its messages, its limit in tokens, who is charged."""

    messages: Sequence[Mapping[str, Any]]
    max_tokens: int
    bill: Usage
    fields: Mapping[str, Any] = field(default_factory=dict)


class ChatClient(RetryingClient):
    """Asks many questions at once.

    Args:
        config: Where and how.
        pause: Waits between two attempts.

    Attributes:
        total: What all questions have cost.

    Raises:
        ValueError: No address or model, or a key's variable that is not set.
    """

    def __init__(self, config: ChatConfig, pause: Callable[[float], None] = time.sleep) -> None:
        if not config.base_url.startswith(("http://", "https://")) or not config.model:
            raise ValueError(
                "a chat server needs base_url, such as http://localhost:8000/v1, and model, not "
                f"{config.base_url!r} and {config.model!r}"
            )
        super().__init__(config.base_url, config, pause)
        self.config, self.total = config, Usage()
        self._silent = 0
        self._pool = ThreadPoolExecutor(config.concurrency, "chat")

    def ask_all(self, requests: Sequence[ChatRequest]) -> list[Reply | EndpointError]:
        """A reply for each request, in order, or the last error where all attempts failed.

        After `GONE` questions in a row without a reply the rest are not asked, and have an error
        that says so: a server that is gone costs one round of waiting.

        Raises:
            OSError: The server refuses the key, or knows neither the address nor the model: no
                other request would fare better.
        """
        self._silent = 0
        return list(self._pool.map(lambda one: self.ask_one(one, _whole), requests))

    def ask_one(self, request: ChatRequest, read: Callable[[Reply], T]) -> T | EndpointError:
        """What `read` makes of the reply, or the last error where all attempts failed.

        Safe from any thread. After `GONE` questions in a row without a reply, of all threads, no
        other is asked: see `gone`.

        Args:
            request: The question.
            read: Takes a reply, or raises `ValueError` where it is not what was asked for; then it
                is asked for again.

        Raises:
            OSError: As `ask_all` does.
        """
        sent = {
            "model": self.config.model,
            "messages": list(request.messages),
            "max_tokens": request.max_tokens,
            **request.fields,
        }
        if self.gone:
            return EndpointError(
                f"not asked: {self.config.base_url} gave no reply {GONE} times in a row", False
            )
        try:
            answer = self.ask(self.config.body(sent), read, request.bill, self.total)
            self._silent = 0
            return answer
        except EndpointError as error:
            gone = error.temporary and error.status in NO_SERVER and not error.unread
            self._silent = self._silent + 1 if gone else 0
            if error.status in (401, 403, 404):
                raise _refusal(self.config, error) from error
            return error

    @property
    def gone(self) -> bool:
        """Whether the server gave no reply to the last `GONE` questions."""
        return self._silent >= GONE

    def close(self) -> None:
        """Stop the threads; requests that run are waited for."""
        self._pool.shutdown()


def _whole(reply: Reply) -> Reply:
    return reply


def _refusal(config: ChatConfig, error: EndpointError) -> OSError:
    if error.status == 404:
        return OSError(
            f"{config.base_url} knows no model {config.model!r} or no chat completions: {error}"
        )
    where = f"in {config.key_variable}" if config.key_variable else "(none was sent)"
    return PermissionError(f"{config.base_url} refuses the key {where}: {error}")
