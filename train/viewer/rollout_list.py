"""Lists of rollouts with their filters, and a group's rollouts side by side.

Tests: `pytest tests/viewer/test_pages.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import NamedTuple

from train.viewer.errors import CannotShow
from train.viewer.listing import ALL_STEPS, OUTCOMES, Filter, Listed, Source
from train.viewer.page import HOME, TO_RUNS, anchor, calls, crumbs, document, select, verdict
from train.viewer.record import Shown
from train.viewer.runs import Runs

PAGE = 64
"""Rollouts of one page of a list."""


class Part(NamedTuple):
    """What one page of a list shows.

    Attributes:
        found: Rollouts that the filter keeps, on all pages.
        of: Rollouts of the source.
        page: Number of the page, from 0.
        rows: Those of the page.
        families: Families of the source's rollouts.
        frame_budgets: Their numbers of overview frames.
    """

    found: int
    of: int
    page: int
    rows: list[tuple[Source, Listed]]
    families: set[str]
    frame_budgets: set[int]

    @property
    def last(self) -> int:
        """Number of the last page."""
        return last_page(self.found)


def listed(runs: Runs, name: str, source: Source) -> list[tuple[Source, Listed]]:
    """The rollouts of a step or of an evaluation.

    Raises:
        CannotShow: There is no such step or evaluation.
    """
    if source.step is None:
        return [(source, one) for one in runs.rows(name, source.evaluation)]
    if source.step not in runs.kept(name):
        raise CannotShow(f"step {source.step + 1} of {name} kept no rollouts")
    return runs.listed(name, [source.step])


def part_of(runs: Runs, name: str, source: Source, wanted: Filter, page: int) -> Part:
    """One page of the rollouts that a filter keeps, the latest step first.

    Of all steps, only those are read that the page shows, or that the filter has to look into.

    Raises:
        CannotShow: There is no such step or evaluation.
    """
    if source.step is not None or source.evaluation:
        everything = listed(runs, name, source)
        families = {one.family for _, one in everything}
        budgets = {one.frame_budget for _, one in everything}
        found = [pair for pair in everything if wanted.keeps(pair[1])]
        page = min(max(page, 0), last_page(len(found)))
        rows = found[page * PAGE : (page + 1) * PAGE]
        return Part(len(found), len(everything), page, rows, families, budgets)
    kept = runs.kept(name)
    of = sum(head.rollouts for head in kept.values())
    families = {family for head in kept.values() for family in head.families}
    budgets = {budget for head in kept.values() for budget in head.frame_budgets}
    heads = [kept[step] for step in sorted(kept, reverse=True)]
    if not wanted.shows_all:
        heads = [one for one in heads if wanted.may_keep(one.families, one.frame_budgets)]
        rows = runs.listed(name, [head.step for head in heads])
        found = [pair for pair in rows if wanted.keeps(pair[1])]
        page = min(max(page, 0), last_page(len(found)))
        rows = found[page * PAGE : (page + 1) * PAGE]
        return Part(len(found), of, page, rows, families, budgets)
    page = min(max(page, 0), last_page(of))
    first, before, rows = page * PAGE, 0, []
    for head in heads:
        if before < first + PAGE and before + head.rollouts > first:
            inside = runs.listed(name, [head.step])
            rows += inside[max(0, first - before) : first + PAGE - before]
        before += head.rollouts
    return Part(of, of, page, rows, families, budgets)


def last_page(count: int) -> int:
    """The number of the last page of a list, from 0.

    >>> [last_page(count) for count in (0, 64, 65)]
    [0, 0, 1]
    """
    return max(0, (count - 1) // PAGE)


def rollouts_page(runs: Runs, name: str, source: Source, wanted: Filter, page: int) -> str:
    """A list of rollouts."""
    part = part_of(runs, name, source, wanted, page)
    page, last = part.page, part.last
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
    said = f"{part.found} of {part.of} rollouts"
    if last:
        said += f", page {page + 1} of {last + 1}"
    return document(
        f"{name}: rollouts",
        [
            crumbs(TO_RUNS, anchor(name, "/run", run=name), f"rollouts of {source.title}"),
            f"<h1>Rollouts of {escape(source.title)}</h1>",
            _filters(runs, name, source, wanted, part),
            f'<p class="soft" role="status">{said} {" · ".join(turn)}</p>',
            _table(name, part.rows),
        ],
        ["view.js"],
        HOME,
    )


def _filters(runs: Runs, name: str, source: Source, wanted: Filter, part: Part) -> str:
    steps = sorted(runs.kept(name), reverse=True)
    sources = {ALL_STEPS: "all steps"} if steps else {}
    sources |= {f"step:{step}": f"step {step + 1}" for step in steps[:2000]}
    sources |= {f"eval:{one}": f"evaluation {one}" for one in runs.evaluations(name)}
    budgets, families = sorted(part.frame_budgets), sorted(part.families - {""})
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
        f"reward {one.reward:.2f} · K = {one.frame_budget} · {calls(one.calls)}</p>",
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
