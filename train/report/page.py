"""The report of a run: one HTML file that needs nothing else, made from what the run left behind.

Last stop of the journey: `before.json`, `after.json`, `metrics.jsonl` and the settings in a run's
folder become a page with the comparison, the curves, and rollouts with their frames; a run that was
trained and not measured yet has its curves. Whatever a
model wrote is hostile text: everything is escaped, and the page holds no script. Write it again
with `paravt report runs/demo`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from paravt_env.common.files import write_whole
from train.common.metrics_file import FILE as METRICS
from train.common.metrics_file import read_metrics
from train.evaluation.bootstrap import Interval
from train.evaluation.row import EvalRow
from train.evaluation.scores import EvalReport, mean, paired_difference
from train.report.charts import SMOOTHING, frames_chart, interval_chart
from train.report.curves import curves
from train.report.rollouts import Overview, choose, read_overview, rollout_section
from train.report.tables import accuracy_table, in_percent, in_points, measures_table

MANY_BUDGETS = 5
"""From so many K on, accuracy is a curve over a logarithmic axis."""
LOW_BUDGET = 8
"""Up to this K the overview alone seldom suffices: calls must not disappear there."""

SETTINGS = ("after.yaml", "config.yaml")
"""Files of settings that the page shows: those of the evaluation, and of the training."""
STYLE = Path(__file__).with_name("report.css")


def write_report(
    folder: Path, examples: int = 6, overview: Callable[[str, int], Overview] | None = None
) -> Path:
    """Write `report.html` into a run's folder.

    Args:
        folder: Run folder with `after.json`, `metrics.jsonl` or both and, as far as they exist,
            `before.json` and `SETTINGS`.
        examples: Rollouts that are shown.
        overview: Reads K overview frames of a video; the default decodes them again.

    Raises:
        FileNotFoundError: The folder holds no evaluation and no training.
    """
    folder = Path(folder)
    steps = read_metrics(folder)
    if not (folder / "after.json").is_file() and not steps:
        raise FileNotFoundError(
            f"{folder} holds no after.json and no steps in {METRICS}: run `paravt train`, "
            "`paravt eval` or `paravt demo` first"
        )
    before, after = (
        EvalReport.load(folder / name) if (folder / name).is_file() else None
        for name in ("before.json", "after.json")
    )
    settings = [folder / name for name in SETTINGS]
    page = render(
        folder.name,
        before,
        after,
        steps,
        {path.name: path.read_text(encoding="utf-8") for path in settings if path.is_file()},
        overview or read_overview,
        examples,
    )
    return write_html(folder / "report.html", page)


def write_html(path: Path, page: str) -> Path:
    """Write a page in one stroke."""
    write_whole(path, page)
    return path


def render(
    name: str,
    before: EvalReport | None,
    after: EvalReport | None,
    steps: Sequence[Mapping[str, Any]],
    settings: Mapping[str, str],
    overview: Callable[[str, int], Overview],
    examples: int,
) -> str:
    """The page as text; reads frames through `overview` and nothing else.

    `settings` are texts by the names of their files. Without `after` the page is of the training
    alone.
    """
    said = trained(steps) if after is None else learned(before, after)
    measured, rollouts = [], []
    if after is not None:
        measured = [
            _cards(before, after),
            "<h2>Test split</h2>",
            accuracy_table(before, after),
            measures_table(before, after),
            f'<div class="charts">{_budget_charts(before, after)}</div>',
        ]
        chosen = choose(before, after, examples)
        rollouts = ["<h2>Rollouts</h2>", *(rollout_section(*pair, overview) for pair in chosen)]
    sections = [
        f'<h1>{escape(name)}</h1><p class="lead">{escape(said)}</p>',
        *measured,
        f'<h2>Training</h2><div class="charts">{curves(steps)}</div>' if steps else "",
        *rollouts,
        settings_section(settings),
    ]
    return document(name, sections)


def document(name: str, sections: Sequence[str]) -> str:
    """A page of one file: its title and its sections, which are HTML already."""
    style = STYLE.read_text(encoding="utf-8")
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(name)}</title><style>{style}</style></head><body>"
        f"{''.join(sections)}</body></html>\n"
    )


def settings_section(settings: Mapping[str, str]) -> str:
    """Files of settings, folded; "" without any."""
    if not settings:
        return ""
    files = (
        f"<details><summary>{escape(file)}</summary><pre>{escape(text)}</pre></details>"
        for file, text in settings.items()
    )
    return f"<h2>Settings</h2>{''.join(files)}"


def of_low_budget(row: EvalRow) -> bool:
    """Whether a row saw so few overview frames that looking should pay."""
    return row.frame_budget <= LOW_BUDGET


def learned(before: EvalReport | None, after: EvalReport) -> str:
    """One line: what was learned, with the interval that says how sure it is."""
    score = after.accuracy()
    if before is None:
        return f"Accuracy {in_percent(score)} over {score.rows} rows."
    change = paired_difference(before, after)
    sure = "excludes" if change.excludes_zero else "does not exclude"
    both = (before, after)
    fits = [f"{sum(row.compliant for row in one.rows)}/{len(one.rows)}" for one in both]
    calls = [mean(row.calls for row in one.rows) for one in both]
    low = [[row.calls for row in one.rows if of_low_budget(row)] for one in both]
    few = f" ({mean(low[0]):.2f} -> {mean(low[1]):.2f} at K <= {LOW_BUDGET})" if all(low) else ""
    return (
        f"Test accuracy went from {100 * before.accuracy().mean:.1f} % to "
        f"{100 * score.mean:.1f} %: {in_points(change)} points (the interval {sure} zero), "
        f"with format compliance {fits[0]} -> {fits[1]} "
        f"and {calls[0]:.2f} -> {calls[1]:.2f} calls per rollout{few}."
    )


def trained(steps: Sequence[Mapping[str, Any]]) -> str:
    """One line: how the rollouts of the last steps differ from those of the first ones.

    >>> trained([{"step": 0, "reward": 0.5}, {"step": 1, "reward": 1.0}])
    'Trained for 2 steps, not measured yet (paravt eval). Means of the first and last 1: reward \
0.500 -> 1.000.'
    """
    few = max(1, min(SMOOTHING, len(steps) // 2))

    def ends(key: str) -> str:
        known = [step[key] for step in steps if step.get(key) is not None]
        if not known:
            return ""
        return f"{key} {mean(known[:few]):.3f} -> {mean(known[-few:]):.3f}"

    changes = ", ".join(filter(None, map(ends, ("reward", "accuracy", "compliance", "calls"))))
    count = steps[-1]["step"] + 1
    return (
        f"Trained for {count} steps, not measured yet (paravt eval). Means of the first and last "
        f"{few}: {changes}."
    )


def _cards(before: EvalReport | None, after: EvalReport) -> str:
    def card(title: str, value: Callable[[EvalRow], float], rows: Callable[[EvalRow], bool]) -> str:
        now = mean([value(row) for row in after.rows if rows(row)] or [math.nan])
        if before is None:
            return f"<div class=card><b>{now:.2f}</b><span>{title}</span></div>"
        first = mean([value(row) for row in before.rows if rows(row)] or [math.nan])
        return f"<div class=card><b>{first:.2f} → {now:.2f}</b><span>{title}</span></div>"

    def every(row: EvalRow) -> bool:
        return True

    cards = [
        card("accuracy", lambda row: row.score, every),
        card("format compliance", lambda row: float(row.compliant), every),
        card("calls per rollout", lambda row: float(row.calls), every),
    ]
    if any(of_low_budget(row) for row in after.rows):
        cards.append(
            card(
                f"calls per rollout at K ≤ {LOW_BUDGET}",
                lambda row: float(row.calls),
                of_low_budget,
            )
        )
    return f"<div class=cards>{''.join(cards)}</div>"


def _budget_charts(before: EvalReport | None, after: EvalReport) -> str:
    reports = {name: report for name, report in (("before", before), ("after", after)) if report}
    charts = []
    for title, value in (
        ("Accuracy at K", lambda row: row.score),
        ("Calls per rollout at K", lambda row: float(row.calls)),
        ("Format compliance at K", lambda row: float(row.compliant)),
    ):
        groups: dict[str, dict[str, Interval]] = {}
        for name, report in reports.items():
            for budget, rows in report.groups("frame_budget").items():
                groups.setdefault(f"K={budget}", {})[name] = report.interval(rows, value)
        charts.append(interval_chart(title, groups))
    if len(after.groups("frame_budget")) >= MANY_BUDGETS:
        curves = {
            name: {k: report.accuracy(rows) for k, rows in report.groups("frame_budget").items()}
            for name, report in reports.items()
        }
        charts[0] = frames_chart("Accuracy over overview frames", curves)
    return "".join(charts)
