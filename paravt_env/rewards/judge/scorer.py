"""The LLM judge: a scorer that supplies the answer term's value for open answers.

It asks an OpenAI-style endpoint whether a prediction means the same as the gold answer, and accepts
nothing but a structured verdict. A recipe holds it as plain data, `reward={"preset": "longvt",
"judge": {"url": "http://localhost:8000/v1", "model": "..."}}`. When it fails, the episode is masked
out and counted (`ScorerError`); no other metric takes its place. Tests: `pytest
tests/rewards/test_judge.py`.
"""

from __future__ import annotations

import json
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from paravt_env.common.http.endpoint import EndpointError, Reply, chat
from paravt_env.rewards.judge.grading import Verdict, read_verdict, request
from paravt_env.rewards.judge.settings import LONGEST_PAUSE, JudgeSettings
from paravt_env.rewards.terms.answer import score_answer, tokens
from paravt_env.rewards.terms.base import ScorerError
from paravt_env.task import Task

CACHED_VERDICTS = 10_000


@dataclass
class JudgeUsage:
    """Totals since the judge was made."""

    judged: int = 0
    """Answers that were sent to the model; exact matches and repeated answers are not."""
    requests: int = 0
    """Requests, retries included."""
    failures: int = 0
    """Answers that got no verdict."""
    repeated: int = 0
    """Answers that took the verdict of an equal one."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0
    """By the prices of the settings; 0 without prices."""
    seconds: float = 0.0
    """Time spent on all answers, summed over threads."""


class LLMJudge:
    """Scores open answers with a language model; a callable `scorer(task, answer)`.

    Task kinds outside `settings.kinds` have a metric of their own (letter, temporal IoU) and keep
    it. An answer that equals the gold one (normalised exact match) is 1 without a request, as
    published. Equal answers to one question share one verdict; failures are never kept.

    Raises:
        ValueError: The settings name an environment variable for the key that is not set.
    """

    def __init__(
        self, settings: JudgeSettings, pause: Callable[[float], None] = time.sleep
    ) -> None:
        self.settings = settings
        self.usage = JudgeUsage()
        self._pause = pause
        self._key = settings.key()
        self._lock = threading.Lock()
        self._verdicts: OrderedDict[tuple[str, ...], Future[Verdict]] = OrderedDict()

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy in another process starts with the settings alone."""
        return LLMJudge, (self.settings,)

    def __call__(self, task: Task, answer: str) -> float:
        """Value of an answer in [0, 1].

        Raises:
            ScorerError: No verdict after all retries.
        """
        if task.kind not in self.settings.kinds:
            return score_answer(task, answer)
        if tokens(answer) == tokens(task.answer):
            return 1.0
        key = (task.id, task.prompt, task.answer, answer)
        with self._lock:
            known = self._verdicts.get(key)
            mine = self._verdicts.setdefault(key, Future())
            self.usage.repeated += known is not None
            if len(self._verdicts) > CACHED_VERDICTS:
                self._verdicts.popitem(last=False)
        if known is None:
            try:
                mine.set_result(self._judge(task, answer))
            except BaseException as error:
                with self._lock:
                    self._verdicts.pop(key, None)
                mine.set_exception(error)
        return mine.result().value

    def _judge(self, task: Task, answer: str) -> Verdict:
        """Ask until there is a verdict or no attempt is left; log either."""
        settings, began = self.settings, time.monotonic()
        body = request(settings, task, answer)
        replies: list[Reply] = []
        verdict, problem, requests, asked = None, "", 0, 0.0
        for pause in [0.0, *settings.pauses()]:
            self._pause(max(pause, min(asked, LONGEST_PAUSE)))
            requests, asked = requests + 1, 0.0
            try:
                reply = chat(settings.url, body, self._key, settings.timeout)
                replies.append(reply)
                verdict = read_verdict(reply.content)
                break
            except EndpointError as error:
                problem, asked = str(error), error.retry_after
                if not error.temporary:
                    break
            except ValueError as error:
                problem = str(error)
        seconds = time.monotonic() - began
        self._record(task, answer, verdict, problem, requests, replies, seconds)
        if verdict is None:
            raise ScorerError(
                f"task {task.id!r}: no verdict from {settings.model} at {settings.url} after "
                f"{requests} requests: {problem}"
            )
        return verdict

    def _record(
        self,
        task: Task,
        answer: str,
        verdict: Verdict | None,
        problem: str,
        requests: int,
        replies: list[Reply],
        seconds: float,
    ) -> None:
        sent = sum(reply.prompt_tokens for reply in replies)
        drawn = sum(reply.completion_tokens for reply in replies)
        cost = (sent * self.settings.prompt_price + drawn * self.settings.completion_price) / 1e6
        line = {
            "task_id": task.id,
            "gold": task.answer,
            "answer": answer,
            "value": None if verdict is None else verdict.value,
            "reason": "" if verdict is None else verdict.reason,
            "error": problem if verdict is None else "",
            "requests": requests,
            "prompt_tokens": sent,
            "completion_tokens": drawn,
            "cost": cost,
            "seconds": round(seconds, 3),
        }
        with self._lock:
            usage = self.usage
            usage.judged += 1
            usage.requests += requests
            usage.failures += verdict is None
            usage.prompt_tokens += sent
            usage.completion_tokens += drawn
            usage.cost += cost
            usage.seconds += seconds
            if self.settings.log:
                path = Path(self.settings.log)
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(line) + "\n")

    def totals(self) -> dict[str, float]:
        """The counters of `usage` as metrics, each named `judge/...`."""
        with self._lock:
            return {f"judge/{name}": float(value) for name, value in asdict(self.usage).items()}
