"""Every request that was ever asked, in one file: asked once, counted, and never beyond the budget.

Under all steps of the data engine. A call is known by what was asked of whom, so that a run that
was killed resumes with its next request, and other settings ask only what they change. A line
is written for every call, with its reply as the model wrote it, or with what was wrong, and with
what it cost; a torn last line, all that a killed process can leave, is cut off. Tests: `pytest
tests/datagen/test_calls.py`.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from agents.chat.client import ChatClient, ChatRequest
from paravt_env.common.http.client import Usage
from paravt_env.common.http.endpoint import EndpointError
from paravt_env.common.http.replies import Reply
from train.common.errors import ConfigError
from train.common.lock import take
from train.datagen.refusal import BudgetSpent, Rejected

FILE = "calls.jsonl"
FINAL = ("", "refused", "nonsense")
"""What a call may have ended with that is not asked again; "" is a reply of use."""

T = TypeVar("T")


@dataclass(frozen=True)
class Call:
    """One request.

    Attributes:
        step: `caption`, `question`, `blind` or `solve`: for counting costs.
        film: Name of the video.
        about: Of the video: a clip, a category or a row.
        asked: What makes it another request: plain data.
        messages: Makes the messages, if the request must be sent.
        tokens: Of the reply at most.
        fields: Further fields of the request.
    """

    step: str
    film: str
    about: str
    asked: Mapping[str, Any]
    messages: Callable[[], Sequence[Mapping[str, Any]]]
    tokens: int
    fields: Mapping[str, Any]

    def key(self, server: ChatClient) -> str:
        """What the call is known by: 32 digits."""
        config = server.config
        known = {
            "model": config.model,
            "extra": config.extra,
            "tokens": self.tokens,
            "fields": dict(self.fields),
            "asked": dict(self.asked),
        }
        text = json.dumps(known, sort_keys=True)
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


class Calls:
    """The calls of a folder; safe from any thread, and for one process at a time.

    Args:
        path: The file; made if it is not there.
        max_cost: Largest cost of all calls in the file; 0 has no limit.
        max_tokens: The same for tokens, sent and sampled.
        ask_again: Whether calls that ended without a reply of use are asked again.

    Attributes:
        spent: Of all calls, by step.
        known: Names of the videos that the calls of earlier runs were about.
        over: Whether the budget kept a call from being asked.

    Raises:
        ConfigError: Another process has the file, or a line of it is not ours.
    """

    def __init__(
        self, path: Path, max_cost: float = 0.0, max_tokens: int = 0, ask_again: bool = False
    ) -> None:
        self.path, self.max_cost, self.max_tokens = path, max_cost, max_tokens
        self.spent: defaultdict[str, Usage] = defaultdict(Usage)
        self.known: set[str] = set()
        self.over = False
        self._lines: dict[str, dict[str, Any]] = {}
        self._lock = threading.Lock()
        self._gates: dict[int, threading.Semaphore] = {}
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            if not take(self._file, path):
                raise ConfigError(f"another process is making a set in {path.parent}")
            self._read()
        except BaseException:
            os.close(self._file)
            raise
        if ask_again:
            self._lines = {key: line for key, line in self._lines.items() if not line["kind"]}

    @property
    def total(self) -> Usage:
        """Of all calls."""
        total = Usage()
        with self._lock:
            for usage in self.spent.values():
                total.add(usage)
        return total

    def ask(self, server: ChatClient, call: Call, read: Callable[[str], T]) -> tuple[T, str]:
        """What `read` makes of the reply's text, and the call's key; asked only if it is not known.

        Args:
            server: Who is asked.
            call: What is asked.
            read: Raises `ValueError` where a text is not what was asked for; then it is asked for
                again, as often as the server's settings allow.

        Raises:
            Rejected: `no_reply`, `refused` or `nonsense`.
            BudgetSpent: The call is not known, and nothing more may be spent.
            OSError: The server is gone, or refuses the key, or does not know the model.
        ConfigError: There is a budget, and the server counts no tokens.
        """
        key = call.key(server)
        line = self._lines.get(key)
        if line is None:
            with self._gate(server):
                line = self._asked(server, call, key, read)
        if line["kind"]:
            raise Rejected(line["kind"], line["error"])
        try:
            return read(line["reply"]), key
        except ValueError as error:  # kept by a version that asked for something else
            raise Rejected("nonsense", str(error)) from error

    def close(self) -> None:
        """Write everything through to the disk and unlock the file."""
        os.fsync(self._file)
        os.close(self._file)

    def _asked(
        self, server: ChatClient, call: Call, key: str, read: Callable[[str], T]
    ) -> dict[str, Any]:
        if self._is_spent():
            self.over = True
            raise BudgetSpent(f"{call.film}, {call.about}: {call.step} is not asked")
        said = ""

        def checked(reply: Reply) -> str:
            nonlocal said
            said = reply.content
            read(said)
            return said

        bill = Usage()
        request = ChatRequest(call.messages(), call.tokens, bill, call.fields)
        answer = server.ask_one(request, checked)
        if server.gone:
            raise OSError(
                f"{server.config.base_url} did not reply, several times in a row ({answer}): the "
                "same command continues when it is there again"
            )
        line: dict[str, Any] = {
            "key": key,
            "step": call.step,
            "film": call.film,
            "about": call.about,
        }
        line["model"] = server.config.model
        if isinstance(answer, EndpointError):
            kind = "nonsense" if answer.unread else "no_reply" if answer.temporary else "refused"
            line |= {"kind": kind, "error": str(answer), "reply": said[:200]}
        else:
            line |= {"kind": "", "error": "", "reply": answer}
        self._add({**line, "usage": asdict(bill)})
        limited = self.max_tokens or (
            self.max_cost and (server.config.prompt_price or server.config.completion_price)
        )
        if limited and not line["kind"] and not bill.prompt_tokens + bill.completion_tokens:
            raise ConfigError(
                f"{server.config.base_url} does not say how many tokens a request took, so no "
                "budget can be kept: set max_cost and max_tokens to 0"
            )
        return line

    def _is_spent(self) -> bool:
        total = self.total
        tokens = total.prompt_tokens + total.completion_tokens
        return bool(
            (self.max_cost and total.cost >= self.max_cost)
            or (self.max_tokens and tokens >= self.max_tokens)
        )

    def _gate(self, server: ChatClient) -> threading.Semaphore:
        with self._lock:
            made = threading.Semaphore(server.config.concurrency)
            return self._gates.setdefault(id(server), made)

    def _add(self, line: dict[str, Any]) -> None:
        data = (json.dumps(line, allow_nan=False) + "\n").encode()
        with self._lock:
            self._remember(line)
            while data:
                data = data[os.write(self._file, data) :]

    def _remember(self, line: dict[str, Any]) -> None:
        self.spent[line["step"]].add(Usage(**line["usage"]))
        if line["kind"] in FINAL:
            self._lines[line["key"]] = line

    def _read(self) -> None:
        """Read the file and cut a torn last line off."""
        whole = 0
        wanted = {"key", "step", "film", "kind", "error", "reply", "usage"}
        counted = {field.name for field in fields(Usage)}
        with self.path.open("rb") as lines:
            for number, text in enumerate(lines, 1):
                if not text.endswith(b"\n"):
                    break
                whole += len(text)
                try:
                    line = json.loads(text)
                    ours = wanted <= line.keys() and line["usage"].keys() == counted
                except (ValueError, AttributeError):
                    ours = False
                if not ours:
                    raise ConfigError(
                        f"{self.path}, line {number}: not a call of ours: remove the line, or give "
                        "another --output"
                    )
                self.known.add(line["film"])
                self._remember(line)
        os.ftruncate(self._file, whole)
