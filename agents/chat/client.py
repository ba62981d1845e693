"""Many chat completions at once: a concurrency limit, retries with back-off, deadlines, costs.

Between `agents.chat.agent`, which writes the messages, and any server that speaks OpenAI's chat
completions. One request is `paravt_env.common.http.endpoint.chat`; standard library only. Tests:
`pytest tests/policies/test_openai_agent.py`.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Literal

from paravt_env.common.http.endpoint import EndpointError, Reply, chat
from paravt_env.common.names import known_name

LONGEST_PAUSE = 60.0
"""Seconds between two attempts at most, whatever a server asks for."""


@dataclass
class ChatConfig:
    """How a chat server is asked. Only the name of the key's variable is ever saved."""

    base_url: str = ""
    """Address before ``/chat/completions``, such as ``http://localhost:8000/v1``."""
    model: str = ""
    """The model's name there."""
    key_variable: str = ""
    """Environment variable that holds the key; empty for a server that needs none."""
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
    timeout: float = 120.0
    """Seconds of one request, from connection to last byte."""
    retries: int = 4
    """Requests after a first one that failed for a reason that may pass."""
    backoff: float = 1.0
    """Seconds before the first retry; doubles with each, up to 60."""
    prompt_price: float = 0.0
    """Price of a million prompt tokens, for the cost in the report."""
    completion_price: float = 0.0
    """The same for completion tokens."""
    extra: dict[str, Any] = field(default_factory=dict)
    """Further fields of every request; null removes one that is sent by default."""

    def __post_init__(self) -> None:
        """Check ranges; the address and the model may be filled in later."""
        known_name("ChatConfig.calls", self.calls, ("tags", "native"))
        known_name("ChatConfig.pictures", self.pictures, ("jpeg", "png"))
        least = {"concurrency": 1, "retries": 0, "backoff": 0, "prompt_price": 0}
        for name, bound in {**least, "completion_price": 0}.items():
            if not bound <= getattr(self, name) < float("inf"):
                raise ValueError(f"ChatConfig.{name} must be at least {bound} and finite")
        if not 0 < self.timeout < float("inf"):
            raise ValueError(f"ChatConfig.timeout = {self.timeout}: a number of seconds above 0")

    def key(self) -> str:
        """The key, "" for none.

        Raises:
            ValueError: The variable is named and not set.
        """
        if not self.key_variable:
            return ""
        if not os.environ.get(self.key_variable):
            raise ValueError(
                f"the key is read from the environment variable {self.key_variable}, which is not "
                'set: export it, or give key_variable="" for a server without keys'
            )
        return os.environ[self.key_variable]


@dataclass
class ChatUsage:
    """What requests have cost so far."""

    requests: int = 0
    """Requests, retries included."""
    failures: int = 0
    """Questions that got no reply after all retries."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0
    """By the prices of the settings; 0 without prices."""


@dataclass(frozen=True)
class ChatRequest:
    """One question: its messages, its limit in tokens, whose bill it goes on."""

    messages: Sequence[Mapping[str, Any]]
    max_tokens: int
    bill: ChatUsage
    fields: Mapping[str, Any] = field(default_factory=dict)


class ChatClient:
    """Asks many questions at once.

    Args:
        config: Where and how.
        pause: Waits between two attempts.

    Raises:
        ValueError: No address or model, or a key's variable that is not set.
    """

    def __init__(self, config: ChatConfig, pause: Callable[[float], None] = time.sleep) -> None:
        if not config.base_url.startswith(("http://", "https://")) or not config.model:
            raise ValueError(
                "a chat server needs base_url, such as http://localhost:8000/v1, and model, not "
                f"{config.base_url!r} and {config.model!r}"
            )
        self.config = config
        self.total = ChatUsage()
        self._key = config.key()
        self._pause = pause
        self._lock = threading.Lock()
        self._jitter = random.Random(0)
        self._pool = ThreadPoolExecutor(config.concurrency, "chat")

    def ask(self, requests: Sequence[ChatRequest]) -> list[Reply | EndpointError]:
        """A reply for each request, in order, or the last error where all attempts failed.

        Raises:
            OSError: The server refuses the key, or knows neither the address nor the model: no
                other request would fare better.
        """
        return list(self._pool.map(self._attempts, requests))

    def close(self) -> None:
        """Stop the threads; requests that run are waited for."""
        self._pool.shutdown()

    def _attempts(self, request: ChatRequest) -> Reply | EndpointError:
        config = self.config
        fields = {
            "model": config.model,
            "messages": list(request.messages),
            "max_tokens": request.max_tokens,
            **request.fields,
            **config.extra,
        }
        body = {name: value for name, value in fields.items() if value is not None}
        for attempt in range(config.retries + 1):
            try:
                reply = chat(config.base_url, body, self._key, config.timeout)
            except EndpointError as error:
                problem = error
                self._count(request.bill, requests=1)
            else:
                self._count(request.bill, 1, reply.prompt_tokens, reply.completion_tokens)
                return reply
            if problem.status in (401, 403, 404):
                raise _refusal(config, problem) from problem
            if not problem.temporary or attempt == config.retries:
                break
            wait = config.backoff * 2**attempt * (1 + self._jitter.random() / 4)
            self._pause(min(max(wait, problem.retry_after), LONGEST_PAUSE))
        self._count(request.bill, failures=1)
        return problem

    def _count(
        self, bill: ChatUsage, requests: int = 0, prompt: int = 0, drawn: int = 0, failures: int = 0
    ) -> None:
        cost = (
            prompt * self.config.prompt_price + drawn * self.config.completion_price
        ) / 1_000_000
        with self._lock:
            for usage in (bill, self.total):
                usage.requests += requests
                usage.failures += failures
                usage.prompt_tokens += prompt
                usage.completion_tokens += drawn
                usage.cost += cost


def _refusal(config: ChatConfig, error: EndpointError) -> OSError:
    if error.status == 404:
        return OSError(
            f"{config.base_url} knows no model {config.model!r} or no chat completions: {error}"
        )
    where = f"in {config.key_variable}" if config.key_variable else "(none was sent)"
    return PermissionError(f"{config.base_url} refuses the key {where}: {error}")
