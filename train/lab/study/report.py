"""A study as a table and a figure: what each arm ended with, which goals hold, the way there.

Reads what `train.lab.study.study` left in the cells' folders. Every number stands with its interval
over seeds and videos and with the range of its seeds (`train.lab.study.statistics`). Written by
`paravt study`; run the tests with `pytest tests/lab/test_study.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paravt_env.common.files import write_whole
from train.common.metrics_file import read_metrics
from train.evaluation.scores import EvalReport, mean
from train.lab.study.statistics import (
    Estimate,
    Value,
    Where,
    average,
    calls,
    compliance,
    difference,
    everywhere,
    score,
    tool_gap,
)
from train.lab.study.study import GREEDY, SAMPLED, Cell, Goal, Measure, StudyConfig
from train.report.charts import SMOOTHING, grid, seeds_chart
from train.report.page import LOW_BUDGET, of_low_budget
from train.report.tables import in_percent, in_points

CURVES = {
    "Accuracy (sampled, training tasks)": "accuracy",
    "Format compliance f": "compliance",
    "Calls per rollout κ": "calls",
}
GAP = "tng/K="
COLUMNS = 3
MEASURES: Mapping[Measure, tuple[str, Value, Where]] = {
    "greedy_accuracy": ("accuracy (greedy)", score, everywhere),
    "accuracy": ("accuracy (sampled)", score, everywhere),
    "f": ("f (sampled)", compliance, everywhere),
    "calls": ("κ (sampled)", calls, everywhere),
    "low_calls": (f"κ at K ≤ {LOW_BUDGET} (sampled)", calls, of_low_budget),
}
"""What goals are about: how it is written, a row's value, and which rows count."""
WAY = {"f": "compliance", "calls": "calls", "calls that ran": "executed_calls"}
"""Columns of the way there, and their names in the log."""
ENDS = 5
"""Steps at either end of a training whose means the way there shows."""
NOTE = """
Brackets are 95 % bootstrap intervals; seeds and videos, each with all its questions, are both drawn
with replacement, the videos of two arms together, their seeds apart. Beside them stands the range
of the seeds (of a difference: of all pairs), as an interval over few seeds is still too narrow; an
interval of one seed, without a range, is over videos alone and says nothing of other seeds. Seeds
of arms without training are samplings of one policy. Differences whose interval excludes zero are
bold. TNG(K) leaves out rows that could not be scored. Empty rows have not been run.
"""


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


def table(study: StudyConfig, found: Sequence[Result]) -> str:
    """The study in Markdown: accuracy, compliance, calls, TNG(K); differences to the controls."""
    budgets = sorted({row.frame_budget for r in found for e in r.sampled for row in e.rows})
    by_arm = {r.arm: r for r in found}
    heads = ["arm", "seeds", "accuracy (greedy)", "accuracy (sampled)", "control"]
    heads += ["minus control (sampled)", "f (sampled)", "κ (sampled)"]
    heads.append(f"κ, K ≤ {LOW_BUDGET} (sampled)")
    heads += [f"TNG({budget})" for budget in budgets]
    lines = [heads, ["---"] * len(heads)]
    for r in found:
        if not r.sampled:
            lines.append([r.title, *[""] * (len(heads) - 1)])
            continue
        control = by_arm.get(study.arms[r.arm].control or study.baseline, r)
        cells = [r.title, str(len(r.sampled)), _percent(average(r.greedy, score))]
        cells.append(_percent(average(r.sampled, score)))
        if control is r:
            cells += ["", ""]
        else:
            cells += [control.arm, _points(difference(r.sampled, control.sampled, score))]
        cells.append(_plain(average(r.sampled, compliance)))
        cells.append(_plain(average(r.sampled, calls)))
        cells.append(_plain(average(r.sampled, calls, of_low_budget)))
        cells += [_plain(tool_gap(r.sampled, budget), "+.2f") for budget in budgets]
        lines.append(cells)
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _percent(item: Estimate | None) -> str:
    return in_percent(item) + _seeds(item, lambda x: f"{100 * x:.0f}", "-") if item else ""


def _points(item: Estimate | None) -> str:
    if item is None:
        return ""
    mark = "**" if item.excludes_zero else ""
    return f"{mark}{in_points(item)}{mark}" + _seeds(item, lambda x: f"{100 * x:+.0f}", " to ")


def _plain(item: Estimate | None, form: str = ".2f") -> str:
    if item is None:
        return ""
    joint = " to " if "+" in form else "-"
    numbers = f"{item.mean:{form}} [{item.low:{form}}, {item.high:{form}}]"
    return numbers + _seeds(item, lambda x: f"{x:{form}}", joint)


def _seeds(item: Estimate, written: Callable[[float], str], joint: str) -> str:
    if item.spread is None:
        return ""
    return f" (seeds {joint.join(map(written, item.spread))})"


def way_there(found: Sequence[Result]) -> str:
    """The first and the last steps of training in Markdown, a line for each trained arm."""
    trained = [r for r in found if any(r.steps)]
    if not trained:
        return ""
    lines = [["arm", "seeds", "steps", *WAY], ["---"] * (3 + len(WAY))]
    for r in trained:
        cells = [r.title, str(len(r.steps)), str(max(map(len, r.steps)))]
        for key in WAY.values():
            curves = [[value for _, value in curve] for curve in _curves(r, key) if curve]
            ends = [mean(mean(end) for end in part) for part in _ends(curves) if part]
            cells.append(" -> ".join(f"{end:.2f}" for end in ends))
        lines.append(cells)
    said = (
        f"The way there: means over seeds of the first and of the last {ENDS} training steps, on "
        "training tasks, sampled"
    )
    return f"\n{said}\n\n" + "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _ends(curves: Sequence[Sequence[float]]) -> tuple[list[Sequence[float]], ...]:
    return [curve[:ENDS] for curve in curves], [curve[-ENDS:] for curve in curves]


def goals(study: StudyConfig, found: Sequence[Result]) -> str:
    """What the study's arms are to reach, measured: one line each, with yes or no."""
    if not study.goals:
        return ""
    by_arm = {r.arm: r for r in found if r.sampled}
    return "\nGoals\n\n" + "".join(f"- {_goal(goal, by_arm)}\n" for goal in study.goals)


def _goal(goal: Goal, by_arm: Mapping[str, Result]) -> str:
    """What is asked of an arm and what was measured; or which arm has not been run."""
    said, value, where = MEASURES[goal.measure]
    claim = f"{goal.title}: " if goal.title else ""
    if goal.least:
        asked = f"{said} of {goal.arm}, at least {goal.least:g} times {goal.beside}"
    else:
        above = "above zero" if goal.rises else "not above zero"
        asked = f"{said} of {goal.arm} minus {goal.beside}, interval {above}"
    missing = [name for name in (goal.arm, goal.beside) if name not in by_arm]
    if missing:
        return f"{claim}{asked}: not measured, run {', '.join(missing)}"
    kind = "greedy" if goal.measure == "greedy_accuracy" else "sampled"
    ours, theirs = (getattr(by_arm[name], kind) for name in (goal.arm, goal.beside))
    if goal.least:
        means = average(ours, value, where), average(theirs, value, where)
        return f"{claim}{asked}: {_judged(*means, goal.least)}"
    gap = difference(ours, theirs, value, where)
    if gap is None:
        return f"{claim}{asked}: not measured"
    written = _points(gap) if value is score else _plain(gap, "+.2f")
    return f"{claim}{asked}: {written}: {_yes((gap.low > 0) == goal.rises)}"


def _judged(ours: Estimate | None, theirs: Estimate | None, least: float) -> str:
    """Whether the first mean is above zero, and at least a multiple of the second."""
    if ours is None or theirs is None:
        return "not measured"
    times = f" = {ours.mean / theirs.mean:.2f}" if theirs.mean else ""
    reached = ours.mean > 0 and ours.mean >= least * theirs.mean
    return f"{ours.mean:.3f} / {theirs.mean:.3f}{times}: {_yes(reached)}"


def _yes(reached: bool) -> str:
    return "yes" if reached else "no"


def figure(study: StudyConfig, found: Sequence[Result]) -> str:
    """The curves of training as one SVG, a line for each arm: the main arms, then the others.

    Bands are the range of the seeds: a step logs means and no rows, so that nothing but the seeds
    could be resampled, and these are few.
    """
    trained = [r for r in found if any(r.steps)]
    parts = [[r for r in trained if (r.arm in study.main) == main] for main in (True, False)]
    charts = []
    for part, title in zip(parts, ("", ", other arms"), strict=True):
        curves = {f"{said}{title}": key for said, key in CURVES.items()}
        curves |= {f"Tool Necessity Gap at K = {k}{title}": f"{GAP}{k}" for k in _budgets(part)}
        drawn = [
            seeds_chart(said, {r.arm: _curves(r, key) for r in part})
            for said, key in curves.items()
        ]
        charts += [*drawn, *[""] * (-len(drawn) % COLUMNS)] if any(drawn) else []
    note = (
        f"Lines: mean over seeds of the mean of the last {SMOOTHING} steps. Bands: least to most "
        "of the seeds; logged means leave nothing else to resample. No gap where all called, or "
        "none."
    )
    return grid(charts, COLUMNS, note)


def _curves(result: Result, key: str) -> list[list[tuple[float, float]]]:
    """What each seed logged under a name: (steps finished, value)."""
    return [
        [(step["step"] + 1, step[key]) for step in steps if step.get(key) is not None]
        for steps in result.steps
    ]


def _budgets(part: Sequence[Result]) -> list[int]:
    """The K at which a Tool Necessity Gap was logged."""
    names = {name for r in part for steps in r.steps for step in steps for name in step}
    return sorted(int(name.removeprefix(GAP)) for name in names if name.startswith(GAP))


def write(study: StudyConfig, cells: Sequence[Cell], folder: Path) -> tuple[Path, Path, str]:
    """Write `table.md` and `figure.svg`; returns their paths and the table with all below."""
    found = results(study, cells)
    text = table(study, found) + NOTE + way_there(found) + goals(study, found)
    paths = folder / "table.md", folder / "figure.svg"
    for path, content in zip(paths, (text, figure(study, found)), strict=True):
        write_whole(path, content)
    return *paths, text
