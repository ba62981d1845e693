"""A study as a table and a figure: what each arm ended with, which goals hold, the way there.

Last stop of a study: reads what the runs left in the cells' folders (`train.lab.study.results`).
Every number stands with its interval over seeds and videos and with the range of its seeds
(`train.lab.study.statistics`); the goals below the table are judged in `train.lab.study.goals`.
Written by `paravt study`; run the tests with `pytest tests/lab/test_study.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from paravt_env.common.files import write_whole
from train.evaluation.scores import mean
from train.lab.study.cells import Cell
from train.lab.study.goals import goals
from train.lab.study.phase import drift_lines, phase_figure, phase_table
from train.lab.study.results import Result, as_number, as_percent, as_points, results
from train.lab.study.settings import StudyConfig
from train.lab.study.statistics import average, calls, compliance, difference, score, tool_gap
from train.report.charts import SMOOTHING, grid, seeds_chart
from train.report.page import LOW_BUDGET, of_low_budget

CURVES = {
    "Accuracy (sampled, training tasks)": "accuracy",
    "Format compliance f": "compliance",
    "Calls per rollout κ": "calls",
}
GAP = "tng/K="
COLUMNS = 3
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
        cells = [r.title, str(len(r.sampled)), as_percent(average(r.greedy, score))]
        cells.append(as_percent(average(r.sampled, score)))
        if control is r:
            cells += ["", ""]
        else:
            cells += [control.arm, as_points(difference(r.sampled, control.sampled, score))]
        cells.append(as_number(average(r.sampled, compliance)))
        cells.append(as_number(average(r.sampled, calls)))
        cells.append(as_number(average(r.sampled, calls, of_low_budget)))
        cells += [as_number(tool_gap(r.sampled, budget), "+.2f") for budget in budgets]
        lines.append(cells)
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


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
    drawn = figure(study, found)
    if study.grid is not None:
        text = phase_table(study.grid, found) + drift_lines(study.grid, found) + "\n" + text
        drawn = phase_figure(study.grid, found)
    paths = folder / "table.md", folder / "figure.svg"
    for path, content in zip(paths, (text, drawn), strict=True):
        write_whole(path, content)
    return *paths, text
