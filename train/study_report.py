"""A study as a table and a figure: what each arm ended with, which goals hold, the way there.

Reads what `train.study` left in the cells' folders. Every number stands with its interval over
seeds and tasks and with the range of its seeds (`train.study_statistics`). Written by `paravt
study`; run the tests with `pytest tests/test_study.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from train.charts import SMOOTHING, grid, seeds_chart
from train.metrics import read_metrics
from train.report import LOW_BUDGET, of_low_budget
from train.report_tables import in_percent, in_points
from train.scores import EvalReport
from train.study import GREEDY, SAMPLED, Cell, StudyConfig
from train.study_statistics import (
    Estimate,
    average,
    calls,
    compliance,
    difference,
    score,
    tool_gap,
)

CURVES = {
    "Accuracy (sampled, training tasks)": "accuracy",
    "Format compliance f": "compliance",
    "Calls per rollout κ": "calls",
}
GAP = "tng/K="
COLUMNS = 3
LEAST_COMPLIANCE, LEAST_CALLS = 0.9, 5.0
"""What a method must keep of its start's compliance, and its calls as a multiple of the
baseline's."""
NOTE = """
Brackets are 95 % bootstrap intervals; seeds and tasks are both drawn with replacement, the tasks of
two arms together, their seeds apart. Beside them stands the range of the seeds (of a difference: of
all pairs), as an interval over few seeds is still too narrow; an interval of one seed, without a
range, is over tasks alone and says nothing of other seeds. Seeds of arms without training are
samplings of one policy. Differences whose interval excludes zero are bold. TNG(K) leaves out rows
that could not be scored. Empty rows have not been run.
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
    heads += ["minus control (sampled)", "f (sampled)", f"κ, K ≤ {LOW_BUDGET} (sampled)"]
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


def goals(study: StudyConfig, found: Sequence[Result]) -> str:
    """What the study's method is to reach, measured: one line each, with yes or no.

    It is above the baseline in accuracy beyond the interval, keeps `LEAST_COMPLIANCE` of the
    compliance that it started with, and calls `LEAST_CALLS` times as often as the baseline where
    frames are few. The start is the arm that plays the method's start as it is.
    """
    if not study.method:
        return ""
    by_arm = {r.arm: r for r in found if r.sampled}
    lines = []
    for said, arms, measured in _goals(study, by_arm):
        missing = ", ".join(arm for arm in arms if arm not in by_arm)
        lines.append(f"- {said}: {measured or f'not measured, run {missing}'}\n")
    return "\nGoals\n\n" + "".join(lines)


def _goals(
    study: StudyConfig, by_arm: dict[str, Result]
) -> Iterator[tuple[str, tuple[str, str], str]]:
    """What is asked, of which arms, and what was measured; "" where one of them is missing."""
    method, base, start = study.method, study.baseline, _start_arm(study)
    nothing = Result("", "")
    ours, theirs, before = (by_arm.get(name, nothing) for name in (method, base, start))
    for kind, one, two in (
        ("greedy", ours.greedy, theirs.greedy),
        ("sampled", ours.sampled, theirs.sampled),
    ):
        gap = difference(one, two, score)
        said = f"accuracy ({kind}) of {method} minus {base}, interval above zero"
        yield said, (method, base), f"{_points(gap)}: {_yes(gap.low > 0)}" if gap else ""
    kept = _times(average(ours.sampled, compliance), average(before.sampled, compliance))
    said = f"f (sampled) of {method}, at least {LEAST_COMPLIANCE:g} of {start}"
    yield said, (method, start), _judged(kept, LEAST_COMPLIANCE)
    low = [average(arm.sampled, calls, of_low_budget) for arm in (ours, theirs)]
    said = f"κ at K ≤ {LOW_BUDGET} (sampled) of {method}, at least {LEAST_CALLS:g} times {base}"
    yield said, (method, base), _judged(_times(*low), LEAST_CALLS)


def _times(ours: Estimate | None, theirs: Estimate | None) -> tuple[float, float] | None:
    return (ours.mean, theirs.mean) if ours and theirs else None


def _judged(means: tuple[float, float] | None, least: float) -> str:
    """Whether the first mean is above zero, and at least a multiple of the second."""
    if means is None:
        return ""
    ours, theirs = means
    times = f" = {ours / theirs:.2f}" if theirs else ""
    return f"{ours:.3f} / {theirs:.3f}{times}: {_yes(ours > 0 and ours >= least * theirs)}"


def _yes(reached: bool) -> str:
    return "yes" if reached else "no"


def _start_arm(study: StudyConfig) -> str:
    """The arm that plays the method's start as it is."""
    start = study.arms[study.method].start
    for name, arm in study.arms.items():
        if arm.evaluate_only and arm.start == start and not arm.overrides:
            return name
    return f"an arm that plays the start {start!r}"


def figure(study: StudyConfig, found: Sequence[Result]) -> str:
    """The curves of training as one SVG, a line for each arm: the main arms, then the others."""
    trained = [r for r in found if any(r.steps)]
    parts = [[r for r in trained if (r.arm in study.main) == main] for main in (True, False)]
    charts = []
    for part, title in zip(parts, ("", ", other arms"), strict=True):
        curves = {f"{said}{title}": key for said, key in CURVES.items()}
        curves |= {f"Tool Necessity Gap at K = {k}{title}": f"{GAP}{k}" for k in _ends_of_k(part)}
        drawn = [
            seeds_chart(said, {r.arm: _curves(r, key) for r in part})
            for said, key in curves.items()
        ]
        charts += [*drawn, *[""] * (-len(drawn) % COLUMNS)] if any(drawn) else []
    note = (
        f"Lines: mean over seeds of the mean of the last {SMOOTHING} steps. Bands: least to most "
        "of the seeds. The gap has no value where every rollout called, or none."
    )
    return grid(charts, COLUMNS, note)


def _curves(result: Result, key: str) -> list[list[tuple[float, float]]]:
    """What each seed logged under a name: (steps finished, value)."""
    return [
        [(step["step"] + 1, step[key]) for step in steps if step.get(key) is not None]
        for steps in result.steps
    ]


def _ends_of_k(part: Sequence[Result]) -> list[int]:
    """The lowest and the highest K at which a Tool Necessity Gap was logged."""
    names = {name for r in part for steps in r.steps for step in steps for name in step}
    budgets = sorted(int(name.removeprefix(GAP)) for name in names if name.startswith(GAP))
    return sorted({*budgets[:1], *budgets[-1:]})


def write(study: StudyConfig, cells: Sequence[Cell], folder: Path) -> tuple[Path, Path, str]:
    """Write `table.md` and `figure.svg`; returns their paths and the table with its goals."""
    found = results(study, cells)
    text = table(study, found) + NOTE + goals(study, found)
    paths = folder / "table.md", folder / "figure.svg"
    for path, content in zip(paths, (text, figure(study, found)), strict=True):
        path.write_text(content, encoding="utf-8")
    return *paths, text
