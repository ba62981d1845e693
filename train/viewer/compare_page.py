"""Two runs beside each other: curves over each other, the paired table, rows that flipped.

Tests: `pytest tests/viewer/test_compare.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from train.common.errors import ConfigError
from train.evaluation.bootstrap import Interval
from train.evaluation.compare import Comparison, compare, shared
from train.evaluation.row import EvalRow
from train.evaluation.scores import EvalReport
from train.report.charts import line_chart
from train.report.curves import CURVES, by_number
from train.report.tables import in_points
from train.viewer.listing import CORRECT_FROM
from train.viewer.page import anchor, document, select, verdict
from train.viewer.runs import Runs

COMPARE = "/compare"
OVERLAID = ("reward", "accuracy", "compliance", "calls", *CURVES, "time/step")
FAMILIES = ("reward/", "validation/", "accuracy/", "calls/", "tng/")
"""Metrics that are drawn over each other: these, and all whose names begin so."""
MOST_FLIPPED = 200


def compare_page(runs: Runs, first: str, second: str) -> str:
    """The page for two evaluations, each named `run` or `run:evaluation`; "" chooses none yet."""
    choices = {"": "(choose)"}
    for name in runs.folders():
        found = list(runs.evaluations(name))
        choices |= {f"{name}:{one}": f"{name}: {one}" for one in found}
        if not found:
            choices[f"{name}:"] = f"{name}: training alone"
    form = (
        f'<form class="filters" action="{COMPARE}">{select("a", "first", choices, first)}'
        f'{select("b", "second", choices, second)}<button class="main">Compare</button></form>'
    )
    parts = ["<h1>Compare</h1>", form]
    if first and second:
        parts += _compared(runs, _named(first), _named(second))
    return document("Compare", parts, here=COMPARE)


def _named(text: str) -> tuple[str, str]:
    """Run and evaluation; the last colon parts them, as names of runs may hold one."""
    name, colon, evaluation = text.rpartition(":")
    return (name, evaluation) if colon else (text, "")


def _compared(runs: Runs, first: tuple[str, str], second: tuple[str, str]) -> list[str]:
    names = [": ".join(filter(None, one)) for one in (first, second)]
    parts = []
    if first[1] and second[1]:
        reports = [runs.report(*first), runs.report(*second)]
        parts += _paired(first, second, names, reports)
    charts = ""
    if first[0] != second[0]:
        both = zip(names, (first, second), strict=True)
        charts = overlaid({name: runs.steps(one[0]) for name, one in both})
    if charts:
        parts += [f'<h2>Training</h2><div class="charts">{charts}</div>']
    return parts or ["<p class=soft>neither training nor evaluations to compare</p>"]


def overlaid(steps: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """A chart for every metric that both runs logged, a line for each run."""
    logged = [{key for step in run for key in step} for run in steps.values()]
    both = set.intersection(*logged) if logged else set()
    keys = [key for key in OVERLAID if key in both]
    keys += sorted((key for key in both if key.startswith(FAMILIES)), key=by_number)
    charts = [
        line_chart(
            key,
            {
                name: [
                    (step["step"] + 1, step[key])
                    for step in run
                    if isinstance(step.get(key), int | float)
                ]
                for name, run in steps.items()
            },
        )
        for key in keys
    ]
    return "".join(charts) if len(steps) > 1 else ""


def _paired(
    first: tuple[str, str],
    second: tuple[str, str],
    names: Sequence[str],
    reports: Sequence[EvalReport],
) -> list[str]:
    try:
        one, other, left_out = shared(*reports)
        comparison = compare(one, other, (names[0], names[1]))
    except ConfigError as error:
        return [f'<p class=wrong role="alert">{escape(str(error))}</p>']
    said = f"{len(one.rows)} samples of both"
    if left_out:
        said += f"; {left_out} rows of one of them alone are left out"
    return [
        "<h2>Paired</h2>",
        f'<p class="soft">{said}. Differences are second minus first, in points, with bootstrap '
        "intervals over videos.</p>",
        paired_table(comparison),
        f"<p>{comparison.better} better, {comparison.worse} worse, {comparison.equal} equal.</p>",
        "<h2>Rows that flipped</h2>",
        flipped(first, second, reports),
    ]


def paired_table(comparison: Comparison) -> str:
    """The mean score of both over all rows and every part, then other measures."""

    def cell(change: Interval, points: bool = True) -> str:
        text = in_points(change)
        if not points:
            text = f"{change.mean:+.3f} [{change.low:+.3f}, {change.high:+.3f}]"
        return f"<span{' class=sure' if change.excludes_zero else ''}>{text}</span>"

    heads = ("", "rows", comparison.first, comparison.second, "difference")
    lines = [
        f"<td>{escape(name)}</td><td>{part.difference.rows}</td><td>{100 * part.first:.1f} %</td>"
        f"<td>{100 * part.second:.1f} %</td><td>{cell(part.difference)}</td>"
        for name, part in comparison.parts.items()
    ]
    lines += [
        f"<td>{escape(name)}</td><td>{change.rows}</td><td></td><td></td>"
        f"<td>{cell(change, points=False)}</td>"
        for name, change in comparison.others.items()
    ]
    head = "".join(f"<th>{escape(text)}</th>" for text in heads)
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f'<div class=scroll tabindex="0"><table><tr>{head}</tr>{body}</table></div>'


def flipped(first: tuple[str, str], second: tuple[str, str], reports: Sequence[EvalReport]) -> str:
    """Rows that are right in one evaluation and wrong in the other, the lost ones first."""
    places = [
        {(row.task_id, row.frame_budget): (place, row) for place, row in enumerate(report.rows)}
        for report in reports
    ]
    both = [(places[0][key], places[1][key]) for key in places[0] if key in places[1]]
    found = [pair for pair in both if _right(pair[0][1]) != _right(pair[1][1])]
    found.sort(key=lambda pair: _right(pair[1][1]))
    lines = []
    for (place, before), (other, after) in found[:MOST_FLIPPED]:
        links = [
            anchor(row.answer or "(none)", "/rollout", run=where[0], source=f"eval:{where[1]}", n=n)
            for where, n, row in ((first, place, before), (second, other, after))
        ]
        lines.append(
            f"<tr><td>{escape(before.task_id)}</td><td>{before.frame_budget}</td>"
            f"<td>{escape(before.family)}</td><td>{escape(before.gold)}</td>"
            f"<td>{verdict(before.score, before.error)}: {links[0]}</td>"
            f"<td>{verdict(after.score, after.error)}: {links[1]}</td></tr>"
        )
    if not lines:
        return "<p class=soft>none</p>"
    heads = "".join(f"<th>{h}</th>" for h in ("task", "K", "family", "gold", "first", "second"))
    more = len(found) - MOST_FLIPPED
    note = f'<p class="soft">and {more} more</p>' if more > 0 else ""
    table = f"<table><tr>{heads}</tr>{''.join(lines)}</table>"
    return f'<div class=scroll tabindex="0">{table}</div>{note}'


def _right(row: EvalRow) -> bool:
    return row.score > CORRECT_FROM
