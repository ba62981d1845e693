"""The list of runs, and the page of one: its curves, its evaluations, its settings, its commands.

The curves are a fragment of their own, which the page asks for again while the run is in progress.
They are those of `paravt report`. Tests: `pytest tests/viewer/test_pages.py`.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from train.common.console import in_bytes
from train.evaluation.scores import EvalReport
from train.report.charts import SMOOTHING
from train.report.page import settings_section
from train.report.tables import accuracy_table, measures_table
from train.viewer.page import HOME, TO_RUNS, anchor, crumbs, document, link
from train.viewer.runs import SETTINGS, Runs

HEADLINE = ("reward", "accuracy", "compliance", "calls")


def list_page(runs: Runs) -> str:
    """All runs, a line each."""
    rows = []
    for name in runs.folders():
        steps = runs.recent(name, SMOOTHING)
        numbers = "".join(f"<td>{_recent(steps, key)}</td>" for key in HEADLINE)
        found = [anchor(one, "/evaluation", run=name, name=one) for one in runs.evaluations(name)]
        rows.append(
            f"<tr><td>{anchor(name, '/run', run=name)}</td><td>{_state(runs, name, steps)}</td>"
            f"{numbers}<td>{', '.join(found)}</td></tr>"
        )
    heads = "".join(f"<th>{head}</th>" for head in ("", "steps", *HEADLINE, "evaluations"))
    return document(
        "Runs",
        [
            f'<h1>Runs</h1><p class="soft">Means of the last {SMOOTHING} steps.</p>'
            f'<div class=scroll tabindex="0"><table><tr>{heads}</tr>{"".join(rows)}</table></div>'
        ],
        here=HOME,
    )


def run_page(runs: Runs, name: str) -> str:
    """One run."""
    folder, kept = runs.folder(name), runs.kept(name)
    tables = "".join(
        f"<li>{anchor(one, '/evaluation', run=name, name=one)} · "
        f"{anchor('its rollouts', '/rollouts', run=name, source=f'eval:{one}')}</li>"
        for one in runs.evaluations(name)
    )
    shown = "<p class=soft>no rollouts were kept (run.keep_rollouts)</p>"
    if kept:
        count = sum(head.rollouts for head in kept.values())
        size = sum(head.size for head in kept.values())
        last = max(kept)
        shown = (
            f"<p>{count} rollouts of {len(kept)} steps, {in_bytes(size)} on disk: "
            f"{anchor(f'those of step {last + 1}', '/rollouts', run=name, source=f'step:{last}')}, "
            f"{anchor('of all steps', '/rollouts', run=name, source='steps')}</p>"
        )
    return document(
        name,
        [
            crumbs(TO_RUNS, escape(name)),
            f"<h1>{escape(name)}</h1>",
            f'<div id="live" data-src="{link("/curves", run=name)}" aria-live="off">'
            f"{live(runs, name)}</div>",
            f"<h2>Rollouts</h2>{shown}",
            f"<h2>Evaluations</h2>{f'<ul>{tables}</ul>' if tables else '<p class=soft>none</p>'}",
            f"<h2>Again</h2><pre>{escape(commands(folder, runs.settings(name)))}</pre>",
            settings_section(runs.settings(name)),
        ],
        ["view.js"],
        HOME,
    )


def live(runs: Runs, name: str) -> str:
    """What changes during a run: its progress, its numbers, its curves."""
    steps = runs.steps(name)
    if not steps:
        return "<p class=soft>no step was logged yet</p>"
    cards = "".join(
        f"<div class=card><b>{_recent(steps, key)}</b><span>{key}</span></div>" for key in HEADLINE
    )
    going = ' data-going="1"' if runs.going_on(name) else ""
    return (
        f"<div{going}><p class=lead>{_state(runs, name, steps)}; numbers are means of the last "
        f"{min(SMOOTHING, len(steps))} steps</p><div class=cards>{cards}</div>"
        f'<h2>Training</h2><div class="charts">{runs.charts(name)}</div></div>'
    )


def evaluation_page(
    name: str, evaluation: str, report: EvalReport, before: EvalReport | None
) -> str:
    """The tables of one evaluation, beside the one before training where there is one."""
    return document(
        f"{name}: {evaluation}",
        [
            crumbs(TO_RUNS, anchor(name, "/run", run=name), escape(evaluation)),
            f"<h1>{escape(name)}: {escape(evaluation)}</h1>",
            f"<p>{anchor('its rollouts', '/rollouts', run=name, source=f'eval:{evaluation}')}</p>",
            accuracy_table(before, report),
            measures_table(before, report),
        ],
        here=HOME,
    )


def commands(folder: Path, settings: Mapping[str, str]) -> str:
    """What to type to train and to measure with the settings of a run again."""
    lines = []
    if SETTINGS in settings:
        path = shlex.quote(str(folder / SETTINGS))
        lines.append(f"paravt train {path} --run.name={shlex.quote(folder.name + '_again')}")
    lines += [
        f"paravt eval {shlex.quote(str(folder / name))} --run.name={shlex.quote(folder.name)}_again"
        for name in ("after.yaml",)
        if name in settings
    ]
    lines.append(f"paravt report {shlex.quote(str(folder))}")
    return "\n".join(lines)


def _state(runs: Runs, name: str, steps: Sequence[Mapping[str, Any]]) -> str:
    done = steps[-1]["step"] + 1 if steps else 0
    total = runs.setting(name, "run", "steps", default=0)
    of = f" of {total}" if total >= done > 0 else ""
    return f"{done}{of} steps{', running' if runs.going_on(name) else ''}"


def _recent(steps: Sequence[Mapping[str, Any]], key: str) -> str:
    values = [step[key] for step in steps[-SMOOTHING:] if isinstance(step.get(key), int | float)]
    return f"{sum(values) / len(values):.3f}" if values else "-"
