"""The pages of an episode that a person plays: choose a task, look, answer, see the score.

Nothing of the gold answer is on a page before the episode has ended. Tests: `pytest
tests/viewer/test_play.py`, and in a browser `make test-browser`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape

from paravt_env.show.render import clock
from paravt_env.spaces import OVERVIEW
from paravt_env.task import Task
from train.report.bars import waterfall
from train.report.timeline import Stretch, timeline
from train.rollout.record import weighted_terms
from train.viewer.human import ENDED, FAILED, WAITING, Episode, Moment, Seen
from train.viewer.listing import CORRECT_FROM, Listed
from train.viewer.page import TO_RUNS, anchor, calls, crumbs, document, link, select, verdict
from train.viewer.play import Table
from train.viewer.runs import Runs
from train.viewer.traces import FOLDER, TRACES

PLAY = "/play"
MOST_TASKS = 2000
"""Tasks that can be chosen from."""
OPTION = re.compile(r"^([A-J])\. (.*)$", re.MULTILINE)


def door_page(runs: Runs) -> str:
    """Choose whose tasks to play."""
    names = "".join(f"<li>{anchor(name, PLAY, run=name)}</li>" for name in runs.folders())
    said = "You play the tasks of a run's evaluation, in its environment, with its limits."
    return document("Play", [f"<h1>Play it yourself</h1><p>{said}</p><ul>{names}</ul>"], here=PLAY)


def choose_page(
    name: str,
    table: Table,
    played: Sequence[tuple[str, int]],
    evaluated: Sequence[tuple[str, int]] = (),
) -> str:
    """Choose a task and K.

    Args:
        name: Of the run.
        table: Its environment.
        played: Tasks and K that count already.
        evaluated: Tasks and K that the policy played, with which a person can be compared.
    """
    tasks = table.env.simulation.tasks
    done = {task for task, _ in played}
    known: dict[str, list[int]] = {}
    for task_id, budget in evaluated:
        known.setdefault(task_id, []).append(budget)
    entries = []
    for index in range(min(len(tasks), MOST_TASKS)):
        task = tasks[index]
        mark = " (played)" if task.id in done else ""
        if task.id in known:
            mark += f" (the policy: K = {', '.join(map(str, sorted(known[task.id])))})"
        entries.append(
            f'<option value="{escape(task.id)}">{escape(f"{task.id}: {task.question}"[:160])}'
            f"{mark}</option>"
        )
    settings = table.env.simulation.settings
    rules = (
        f"You see K frames of the whole video. In each of at most {settings.max_turns} turns you "
        f"may look at up to {settings.max_crops} windows of at most "
        f"{settings.max_crop_seconds:g} s, then you answer. The environment scores you as it "
        "scores a policy."
    )
    budgets = {str(k): str(k) for k in table.budgets}
    return document(
        f"{name}: play",
        [
            crumbs(TO_RUNS, anchor(name, "/run", run=name), "play"),
            f"<h1>Play it yourself</h1><p>{rules}</p>"
            f'<form id="choose" data-run="{escape(name)}">'
            f'<label for="task">Task</label>'
            f'<select id="task" name="task" size="10" required>{"".join(entries)}</select>'
            f'<p class="filters">{select("k", "K", budgets, str(table.budgets[0]))}'
            '<button class="main">Play</button>'
            '<button type="button" id="any">Any task</button></p>'
            '<p id="said" class="wrong" role="alert"></p></form>',
        ],
        ["play.js"],
        PLAY,
    )


def episode_page(name: str, table: Table, episode: Episode, model: Listed | None) -> str:
    """An episode as it stands.

    Args:
        name: Of the run.
        table: Its environment.
        episode: The episode.
        model: The same task and K as the run's policy played it in the evaluation, if it did.
    """
    start = episode.start
    head = [
        crumbs(TO_RUNS, anchor(name, "/run", run=name), anchor("play", PLAY, run=name), "episode"),
        f"<h1>{escape(str(start.task_id))}, K = {start.frame_budget}</h1>",
    ]
    if episode.state == FAILED:
        body = [f'<p class=wrong role="alert">{escape(episode.problem)}</p>', _again(name)]
    elif not episode.moments:
        body = ['<p role="status">The video is being read: load this page again.</p>']
    else:
        body = [f"<pre>{escape(episode.task.prompt)}</pre>"]
        if episode.state == ENDED:
            body += [_result(name, table, episode, model), _line(episode, with_gold=True)]
        else:
            body += [_line(episode, with_gold=False)]
            if episode.state == WAITING:
                body.append(_form(table, episode))
            else:
                body.append('<p role="status">The environment plays: load this page again.</p>')
        body.append(_looked(episode))
    return document(f"{name}: episode", [*head, *body], ["play.js"], PLAY)


def _again(name: str) -> str:
    return f"<p>{anchor('Play another task', PLAY, run=name)}</p>"


def _line(episode: Episode, with_gold: bool) -> str:
    view = episode.moments[0].view
    duration = float(view["video"]["duration"])
    instants = [seen.time for seen in episode.frames if seen.window == OVERVIEW]
    tracks: dict[str, list[Stretch]] = {}
    if with_gold:
        tracks["gold"] = [Stretch(a, b, "gold evidence") for a, b in episode.task.evidence]
    for number, moment in enumerate(episode.moments[1:], 1):
        spans = zip(moment.windows, moment.statuses, strict=False)
        tracks[f"turn {number}"] = [
            Stretch(start, end, status, status == "ok")
            for (start, end), status in spans
            if start == start and end == end  # a window that could not be read is not a number
        ]
    tracks = {track: spans for track, spans in tracks.items() if spans}
    drawing: dict[str, list[Stretch]] = {} if with_gold else {"new": []}
    return (
        f'<div class="strip" id="line">{timeline(duration, instants, tracks | drawing)}</div>'
        f'<p class="soft">{clock(duration)} of video</p>'
    )


def _form(table: Table, episode: Episode) -> str:
    moment, settings = episode.moments[-1], table.env.simulation.settings
    turn = len(episode.moments) - 1
    left = settings.max_turns - turn
    hint = (
        f'<p class="soft">Drag on the row "new" of the time line, or add a window and type its '
        f"seconds. {left} turns that may look are left.</p>"
        '<div id="windows"></div>'
        '<p><button type="button" id="add">Add a window</button> '
        '<button type="button" class="main" id="look" disabled>Look</button></p>'
    )
    looking = "" if moment.must_answer else f"<fieldset><legend>Look</legend>{hint}</fieldset>"
    feedback = str(moment.view["feedback"])
    return (
        f'<form id="turn" data-episode="{escape(episode.name)}" data-turn="{turn}" '
        f'data-most="{settings.max_crops}" '
        f'data-longest="{settings.max_crop_seconds:g}" '
        f'data-duration="{float(moment.view["video"]["duration"]):.3f}">'
        + (f'<p class=wrong role="status">{escape(feedback)}</p>' if feedback else "")
        + ("<p>Now you must answer.</p>" if moment.must_answer else "")
        + '<label for="thought">Thought (goes into the trace)</label>'
        '<textarea id="thought" rows="2" maxlength="2000"></textarea>'
        f"{looking}<fieldset><legend>Answer</legend>{_answer(episode.task)}"
        '<p><button type="button" class="main" id="answer">Answer</button></p></fieldset>'
        '<p id="said" class="wrong" role="alert"></p></form>'
    )


def _answer(task: Task) -> str:
    options = OPTION.findall(task.prompt) if task.options else []
    if options:
        return "".join(
            f'<label class="option"><input type="radio" name="given" value="{letter}"> '
            f"{letter}. {escape(text)}</label>"
            for letter, text in options
        )
    hint = "start-end in seconds, such as 12.5-20" if task.kind == "grounding" else "a few words"
    return f'<label>Your answer ({hint}) <input name="given" maxlength="2000"></label>'


def _looked(episode: Episode) -> str:
    """The frames so far: what the last turn showed first, the overview last."""
    parts = []
    last = len(episode.moments) - 1
    for number in range(last, 0, -1):
        moment = episode.moments[number]
        for call, status in enumerate(moment.statuses, 1):
            frames = [(i, one) for i, one in enumerate(episode.frames)
                      if (one.turn, one.window) == (number, call)]  # fmt: skip
            parts.append(_call(episode, moment, number, call, status, frames, number == last))
    overview = [(i, one) for i, one in enumerate(episode.frames) if one.window == OVERVIEW]
    shown = _figures(episode, overview) or "<p class=soft>no frames</p>"
    return f'{"".join(parts)}<h2>Overview</h2><div class="frames grid">{shown}</div>'


def _call(
    episode: Episode,
    moment: Moment,
    turn: int,
    call: int,
    status: str,
    frames: Sequence[tuple[int, Seen]],
    now: bool,
) -> str:
    where = "no window"
    if call <= len(moment.windows):
        start, end = moment.windows[call - 1]
        where = f"{start:.1f}-{end:.1f} s"
    note = ""
    if now and moment.said is None and episode.state == WAITING:
        name = f"note{call}"
        note = (
            f'<label for="{name}">What you saw there (goes into the trace)</label>'
            f'<textarea id="{name}" class="note" rows="2" maxlength="2000"></textarea>'
        )
    elif moment.said is not None and call <= len(moment.said.notes):
        note = f"<p>{escape(moment.said.notes[call - 1])}</p>"
    return (
        f"<section class=crop><h3>turn {turn}, call {call}: {where} "
        f"<span class=soft>{escape(status)}</span></h3>"
        f'<div class="beside"><div class="frames" tabindex="0">{_figures(episode, frames)}</div>'
        f"<div>{note}</div></div></section>"
    )


def _figures(episode: Episode, frames: Sequence[tuple[int, Seen]]) -> str:
    return "".join(
        f'<figure><img alt="frame at {seen.time:.1f} s" loading="lazy" '
        f'src="{link("/play/frame", episode=episode.name, n=number)}">'
        f"<figcaption>{clock(seen.time)}</figcaption></figure>"
        for number, seen in frames
    )


def _result(name: str, table: Table, episode: Episode, model: Listed | None) -> str:
    rollout = episode.rollout
    if rollout is None:
        return ""
    weights = table.env.simulation.preset.weights
    counted = "This attempt counts" if table.first_attempt else "Only the first attempt counts"
    kept = ""
    if table.first_attempt:
        right = rollout.correct > CORRECT_FROM
        trace = f"; its conversation is in {FOLDER}/{TRACES}" if right else ""
        kept = f": its row is in the evaluation {FOLDER}/after{trace}"
    beside = ""
    if model is not None:
        where = anchor("its rollout", "/rollout", run=name, source="eval:after", n=model.place)
        beside = (
            f"<p>The policy, after training: {verdict(model.correct, model.error)}, answer "
            f"{escape(model.answer or '(none)')}, {calls(model.calls)} ({where}).</p>"
        )
    return (
        f'<p class="lead" role="status">{verdict(rollout.correct)}: you said '
        f"{escape(rollout.answer or '(none)')}, gold is {escape(episode.task.answer)}.</p>"
        f"{waterfall(weighted_terms(rollout.terms, rollout.reward, weights), rollout.reward)}"
        f"{beside}<p class=soft>{counted}{kept}.</p>{_again(name)}"
    )
