"""Two evaluations of the same tasks, row by row: what changed, and whether it may be chance.

After `train.evaluation.evaluate`: `paravt compare A B` reads two reports, or folders that hold one,
and pairs their rows by task and frame budget. Videos, each with all its tasks, are resampled, so
what is common to both cancels. Tests: `pytest tests/evaluation/test_evaluate_command.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from train.common.errors import ConfigError
from train.evaluation.bootstrap import Interval
from train.evaluation.row import EvalRow
from train.evaluation.scores import BREAKDOWNS, EvalReport, mean, paired_difference

OTHERS: dict[str, Callable[[EvalRow], float]] = {
    "format compliance": lambda row: float(row.compliant),
    "tool rate": lambda row: float(row.called),
    "calls": lambda row: float(row.calls),
    "frames seen": lambda row: float(row.frames_seen),
    "errors": lambda row: float(bool(row.error)),
}
"""What is compared besides the score."""


@dataclass(frozen=True)
class Part:
    """Mean score of the first and the second evaluation over some rows, and their difference."""

    first: float
    second: float
    difference: Interval


@dataclass(frozen=True)
class Comparison:
    """Second minus first.

    Attributes:
        first: Name of the first evaluation.
        second: Name of the second.
        parts: Scores over all rows, and over those of a kind, category and so on.
        others: Differences of other quantities over all rows.
        better: Rows with a higher score in the second.
        worse: Rows with a lower one.
        equal: The other rows.
    """

    first: str
    second: str
    parts: dict[str, Part]
    others: dict[str, Interval]
    better: int
    worse: int
    equal: int

    def summary(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def find_report(place: Path) -> Path:
    """The report at a path: the file itself, or `after.json` of a folder.

    Raises:
        ConfigError: There is none.
    """
    path = place / "after.json" if place.is_dir() else place
    if not path.is_file():
        raise ConfigError(f"{place} holds no after.json: run `paravt eval` or `paravt merge` first")
    return path


def shared(first: EvalReport, second: EvalReport) -> tuple[EvalReport, EvalReport, int]:
    """Both evaluations with the samples that they share alone, and how many were left out.

    Raises:
        ConfigError: They share none.
    """
    both = set(map(_sample, first.rows)) & set(map(_sample, second.rows))
    if not both:
        raise ConfigError("the two evaluations share no task with the same number of frames")
    parts = [
        replace(report, rows=tuple(row for row in report.rows if _sample(row) in both))
        for report in (first, second)
    ]
    left_out = len(first.rows) + len(second.rows) - 2 * len(both)
    return parts[0], parts[1], left_out


def compare(first: EvalReport, second: EvalReport, names: tuple[str, str]) -> Comparison:
    """Pair the rows of two evaluations.

    Raises:
        ConfigError: They did not ask the same tasks at the same frame budgets.
    """
    try:
        parts = {"all": _part(first, second, lambda row: True)}
        for breakdown in BREAKDOWNS:
            keys = list(second.groups(breakdown))
            for key in keys if len(keys) > 1 else []:
                name = f"K = {key}" if breakdown == "frame_budget" else f"{breakdown} {key}"
                members = {_sample(row) for row in second.rows if getattr(row, breakdown) == key}
                parts[name] = _part(first, second, lambda row, m=members: _sample(row) in m)  # type: ignore[misc]
        others = {name: paired_difference(first, second, value) for name, value in OTHERS.items()}
    except ValueError as error:
        raise ConfigError(str(error)) from error
    before = {_sample(row): row.score for row in first.rows}
    gains = [row.score - before[_sample(row)] for row in second.rows]
    better, worse = sum(gain > 0 for gain in gains), sum(gain < 0 for gain in gains)
    return Comparison(*names, parts, others, better, worse, len(gains) - better - worse)


def _sample(row: EvalRow) -> tuple[str, int]:
    return row.task_id, row.frame_budget


def _part(first: EvalReport, second: EvalReport, where: Callable[[EvalRow], bool]) -> Part:
    before, after = (
        mean(row.score for row in report.rows if where(row)) for report in (first, second)
    )
    return Part(before, after, paired_difference(first, second, where=where))
