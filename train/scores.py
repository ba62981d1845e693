"""What an evaluation leaves behind: a row for every task, means with intervals, saved as JSON.

Written by `train.evaluate`, drawn by `train.report`, printed by `paravt eval`. Run the tests with
`pytest tests/test_evaluate.py`.
"""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from train.bootstrap import Interval, interval

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
