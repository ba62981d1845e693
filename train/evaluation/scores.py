"""What an evaluation leaves behind: its rows, means with intervals, all saved as JSON.

Written by `train.evaluation.evaluate`, shown by `train.report.page`, printed by `paravt eval`. A
row is `train.evaluation.row.EvalRow`. Run the tests with `pytest tests/evaluation/test_scores.py`.
"""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from paravt_env.common.files import write_whole
from train.common.errors import ConfigError
from train.evaluation.bootstrap import Interval, interval, macro_interval, video_clusters
from train.evaluation.row import EvalRow

BREAKDOWNS = ("family", "category", "kind", "frame_budget", "duration_group")
"""Fields of a row that accuracy is broken down by."""
RECALL_AT = (0.3, 0.5, 0.7)
"""Temporal IoU from which a grounding answer counts as found, for R@0.3 and so on."""


@dataclass(frozen=True)
class EvalReport:
    """All rows of an evaluation, and what they were made with.

    Attributes:
        blind_errors: Rows of the blind baseline that were not scored, by the kind of error.
        left_out: Rows of the set's files that are no tasks and so in no mean (`strict: false`), a
            line each.
    """

    rows: tuple[EvalRow, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    blind_errors: Mapping[str, int] = field(default_factory=dict)
    left_out: Sequence[str] = ()

    def accuracy(self, rows: Sequence[EvalRow] | None = None) -> Interval:
        """Mean score with its bootstrap interval."""
        return self.interval(self.rows if rows is None else rows, lambda row: row.score)

    def interval(self, rows: Sequence[EvalRow], value: Callable[[EvalRow], float]) -> Interval:
        """Mean of `value` over `rows` with its bootstrap interval over their videos."""
        return interval([value(row) for row in rows], _clusters(rows), **self.resampling)

    def groups(self, breakdown: str) -> dict[Any, list[EvalRow]]:
        """Rows by the value of one of `BREAKDOWNS`, in order of the value."""
        found: dict[Any, list[EvalRow]] = defaultdict(list)
        for row in self.rows:
            found[getattr(row, breakdown)].append(row)
        return dict(sorted(found.items()))

    @property
    def errors(self) -> Counter[str]:
        """Rows that were not scored, by the kind of error."""
        return Counter(row.error_kind for row in self.rows if row.error)

    @property
    def failed(self) -> bool:
        """Whether a row, or a row of the blind baseline, was not scored."""
        return bool(self.errors or self.blind_errors)

    def summary(self) -> dict[str, Any]:
        """Accuracy, majority, compliance and calls; overall and broken down. Plain data."""
        parts = {
            breakdown: {str(key): self._part(rows) for key, rows in self.groups(breakdown).items()}
            for breakdown in BREAKDOWNS
        }
        return {
            "overall": self._part(self.rows),
            **parts,
            "macro": asdict(self.macro()),
            "grounding": {name: asdict(item) for name, item in self.grounding().items()},
            "errors": dict(self.errors),
            "blind_errors": dict(self.blind_errors),
            "left_out": len(self.left_out),
        }

    def macro(self, breakdown: str = "category") -> Interval:
        """Mean of the categories' accuracies (MLVU's M-Avg); `accuracy` is the micro mean."""
        tasks = [row.task_id for row in self.rows]
        cluster_of = dict(zip(tasks, _clusters(self.rows), strict=True))
        groups = {
            str(key): ([row.score for row in rows], [cluster_of[row.task_id] for row in rows])
            for key, rows in self.groups(breakdown).items()
        }
        return macro_interval(groups, **self.resampling)

    def grounding(self) -> dict[str, Interval]:
        """`mIoU` and `R@0.3`, `R@0.5`, `R@0.7` of the grounding rows; empty without such rows.

        An answer that names no span, or none at all, has IoU 0 and stays in the denominator.
        """
        rows = [row for row in self.rows if row.span_iou is not None]
        if not rows:
            return {}
        found = {
            f"R@{least}": self.interval(rows, lambda row, least=least: float(_iou(row) >= least))  # type: ignore[misc]
            for least in RECALL_AT
        }
        return {"mIoU": self.interval(rows, _iou), **found}

    def _part(self, rows: Sequence[EvalRow]) -> dict[str, Any]:
        recall = [row.evidence_recall for row in rows if row.evidence_recall is not None]
        blind = [row.blind for row in rows if row.blind is not None]
        return {
            "accuracy": asdict(self.accuracy(rows)),
            "majority": mean(row.majority for row in rows),
            "compliance": mean(row.compliant for row in rows),
            "untagged": sum(row.untagged for row in rows),
            "lapses": _sums(row.lapses for row in rows),
            "tool_rate": mean(row.called for row in rows),
            "calls": mean(row.calls for row in rows),
            "executed": mean(row.executed for row in rows),
            "frames_seen": mean(row.frames_seen for row in rows),
            "evidence_recall": mean(recall) if recall else None,
            "blind": mean(blind) if len(blind) == len(rows) else None,
            "usage": _mean_usage(rows),
            "errors": sum(bool(row.error) for row in rows),
        }

    @property
    def resampling(self) -> dict[str, Any]:
        """The settings of every interval."""
        return {k: v for k, v in self.settings.items() if k in ("resamples", "confidence", "seed")}

    def save(self, path: Path) -> None:
        """Write rows, settings and summary as JSON, atomically."""
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = [row.as_json() for row in self.rows]
        content = {**vars(self), "rows": rows, "summary": self.summary()}
        write_whole(path, json.dumps(content, indent=1, allow_nan=False))

    @classmethod
    def load(cls, path: Path) -> EvalReport:
        """Read what `save` wrote.

        Raises:
            ConfigError: The file holds something else.
        """
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            rows = tuple(EvalRow.from_json(row) for row in content["rows"])
            blind_errors = content.get("blind_errors", {})
            left_out = tuple(content.get("left_out", ()))
            return cls(rows, content["settings"], content["seconds"], blind_errors, left_out)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ConfigError(
                f"{path} is no report of an evaluation ({type(error).__name__}: {error}): make it "
                "again with `paravt eval` or `paravt merge`"
            ) from error


def with_blind(report: EvalReport, blind: EvalReport) -> EvalReport:
    """The report with the score of each task's blind row beside every row of that task.

    The errors of the blind rows come along: they count as wrong answers there.

    Raises:
        ConfigError: A task was not played blind.
    """
    scores = {row.task_id: row.score for row in blind.rows}
    missing = sorted({row.task_id for row in report.rows} - scores.keys())
    if missing:
        raise ConfigError(f"{len(missing)} tasks have no blind row, such as {missing[0]!r}")
    rows = tuple(replace(row, blind=scores[row.task_id]) for row in report.rows)
    return replace(report, rows=rows, blind_errors=dict(blind.errors))


def _clusters(rows: Sequence[EvalRow]) -> list[str]:
    """What each row is resampled with."""
    return video_clusters([row.task_id for row in rows], [row.video for row in rows])


def _iou(row: EvalRow) -> float:
    return row.span_iou or 0.0


def _mean_usage(rows: Sequence[EvalRow]) -> dict[str, float]:
    """Mean over the rows whose agent says so, for each thing that it measures."""
    names = dict.fromkeys(name for row in rows for name in row.usage)
    return {name: mean(row.usage[name] for row in rows if name in row.usage) for name in names}


def _sums(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Totals by name."""
    return dict(sum(map(Counter, counts), Counter()))


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
    """Mean of `value` after minus before, over the same tasks and budgets; bootstrap over videos.

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
        _clusters([second[key] for key in first]),
        **after.resampling,
    )
