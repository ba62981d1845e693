"""What the arms of a study measured, read from the cells' folders, and its numbers as text.

Between the folders that `train.lab.study.cells` fills and the table, the goals and the figure that
are made of them (`train.lab.study.report`, `train.lab.study.goals`). Tests: `pytest
tests/lab/test_study.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from train.common.metrics_file import read_metrics
from train.evaluation.scores import EvalReport
from train.lab.study.cells import GREEDY, SAMPLED, Cell
from train.lab.study.settings import StudyConfig
from train.lab.study.statistics import Estimate
from train.report.tables import in_percent, in_points


@dataclass(frozen=True)
class Result:
    """What the seeds of one arm measured; nothing where it was not run."""

    arm: str
    title: str
    greedy: tuple[EvalReport, ...] = ()
    sampled: tuple[EvalReport, ...] = ()
    steps: tuple[list[dict[str, Any]], ...] = ()


def results(study: StudyConfig, cells: Sequence[Cell]) -> list[Result]:
    """All arms in the study's order, each with its finished seeds."""
    found = []
    for name, arm in study.arms.items():
        here = [cell for cell in cells if cell.arm == name and cell.done]
        greedy, sampled = (
            tuple(EvalReport.load(c.folder / file) for c in here if (c.folder / file).is_file())
            for file in (GREEDY, SAMPLED)
        )
        steps = tuple(read_metrics(cell.folder) for cell in here)
        found.append(Result(name, arm.title or name, greedy, sampled, steps))
    return found


def as_percent(item: Estimate | None) -> str:
    """A share with its interval and the range of its seeds, in percent; "" of nothing."""
    return in_percent(item) + _seeds(item, lambda x: f"{100 * x:.0f}", "-") if item else ""


def as_points(item: Estimate | None) -> str:
    """A difference of shares in points, bold where its interval excludes zero; "" of nothing."""
    if item is None:
        return ""
    mark = "**" if item.excludes_zero else ""
    return f"{mark}{in_points(item)}{mark}" + _seeds(item, lambda x: f"{100 * x:+.0f}", " to ")


def as_number(item: Estimate | None, form: str = ".2f") -> str:
    """A mean with its interval and the range of its seeds, each written in `form`."""
    if item is None:
        return ""
    joint = " to " if "+" in form else "-"
    numbers = f"{item.mean:{form}} [{item.low:{form}}, {item.high:{form}}]"
    return numbers + _seeds(item, lambda x: f"{x:{form}}", joint)


def _seeds(item: Estimate, written: Callable[[float], str], joint: str) -> str:
    if item.spread is None:
        return ""
    return f" (seeds {joint.join(map(written, item.spread))})"
