"""An engine whose callers, on several threads, share one batch.

Under `agents/vllm/local.py`. Lanes of rollouts draw from several threads: the first one
drives the engine, takes in the requests of those who come later between two steps, and hands
everybody's results out. The engine holds `agent.vllm.max_requests` requests at most; the others
wait here and their lanes with them, so no frames are decoded for an engine that is full. Tests:
`pytest tests/workers/test_backpressure.py tests/workers/test_colocated.py`.
"""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from agents.base import AgentStats
from agents.vllm.engine import EngineError, Generated, Prompt


@dataclass
class _Ticket:
    """Prompts of one caller and what has come of them; `left` requests still run."""

    prompts: Sequence[Prompt]
    results: list[list[Generated]] = field(init=False)
    left: int = field(init=False)
    error: Exception | None = None

    def __post_init__(self) -> None:
        self.results = [[] for _ in self.prompts]
        self.left = len(self.prompts)

    @property
    def done(self) -> bool:
        return self.left == 0 or self.error is not None


class SharedBatch(ABC):
    """Draws what several threads ask for, together; a subclass says how requests are drawn.

    Args:
        max_requests: Requests that the engine holds, running or queued.
    """

    def __init__(self, max_requests: int) -> None:
        self.stats = AgentStats()
        self.max_requests = max_requests
        self._waiting: deque[tuple[_Ticket, int]] = deque()
        self._running: dict[str, tuple[_Ticket, int]] = {}
        self._changed = threading.Condition()
        self._driving = False
        self._count = 0

    @abstractmethod
    def _ready(self) -> None:
        """Refuse to draw, by an `EngineError`, where that is not possible now."""

    @abstractmethod
    def _take_over(self) -> None:
        """Called by a thread that begins to drive."""

    @abstractmethod
    def _add(self, name: str, prompt: Prompt) -> None:
        """Hand a request to the engine."""

    @abstractmethod
    def _step(self) -> list[tuple[str, list[Generated]]]:
        """Draw a little; the requests that are finished, and the completions drawn for each."""

    @abstractmethod
    def _abort(self, names: list[str]) -> None:
        """Take requests back."""

    def generate(self, prompts: Sequence[Prompt]) -> list[list[Generated]]:
        """See :class:`Engine`.

        Raises:
            EngineError: A request was refused, or the engine sleeps.
        """
        ticket = _Ticket(prompts)
        with self._changed:
            self._ready()
            self._waiting.extend((ticket, place) for place in range(ticket.left))
            while self._driving and not ticket.done:
                self._changed.wait()
            self._driving = self._driving or not ticket.done
        while not ticket.done:
            self._drive(ticket)
        if ticket.error is not None:
            raise EngineError(f"the engine failed: {ticket.error}") from ticket.error
        return ticket.results

    @contextmanager
    def _idle(self, refusal: str) -> Iterator[None]:
        """While nothing is drawn, and nothing begins.

        Raises:
            EngineError: With `refusal`: something is being drawn.
        """
        with self._changed:
            if self._driving or self._waiting:
                raise EngineError(refusal)
            yield

    def _drive(self, ticket: _Ticket) -> None:
        """Step until the caller's own requests are done, then let another caller drive."""
        began = time.perf_counter()
        try:
            self._take_over()
            while not ticket.done:
                while (name := self._next()) is not None:
                    owner, place = self._running[name]
                    self._add(name, owner.prompts[place])
                for name, drawn in self._step():
                    self._finish(name, drawn)
        except Exception as error:
            with self._changed:
                for owner, _ in (*self._waiting, *self._running.values()):
                    owner.error = error
                ticket.error = error
                self._waiting.clear()
                self._abort(list(self._running))
                self._running.clear()
        finally:
            seconds = self.stats.seconds
            seconds["engine"] = seconds.get("engine", 0.0) + time.perf_counter() - began
            with self._changed:
                self._driving = False
                self._changed.notify_all()

    def _next(self) -> str | None:
        """Take in the request that has waited longest; None if there is none, or no room."""
        with self._changed:
            if not self._waiting or len(self._running) >= self.max_requests:
                return None
            self._count += 1
            name = f"paravt-{self._count}"
            self._running[name] = self._waiting.popleft()
            return name

    def _finish(self, name: str, drawn: list[Generated]) -> None:
        ticket, place = self._running.pop(name)
        ticket.results[place] = ticket.prompts[place].share(drawn)
        self.stats.tokens_sampled += sum(len(one.ids) for one in drawn)
        with self._changed:
            ticket.left -= 1
            self._changed.notify_all()
