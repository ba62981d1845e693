"""Lists of rollouts with their filters, and a group's rollouts side by side.

Tests: `pytest tests/viewer/test_pages.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from train.viewer.errors import CannotShow
from train.viewer.listing import ALL_STEPS, OUTCOMES, Filter, Listed, Source
from train.viewer.page import HOME, TO_RUNS, anchor, crumbs, document, select, verdict
from train.viewer.record import Shown
from train.viewer.runs import Runs

PAGE = 64
"""Rollouts of one page of a list."""


def listed(runs: Runs, name: str, source: Source) -> list[tuple[Source, Listed]]:
    """The rollouts of a source, the latest step first.

    Raises:
        CannotShow: There is no such step or evaluation.
    """
    if source.evaluation:
        return [(source, one) for one in runs.rows(name, source.evaluation)]
    kept = runs.kept(name)
    if source.step is None:
        steps = sorted(kept, reverse=True)
        return [(Source(step), one) for step in steps for one in runs.listed(name, step)]
    if source.step not in kept:
        raise CannotShow(f"step {source.step + 1} of {name} kept no rollouts")
    return [(source, one) for one in runs.listed(name, source.step)]


def rollouts_page(runs: Runs, name: str, source: Source, wanted: Filter, page: int) -> str:
    """A list of rollouts."""
    everything = listed(runs, name, source)
    found = [(where, one) for where, one in everything if wanted.keeps(one)]
    last = max(0, (len(found) - 1) // PAGE)
    page = min(max(page, 0), last)
    part = found[page * PAGE : (page + 1) * PAGE]
    asked = {
        "outcome": wanted.outcome or None,
        "k": wanted.frame_budget,
        "family": wanted.family,
    }
    turn = [
        anchor(text, "/rollouts", run=name, source=source, page=to, **asked)
        for text, to, there in (("newer", page - 1, page > 0), ("older", page + 1, page < last))
        if there
    ]
    said = f"{len(found)} of {len(everything)} rollouts"
    if last:
        said += f", page {page + 1} of {last + 1}"
    return document(
        f"{name}: rollouts",
        [
            crumbs(TO_RUNS, anchor(name, "/run", run=name), f"rollouts of {source.title}"),
            f"<h1>Rollouts of {escape(source.title)}</h1>",
            _filters(runs, name, source, wanted, [one for _, one in everything]),
            f'<p class="soft" role="status">{said} {" · ".join(turn)}</p>',
            _table(name, part),
        ],
        ["view.js"],
        HOME,
    )


def _filters(
    runs: Runs, name: str, source: Source, wanted: Filter, everything: Sequence[Listed]
) -> str:
    steps = sorted(runs.kept(name), reverse=True)
    sources = {ALL_STEPS: "all steps"} if steps else {}
    sources |= {f"step:{step}": f"step {step + 1}" for step in steps[:2000]}
    sources |= {f"eval:{one}": f"evaluation {one}" for one in runs.evaluations(name)}
    budgets = sorted({one.frame_budget for one in everything})
    families = sorted({one.family for one in everything} - {""})
    budget = "" if wanted.frame_budget is None else str(wanted.frame_budget)
    return (
        '<form class="filters" action="/rollouts" data-auto>'
        f'<input type="hidden" name="run" value="{escape(name)}">'
        + select("source", "of", sources, str(source))
        + select("outcome", "outcome", {"": "any"} | {one: one for one in OUTCOMES}, wanted.outcome)
        + select("k", "K", {"": "any"} | {str(k): str(k) for k in budgets}, budget)
        + select(
            "family",
            "family",
            {"": "any"} | {one: one for one in families},
            wanted.family or "",
        )
        + "<button>Show</button></form>"
    )


def _table(name: str, part: Sequence[tuple[Source, Listed]]) -> str:
    heads = ("rollout", "verdict", "answer", "task", "family", "K", "reward", "calls", "form")
    rows = []
    for source, one in part:
        where = {"run": name, "source": source}
        failed = f", {one.calls - one.executed} failed" if one.executed < one.calls else ""
        form = "kept" if one.compliant else "<span class=wrong>lost</span>"
        cells = [
            anchor(f"{source.title}, no. {one.place + 1}", "/rollout", n=one.place, **where),
            verdict(one.correct, one.error),
            escape(one.answer or "(none)") + (" (forced)" if one.forced else ""),
            anchor(one.task_id, "/group", group=one.group, **where),
            escape(one.family),
            str(one.frame_budget),
            f"{one.reward:.2f}",
            f"{one.calls}{failed}",
            form,
        ]
        rows.append(f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>")
    head = "".join(f"<th>{text}</th>" for text in heads)
    body = "".join(rows) or f'<tr><td colspan="{len(heads)}">nothing matches</td></tr>'
    return f'<div class=scroll tabindex="0"><table class=list><tr>{head}</tr>{body}</table></div>'


def group_page(name: str, source: Source, members: Mapping[int, Shown]) -> str:
    """The rollouts of a group side by side: of a step, or of a task at all its K.

    Args:
        name: Of the run.
        source: A step or an evaluation.
        members: Rollouts by their place in the source.
    """
    first = next(iter(members.values()))
    columns = "".join(_column(name, source, place, one) for place, one in members.items())
    return document(
        f"{name}: group",
        [
            crumbs(
                TO_RUNS,
                anchor(name, "/run", run=name),
                anchor(source.title, "/rollouts", run=name, source=source),
                escape(first.task_id),
            ),
            f"<h1>{len(members)} rollouts of one task</h1><pre>{escape(first.question)}</pre>"
            f'<p class="soft">gold {escape(first.gold)} · {escape(first.family)}</p>',
            f'<div class="columns" tabindex="0">{columns}</div>',
        ],
        here=HOME,
        wide=True,
    )


def _column(name: str, source: Source, place: int, one: Shown) -> str:
    parts = [
        f"<h2>{anchor(f'no. {place + 1}', '/rollout', run=name, source=source, n=place)}</h2>",
        f"<p>{verdict(one.correct, one.error)} · answer {escape(one.answer or '(none)')} · "
        f"reward {one.reward:.2f} · K = {one.frame_budget} · {one.calls} calls</p>",
    ]
    for turn in one.turns:
        parts.append(f"<pre>{escape(turn.completion)}</pre>")
        for crop in turn.crops:
            where = "no window"
            if crop.window is not None:
                where = f"{crop.window[0]:.1f}-{crop.window[1]:.1f} s"
            read = ""
            if crop.reading is not None and 0 <= crop.reading < len(one.conversations):
                tokens = one.conversations[crop.reading].tokens
                read = ": " + "".join(token.text for token in tokens if token.logprob is not None)
            parts.append(f'<p class="soft">{escape(f"crop {where}, {crop.status}{read}")}</p>')
    return f"<section>{''.join(parts)}</section>"
