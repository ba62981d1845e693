"""Evaluation: every task of a split is played, counted, and put beside a constant answer's score.

After the journey, by the code of training: the same vector environment, agent and `rollout.play`.
Every row stays in the denominator; a video that cannot be read is a wrong answer with an error
beside it, never an answer given blind. Run it with `paravt eval paragrpo_mini
--agent.checkpoint=FOLDER`.
"""

from __future__ import annotations

import json
import math
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from agents.base import Agent
from paravt_env.rewards.answer import score_answer
from paravt_env.task import Task, TaskSet
from paravt_env.vector import LongVideoVectorEnv
from train.bootstrap import Interval, interval
from train.rollout import Rollout, Start, play

if TYPE_CHECKING:
    from train.config import EvalConfig

BREAKDOWNS = ("family", "category", "kind", "frame_budget")
"""Fields of a row that accuracy is broken down by."""


@dataclass(frozen=True)
class EvalRow:
    """One task at one frame budget.

    Attributes:
        question: The prompt's question with its options; `gold` is the right answer, `evidence` its
            spans in seconds. score: Value of the answer term, 0 to 1; 0 where there was an error.
            majority: What the most frequent answer of the task's family scores here. calls: Calls
            attempted; `executed` of them ran, `parallel` is the most in one turn. evidence_recall:
            Part of the gold evidence that the crops cover; None without gold. error: Why nothing
            was scored, "" where it was. turns: What was said and cropped, for the report.
    """

    task_id: str
    video: str
    family: str
    category: str
    kind: str
    frame_budget: int
    question: str
    gold: str
    evidence: tuple[tuple[float, float], ...]
    score: float
    majority: float
    reward: float
    compliant: bool
    calls: int
    executed: int
    parallel: int
    frames_seen: int
    evidence_recall: float | None
    stop_reason: str
    answer: str
    error: str
    turns: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True)
class EvalReport:
    """All rows of an evaluation, and what they were made with."""

    rows: tuple[EvalRow, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0

    def accuracy(self, rows: Sequence[EvalRow] | None = None) -> Interval:
        """Mean score with its bootstrap interval."""
        return self.interval(self.rows if rows is None else rows, lambda row: row.score)

    def interval(self, rows: Sequence[EvalRow], value: Callable[[EvalRow], float]) -> Interval:
        """Mean of `value` over `rows` with its bootstrap interval over their tasks."""
        return interval(
            [value(row) for row in rows], [row.task_id for row in rows], **self._bootstrap()
        )

    def groups(self, breakdown: str) -> dict[Any, list[EvalRow]]:
        """Rows by the value of one of `BREAKDOWNS`, in order of the value."""
        found: dict[Any, list[EvalRow]] = defaultdict(list)
        for row in self.rows:
            found[getattr(row, breakdown)].append(row)
        return dict(sorted(found.items()))

    @property
    def errors(self) -> Counter[str]:
        """Rows that were not scored, by stop reason."""
        return Counter(row.stop_reason for row in self.rows if row.error)

    def summary(self) -> dict[str, Any]:
        """Accuracy, majority, compliance and calls; overall and broken down. Plain data."""
        parts = {
            breakdown: {str(key): self._part(rows) for key, rows in self.groups(breakdown).items()}
            for breakdown in BREAKDOWNS
        }
        return {"overall": self._part(self.rows), **parts, "errors": dict(self.errors)}

    def _part(self, rows: Sequence[EvalRow]) -> dict[str, Any]:
        recall = [row.evidence_recall for row in rows if row.evidence_recall is not None]
        return {
            "accuracy": asdict(self.accuracy(rows)),
            "majority": mean(row.majority for row in rows),
            "compliance": mean(row.compliant for row in rows),
            "calls": mean(row.calls for row in rows),
            "executed": mean(row.executed for row in rows),
            "frames_seen": mean(row.frames_seen for row in rows),
            "evidence_recall": mean(recall) if recall else None,
            "errors": sum(bool(row.error) for row in rows),
        }

    def _bootstrap(self) -> dict[str, Any]:
        return {k: v for k, v in self.settings.items() if k in ("resamples", "confidence", "seed")}

    def save(self, path: Path) -> None:
        """Write rows, settings and summary as JSON, atomically."""
        path.parent.mkdir(parents=True, exist_ok=True)
        content = {**asdict(self), "summary": self.summary()}
        draft = path.with_suffix(".tmp")
        draft.write_text(json.dumps(content, indent=1, allow_nan=False), encoding="utf-8")
        draft.replace(path)

    @classmethod
    def load(cls, path: Path) -> EvalReport:
        """Read what `save` wrote."""
        content = json.loads(path.read_text(encoding="utf-8"))
        for row in content["rows"]:
            row["evidence"] = tuple((start, end) for start, end in row["evidence"])
            row["turns"] = tuple(row["turns"])
        rows = tuple(EvalRow(**row) for row in content["rows"])
        return cls(rows, content["settings"], content["seconds"])


def mean(values: Iterable[float]) -> float:
    """Arithmetic mean of at least one value."""
    listed = [float(value) for value in values]
    return math.fsum(listed) / len(listed)


def paired_difference(
    before: EvalReport,
    after: EvalReport,
    value: Callable[[EvalRow], float] = lambda row: row.score,
    where: Callable[[EvalRow], bool] = lambda row: True,
) -> Interval:
    """Mean of `value` after minus before, over the same tasks and budgets; bootstrap over tasks.

    Raises:
        ValueError: The two evaluations did not ask the same tasks at the same budgets.
    """

    def keyed(report: EvalReport) -> dict[tuple[str, int], EvalRow]:
        return {(row.task_id, row.frame_budget): row for row in report.rows if where(row)}

    first, second = keyed(before), keyed(after)
    if first.keys() != second.keys():
        odd = sorted(first.keys() ^ second.keys())[:3]
        raise ValueError(f"evaluations of different tasks cannot be paired: {odd} in only one")
    return interval(
        [value(second[key]) - value(first[key]) for key in first],
        [task_id for task_id, _ in first],
        **after._bootstrap(),
    )


def plan(task_ids: Sequence[str], settings: EvalConfig) -> list[Start]:
    """Which task is asked at which frame budget; a pure function of the ids and the settings.

    Tasks and budgets are paired in a shuffled order, so that a data set that cycles through its
    question families does not always ask one family at one budget.
    """
    shuffled = np.random.default_rng(settings.seed).permutation(len(task_ids))
    budgets = settings.frame_budgets
    per_task = min(settings.budgets_per_task or len(budgets), len(budgets)) if budgets else 1
    starts = []
    for place, index in enumerate(shuffled[: settings.tasks]):
        for turn in range(per_task):
            budget = budgets[(place + turn) % len(budgets)] if budgets else None
            starts.append(Start(task_ids[int(index)], budget, settings.seed + int(index)))
    return sorted(starts, key=lambda start: (start.frame_budget or 0, start.task_id))


def evaluate(
    agent: Agent,
    env: LongVideoVectorEnv,
    tasks: TaskSet,
    settings: EvalConfig,
    progress: Callable[[int, int], None] | None = None,
) -> EvalReport:
    """Play the planned tasks and report every one of them.

    Args:
        agent: Acts; greedy or not is its own setting.
        env: Vector environment over `tasks`; its rows are filled batch by batch.
        tasks: The split under evaluation.
        settings: Tasks, budgets, seed and interval.
        progress: Called with (rows done, rows in all) after each batch.
    """
    began = time.monotonic()
    starts = plan(tasks.ids, settings)
    rows: list[EvalRow] = []
    best = majority_answers(tasks)
    for first in range(0, len(starts), env.num_envs):
        batch = starts[first : first + env.num_envs]
        rollouts = play(env, agent, batch)
        if [rollout.task_id for rollout in rollouts] != [start.task_id for start in batch]:
            raise RuntimeError(f"{len(batch)} starts came back as {len(rollouts)} other rollouts")
        rows += [
            _row(rollout, tasks.by_id(rollout.task_id), best, start)
            for rollout, start in zip(rollouts, batch, strict=True)
        ]
        if progress is not None:
            progress(len(rows), len(starts))
    return EvalReport(tuple(rows), asdict(settings), round(time.monotonic() - began, 3))


def _row(rollout: Rollout, task: Task, best: Mapping[str, str], start: Start) -> EvalRow:
    failed = bool(rollout.error)
    return EvalRow(
        task_id=task.id,
        video=task.video,
        family=task.family,
        category=task.category,
        kind=task.kind,
        frame_budget=rollout.frame_budget if start.frame_budget is None else start.frame_budget,
        question=task.prompt,
        gold=task.answer,
        evidence=task.evidence,
        score=0.0 if failed else float(rollout.correct),
        majority=score_answer(task, best[task.family]),
        reward=0.0 if failed else float(rollout.reward),
        compliant=bool(rollout.compliant) and not failed,
        calls=rollout.calls,
        executed=rollout.executed,
        parallel=rollout.parallel,
        frames_seen=rollout.frames_seen,
        evidence_recall=plain(rollout.evidence_recall),
        stop_reason=str(rollout.stop_reason),
        answer=rollout.answer,
        error=rollout.error,
        turns=tuple(plain(rollout.turns)),
    )


def majority_answers(tasks: TaskSet) -> dict[str, str]:
    """The most frequent gold answer of each family: the best that a blind, constant answer can do.

    The counts come from the evaluated tasks themselves, so the baseline is an upper bound.
    """
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for index in range(len(tasks)):
        counts[tasks[index].family][tasks[index].answer] += 1
    return {family: counted.most_common(1)[0][0] for family, counted in counts.items()}


def plain(value: Any) -> Any:
    """`value` as JSON can hold it: plain scalars, and None for a number that is not finite.

    >>> plain({"window": (np.float64("nan"), 2.0)})
    {'window': [None, 2.0]}
    """
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [plain(inner) for inner in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
