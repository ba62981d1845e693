"""One client for chat servers: deadlines, retries with back-off, and what they cost.

All requests to servers of OpenAI's chat completions are made here: by the LLM judge
(`paravt_env.rewards.judge`) and the chat agent (`agents.chat`). Tests: `pytest
tests/common/test_http.py`.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, TypeVar

from paravt_env.common.http.endpoint import EndpointError, exchange, retried
from paravt_env.common.http.replies import Reply, read_reply

T = TypeVar("T")


def chat(url: str, body: Mapping[str, Any], key: str = "", timeout: float = 30.0) -> Reply:
    """Post `body` to `url`/chat/completions, once.

    Args:
        url: Base address, such as http://localhost:8000/v1.
        body: The request: `model`, `messages` and options.
        key: Bearer token, "" for none.
        timeout: Seconds for the whole exchange.

    Raises:
        EndpointError: No reply, or one that is no chat completion or was withheld.
    """
    return read_reply(exchange(url.rstrip("/") + "/chat/completions", body, key, timeout))


@dataclass(frozen=True, kw_only=True)
class ClientSettings:
    """How a chat server is asked. Only the name of the key's variable is ever saved."""

    role: ClassVar[str] = "chat"
    """What the server is for, in messages."""
    longest_pause: ClassVar[float] = 60.0
    """Seconds between two attempts at most, whatever a server asks for."""
    jitter: ClassVar[float] = 0.25
    """A pause is longer by a random share of itself, up to this one."""

    key_variable: str = ""
    """Environment variable that holds the key; empty for a server that needs none."""
    timeout: float = 120.0
    """Seconds of one request, from connection to last byte."""
    retries: int = 4
    """Requests after a first one that failed for a reason that may pass."""
    backoff: float = 1.0
    """Seconds before the first retry; doubles with each, up to the longest pause."""
    prompt_price: float = 0.0
    """Price of a million prompt tokens, for the cost that is reported."""
    completion_price: float = 0.0
    """The same for completion tokens."""
    extra: dict[str, Any] = field(default_factory=dict)
    """Further fields of every request; null removes one that is sent by default."""

    def __post_init__(self) -> None:
        """Check types and ranges."""
        self.check("retries", 0, whole=True)
        for name in ("timeout", "backoff", "prompt_price", "completion_price"):
            self.check(name, 0)
        if not self.timeout:
            raise ValueError(f"{self.role} timeout = 0: a number of seconds above 0 is needed")
        if not isinstance(self.extra, Mapping):
            raise ValueError(f"{self.role} extra must map fields to values, not {self.extra!r}")

    def check(self, name: str, least: int, whole: bool = False) -> None:
        """Refuse a field that is no finite number of at least `least`.

        Raises:
            ValueError: The field and its value are named.
        """
        value = getattr(self, name)
        number = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
        if not (number and least <= value < float("inf")):
            kind = "a whole number" if whole else "finite"
            raise ValueError(f"{self.role} {name} must be at least {least} and {kind}: {value!r}")

    def key(self) -> str:
        """The server's key, "" for none.

        Raises:
            ValueError: `key_variable` is not set, or holds what no header may.
        """
        if not self.key_variable:
            return ""
        key = os.environ.get(self.key_variable, "")
        if not key:
            raise ValueError(
                f"the {self.role} key is read from the environment variable {self.key_variable}, "
                'which is not set: export it, or give key_variable="" for a server without keys'
            )
        if not (key.isascii() and key.isprintable()):
            raise ValueError(
                f"the {self.role} key in the environment variable {self.key_variable} holds a line "
                "break or another character that cannot be sent: export the key alone"
            )
        return key

    def pauses(self) -> Iterator[float]:
        """Seconds before each retry.

        >>> list(ClientSettings(retries=3, backoff=0.5).pauses())
        [0.5, 1.0, 2.0]
        """
        pause = self.backoff
        for _ in range(self.retries):
            pause = min(pause, self.longest_pause)
            yield pause
            pause *= 2

    def body(self, sent: Mapping[str, Any]) -> dict[str, Any]:
        """A request with the fields of `extra`, and without those that are null."""
        merged = {**sent, **self.extra}
        return {name: value for name, value in merged.items() if value is not None}


@dataclass
class Usage:
    """What requests have cost so far."""

    requests: int = 0
    """Requests, retries included."""
    failures: int = 0
    """Questions that got no usable reply after all retries."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0
    """By the prices of the settings; 0 without prices."""

    def add(self, other: Usage) -> None:
        """Count what `other` has counted."""
        for one in fields(other):
            setattr(self, one.name, getattr(self, one.name) + getattr(other, one.name))


class RetryingClient:
    """Asks a chat server until it has a reply that serves; callable from several threads.

    Args:
        url: Base address, such as http://localhost:8000/v1.
        settings: How it is asked.
        pause: Waits between two attempts.

    Raises:
        ValueError: The settings name an environment variable for the key that is not set.
    """

    def __init__(
        self, url: str, settings: ClientSettings, pause: Callable[[float], None] = time.sleep
    ) -> None:
        self.url, self.settings = url, settings
        self._key, self._pause = settings.key(), pause
        self._lock, self._random = threading.Lock(), random.Random(0)

    def ask(self, body: Mapping[str, Any], read: Callable[[Reply], T], *bills: Usage) -> T:
        """What `read` makes of a reply to `body`.

        Args:
            body: The request.
            read: Takes a reply, or raises `ValueError` where it is not what was asked for; then it
                is asked for again.
            bills: What the question costs is added to each of them, also where it fails.

        Raises:
            EndpointError: The last problem, where no attempt is left or none would fare better.
        """
        settings = self.settings

        def attempt() -> T:
            self._count(Usage(requests=1), bills)
            reply = chat(self.url, body, self._key, settings.timeout)
            sent, sampled = reply.prompt_tokens, reply.completion_tokens
            cost = (sent * settings.prompt_price + sampled * settings.completion_price) / 1e6
            self._count(Usage(0, 0, sent, sampled, cost), bills)
            try:
                return read(reply)
            except ValueError as error:
                raise EndpointError(str(error), temporary=True, unread=True) from error

        waits = (wait * (1 + self._random.random() * settings.jitter) for wait in settings.pauses())
        try:
            return retried(attempt, waits, settings.longest_pause, self._pause)
        except EndpointError:
            self._count(Usage(failures=1), bills)
            raise

    def _count(self, usage: Usage, bills: tuple[Usage, ...]) -> None:
        with self._lock:
            for bill in bills:
                bill.add(usage)
