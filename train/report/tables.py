"""The report's tables: accuracy by every breakdown, before and after, and the other measures.

Part of the last stop of the journey, beside `train.report.page`. Pure: reports in, markup out;
names come from data sets and models and are escaped. Tests: `pytest tests/report/test_report.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from typing import Any

from paravt_env.tasksets.base import say_left_out
from train.evaluation.bootstrap import Interval
from train.evaluation.row import EvalRow
from train.evaluation.scores import EvalReport, mean, paired_difference


def in_percent(item: Interval) -> str:
    """A mean from 0 to 1 in percent, with its interval."""
    return f"{100 * item.mean:.1f} % [{100 * item.low:.1f}, {100 * item.high:.1f}]"


def in_points(item: Interval) -> str:
    """A difference in points, with its sign and its interval."""
    return f"{100 * item.mean:+.1f} [{100 * item.low:+.1f}, {100 * item.high:+.1f}]"


def accuracy_table(before: EvalReport | None, after: EvalReport) -> str:
    """Rows: all samples, then those of each frame budget, family and so on."""
    heads = ["", "rows", "majority", "blind", *(["before"] if before else []), "after"]
    heads += [*(["difference"] if before else []), "compliance", "tools", "calls", "frames"]
    heads.append("errors")
    lines = ["".join(f"<th>{head}</th>" for head in heads), _line("all", before, after)]
    for breakdown, title in (
        ("frame_budget", "Overview frames"),
        ("family", "Question family"),
        ("category", "Category"),
        ("kind", "Answer kind"),
        ("duration_group", "Length of the video"),
    ):
        groups = after.groups(breakdown)
        if len(groups) < 2:
            continue
        lines.append(f'<td colspan="{len(heads)}">{title}</td>')
        for key in groups:
            part, first = _only(after, breakdown, key), before and _only(before, breakdown, key)
            name = f"K = {key}" if breakdown == "frame_budget" else str(key)
            lines.append(_line(name, first, part))
    rows = (f"<tr{' class=part' if 'colspan' in line else ''}>{line}</tr>" for line in lines)
    note = (
        "Brackets are bootstrap intervals over videos; the difference is paired. "
        "A video that could not be read, an agent that gave no decision and an answer that could "
        "not be judged count as wrong. Majority: the most frequent answer of each family; blind: "
        "the same policy without frames; tools: share of rollouts that called."
    )
    table = f'<div class=scroll><table>{"".join(rows)}</table></div><p class="soft">{note}</p>'
    missing = say_left_out(after.left_out, shown=20)
    return f'{table}<p class="soft">{escape(missing)}</p>' if missing else table


def _only(report: EvalReport, breakdown: str, key: Any) -> EvalReport:
    rows = tuple(row for row in report.rows if getattr(row, breakdown) == key)
    return EvalReport(rows, report.settings, report.seconds)


def _line(name: str, before: EvalReport | None, after: EvalReport) -> str:
    def two(value: Callable[[EvalRow], float], digits: int = 2) -> str:
        values = [mean(map(value, report.rows)) for report in (before, after) if report]
        return " → ".join(f"{v:.{digits}f}" for v in values)

    cells = [
        escape(name),
        str(len(after.rows)),
        f"{100 * mean(r.majority for r in after.rows):.0f} %",
        _blind(after.rows),
    ]
    if before is not None:
        cells.append(in_percent(before.accuracy()))
    cells.append(in_percent(after.accuracy()))
    if before is not None:
        change = paired_difference(before, after)
        cells.append(
            f"<span{' class=sure' if change.excludes_zero else ''}>{in_points(change)}</span>"
        )
    cells += [two(lambda row: float(row.compliant)), two(lambda row: float(row.called))]
    cells += [two(lambda row: float(row.calls)), two(lambda row: float(row.frames_seen), 1)]
    cells.append(" → ".join(str(sum(r.errors.values())) for r in (before, after) if r))
    return "".join(f"<td>{cell}</td>" for cell in cells)


def _blind(rows: Sequence[EvalRow]) -> str:
    scores = [row.blind for row in rows if row.blind is not None]
    return f"{100 * mean(scores):.0f} %" if len(scores) == len(rows) else "-"


def measures_table(before: EvalReport | None, after: EvalReport) -> str:
    """Means over categories, temporal IoU, evidence recall, errors by kind, an episode's use."""
    reports = [report for report in (before, after) if report is not None]
    named: dict[str, list[str]] = {}
    for report in reports:
        found = report.grounding()
        if len(report.groups("category")) > 1:
            found["mean of the categories"] = report.macro()
        for name, item in found.items():
            named.setdefault(name, []).append(in_percent(item))
        overall = report.summary()["overall"]
        recall = overall["evidence_recall"]
        named.setdefault("evidence recall", []).append("-" if recall is None else f"{recall:.3f}")
        for name, value in overall["usage"].items():
            named.setdefault(f"{name.replace('_', ' ')} an episode", []).append(f"{value:.4g}")
        for kind, count in report.errors.items():
            named.setdefault(f"{kind.replace('_', ' ')}s", []).append(str(count))
        for kind, count in report.blind_errors.items():
            named.setdefault(f"{kind.replace('_', ' ')}s without frames", []).append(str(count))
    rows = "".join(
        f"<tr><td>{escape(name)}</td><td>{escape(' → '.join(values))}</td></tr>"
        for name, values in named.items()
    )
    return f"<div class=scroll><table>{rows}</table></div>"
