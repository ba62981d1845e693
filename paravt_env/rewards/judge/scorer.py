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

from paravt_env.common.http.client import RetryingClient, Usage
from paravt_env.common.http.endpoint import EndpointError
from paravt_env.rewards.judge.grading import Verdict, read_verdict, request
from paravt_env.rewards.judge.settings import JudgeSettings
from paravt_env.rewards.terms.answer import score_answer, tokens
from paravt_env.rewards.terms.base import ScorerError
from paravt_env.task import Task

CACHED_VERDICTS = 10_000


@dataclass
class JudgeUsage(Usage):
    """Totals since the judge was made; a failure is an answer that got no verdict."""

    judged: int = 0
    """Answers that were sent to the model; exact matches and repeated answers are not."""
    repeated: int = 0
    """Answers that took the verdict of an equal one."""
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
        self._client = RetryingClient(settings.url, settings, pause)
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
        settings, began, bill = self.settings, time.monotonic(), Usage()
        body = request(settings, task, answer)
        line: dict[str, Any] = {"task_id": task.id, "gold": task.answer, "answer": answer}
        line |= {"value": None, "reason": "", "error": ""}
        verdict = None
        try:
            verdict = self._client.ask(
                body, lambda reply: read_verdict(reply.content), bill, self.usage
            )
            line |= {"value": verdict.value, "reason": verdict.reason}
        except EndpointError as error:
            line["error"] = str(error)
        self._record(line, bill, time.monotonic() - began)
        if verdict is None:
            raise ScorerError(
                f"task {task.id!r}: no verdict from {settings.model} at {settings.url} after "
                f"{bill.requests} requests: {line['error']}"
            )
        return verdict

    def _record(self, line: dict[str, Any], bill: Usage, seconds: float) -> None:
        """Count an answer, and write its line of the log."""
        cost = {name: value for name, value in asdict(bill).items() if name != "failures"}
        line |= {**cost, "seconds": round(seconds, 3)}
        with self._lock:
            self.usage.judged += 1
            self.usage.seconds += seconds
            if self.settings.log:
                path = Path(self.settings.log)
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(line) + "\n")

    def totals(self) -> dict[str, float]:
        """The counters of `usage` as metrics, each named `judge/...`."""
        with self._lock:
            return {f"judge/{name}": float(value) for name, value in asdict(self.usage).items()}
