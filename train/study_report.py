"""A study as one table and one figure: what each arm ended with, and how it got there.

Reads what `train.study` left in the cells' folders; pools an arm's seeds and resamples whole tasks,
so that the intervals are those of the test set and the seeds together. Written by `paravt study`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from train.bootstrap import Interval, interval
from train.charts import grid, line_chart
from train.metrics import read_metrics
from train.report import LOW_BUDGET, of_low_budget
from train.report_tables import in_percent, in_points
from train.scores import EvalReport, EvalRow, mean
from train.study import GREEDY, SAMPLED, Cell, StudyConfig

CURVES = {
    "Accuracy (sampled, training tasks)": "accuracy",
    "Format compliance f": "compliance",
    "Calls per rollout κ": "calls",
}


@dataclass(frozen=True)
class Result:
    """What the seeds of one arm measured."""

    arm: str
    title: str
    seeds: int
    greedy: tuple[EvalReport, ...]
    sampled: tuple[EvalReport, ...]
    steps: tuple[list[dict[str, Any]], ...]


def results(study: StudyConfig, cells: Sequence[Cell]) -> list[Result]:
    """The arms in the study's order, each with its finished seeds."""
    found = []
    for name, arm in study.arms.items():
        here = [cell for cell in cells if cell.arm == name and cell.done]
        if not here:
            continue
        greedy, sampled = (
            tuple(EvalReport.load(cell.folder / file) for cell in here)
            for file in (GREEDY, SAMPLED)
        )
        steps = tuple(read_metrics(cell.folder) for cell in here)
        found.append(Result(name, arm.title or name, len(here), greedy, sampled, steps))
    return found


def pooled(
    reports: Sequence[EvalReport],
    value: Callable[[EvalRow], float],
    where: Callable[[EvalRow], bool] = lambda row: True,
) -> Interval:
    """Mean of `value` over the seeds' rows, with its interval over tasks."""
    rows = [row for report in reports for row in report.rows if where(row)]
    return interval([value(row) for row in rows], [row.task_id for row in rows])


def difference(
    ours: Sequence[EvalReport], theirs: Sequence[EvalReport], value: Callable[[EvalRow], float]
) -> Interval:
    """Mean over seeds of one arm minus that of another, paired by task and frame budget.

    Raises:
        ValueError: The arms were evaluated on different tasks.
    """

    def means(reports: Sequence[EvalReport]) -> dict[tuple[str, int], float]:
        values: dict[tuple[str, int], list[float]] = {}
        for report in reports:
            for row in report.rows:
                values.setdefault((row.task_id, row.frame_budget), []).append(value(row))
        return {key: mean(found) for key, found in values.items()}

    first, second = means(ours), means(theirs)
    if first.keys() != second.keys():
        raise ValueError("the arms were evaluated on different tasks: run them with one setting")
    return interval([first[key] - second[key] for key in first], [task for task, _ in first])


def necessity_gap(reports: Sequence[EvalReport], budget: int) -> float:
    """TNG(K): accuracy of the rows that called minus that of the rows that did not; NaN if none."""
    rows = [row for report in reports for row in report.rows if row.frame_budget == budget]
    called = [row.score for row in rows if row.calls]
    skipped = [row.score for row in rows if not row.calls]
    return mean(called) - mean(skipped) if called and skipped else math.nan


def _score(row: EvalRow) -> float:
    return row.score


def table(study: StudyConfig, found: Sequence[Result]) -> str:
    """The study in Markdown: accuracy, compliance, calls, TNG(K); differences to the baseline."""
    budgets = sorted({row.frame_budget for r in found for e in r.sampled for row in e.rows})
    base = next((r for r in found if r.arm == study.baseline), None)
    heads = ["arm", "seeds", "accuracy (greedy)", "accuracy (sampled)"]
    heads += [f"minus {study.baseline} (sampled)"] if base else []
    heads += ["f (sampled)", f"κ, K ≤ {LOW_BUDGET} (sampled)"]
    heads += [f"TNG({budget})" for budget in budgets]
    lines = [heads, ["---"] * len(heads)]
    for r in found:
        cells = [r.title, str(r.seeds), in_percent(pooled(r.greedy, _score))]
        cells.append(in_percent(pooled(r.sampled, _score)))
        if base:
            other = "" if r is base else _points(difference(r.sampled, base.sampled, _score))
            cells.append(other)
        cells.append(_plain(pooled(r.sampled, lambda row: float(row.compliant))))
        cells.append(_plain(pooled(r.sampled, lambda row: float(row.calls), of_low_budget)))
        gaps = [necessity_gap(r.sampled, budget) for budget in budgets]
        cells += ["" if math.isnan(gap) else f"{gap:+.2f}" for gap in gaps]
        lines.append(cells)
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _points(item: Interval) -> str:
    mark = "**" if item.excludes_zero else ""
    return f"{mark}{in_points(item)}{mark}"


def _plain(item: Interval) -> str:
    return f"{item.mean:.2f} [{item.low:.2f}, {item.high:.2f}]"


def _curve(result: Result, key: str) -> list[tuple[float, float]]:
    """Mean over the seeds at every step that all of them logged."""
    by_step: dict[int, list[float]] = {}
    for steps in result.steps:
        for step in steps:
            if step.get(key) is not None:
                by_step.setdefault(step["step"] + 1, []).append(step[key])
    whole = {step: v for step, v in by_step.items() if len(v) == len(result.steps)}
    return [(step, mean(values)) for step, values in sorted(whole.items())]


def figure(found: Sequence[Result]) -> str:
    """The curves of training as one SVG, a line for each arm."""
    charts = [
        line_chart(title, {r.arm: _curve(r, key) for r in found}) for title, key in CURVES.items()
    ]
    return grid([chart for chart in charts if chart])


def write(study: StudyConfig, cells: Sequence[Cell], folder: Path) -> tuple[Path, Path, str]:
    """Write `table.md` and `figure.svg`; returns their paths and the table."""
    found = results(study, cells)
    text = table(study, found)
    paths = folder / "table.md", folder / "figure.svg"
    for path, content in zip(paths, (text, figure(found)), strict=True):
        path.write_text(content, encoding="utf-8")
    return *paths, text
