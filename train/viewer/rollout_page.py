"""One rollout: its video and time line, crops beside their readings, tokens, reward terms.

Tests: `pytest tests/viewer/test_rollout_page.py`, and in a browser `make test-browser`.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Sequence
from html import escape
from itertools import pairwise

from paravt_env.crop import CropStatus
from paravt_env.protocol.tags import Role
from paravt_env.show.render import clock
from paravt_env.video import overview_times
from train.report.bars import waterfall
from train.report.timeline import Stretch, timeline
from train.viewer.listing import Source
from train.viewer.page import HOME, TO_RUNS, anchor, calls, crumbs, document, link, verdict
from train.viewer.record import Conversation, Crop, Shown, Token

LOGPROB_STEPS = (-4.0, -2.0, -1.0, -0.5, -0.1)
"""Natural logarithms between the classes of log-probability."""
ADVANTAGE_STEPS = (-1.0, -0.3, -0.001, 0.001, 0.3, 1.0)
RATIO_STEPS = (0.8, 0.95, 0.995, 1.005, 1.05, 1.25)
"""Ratios of the updated weights to those that sampled, between the classes; 1 is the middle."""
MODES = {
    "role": "role",
    "logprob": "log-probability",
    "advantage": "advantage",
    "ratio": "ratio",
}
"""What the colours of tokens can say."""


def rollout_page(name: str, source: Source, place: int, one: Shown, count: int) -> str:
    """The page of a rollout.

    Args:
        name: Of the run.
        source: A step or an evaluation.
        place: Of the rollout in it.
        one: The rollout.
        count: Rollouts of the source.
    """
    where = {"run": name, "source": source}
    turn = [
        anchor(text, "/rollout", n=to, **where)
        for text, to in (("previous", place - 1), ("next", place + 1))
        if 0 <= to < count
    ]
    facts = [
        f"K = {one.frame_budget}",
        calls(one.calls),
        f"form {'kept' if one.compliant else 'lost'}",
        one.stop_reason,
    ]
    parts = [
        crumbs(
            TO_RUNS,
            anchor(name, "/run", run=name),
            anchor(source.title, "/rollouts", **where),
            f"no. {place + 1}",
            *turn,
        ),
        f"<h1>{verdict(one.correct, one.error)} · answer {escape(one.answer or '(none)')}, "
        f"gold {escape(one.gold)}</h1>",
        f'<p class="soft">{escape(one.family)} · {escape(one.task_id)} · '
        f"{escape(' · '.join(facts))}</p>",
        f"<p class=wrong>{escape(one.error)}</p>" if one.error else "",
        f"<pre>{escape(one.question)}</pre>",
        video_section(link("/video", n=place, **where), one),
        "<h2>Crops</h2>",
        _crops(one, link("/frame", n=place, **where)),
        "<h2>Conversation</h2>",
        _conversations(one),
        "<h2>Reward</h2>",
        _reward(one),
    ]
    return document(f"{name}: rollout {place + 1}", parts, ["rollout.js"], HOME)


def video_section(video: str, one: Shown) -> str:
    """The player and the time line under it; `video` is an escaped link."""
    if not one.duration > 0:
        return "<p class=soft>the length of the video is not known: no time line</p>"
    instants = overview_times(one.duration, one.frame_budget).tolist()
    tracks = {"gold": [Stretch(a, b, "gold evidence") for a, b in one.evidence]}
    for number, turn in enumerate(one.turns, 1):
        spans = [
            Stretch(*crop.window, crop.status, crop.status == CropStatus.ok)
            for crop in turn.crops
            if crop.window is not None
        ]
        if spans:
            tracks[f"turn {number}"] = spans
    return (
        f'<video id="player" controls preload="metadata" playsinline src="{video}"></video>'
        f'<p class="soft" id="clock" role="status">A click on the time line, or Enter on a mark, '
        f'moves the player there.</p><div class="strip">'
        f"{timeline(one.duration, instants, tracks, seek=True)}</div>"
    )


def _crops(one: Shown, frame: str) -> str:
    parts = []
    for number, turn in enumerate(one.turns, 1):
        for call, crop in enumerate(turn.crops, 1):
            times = crop.times(one.duration) if crop.status == CropStatus.ok else []
            title = f"turn {number}, call {call}"
            parts.append(_crop(title, crop, times, one.conversations, frame))
    return "".join(parts) or "<p class=soft>none</p>"


def _crop(
    title: str,
    crop: Crop,
    times: Sequence[float],
    conversations: Sequence[Conversation],
    frame: str,
) -> str:
    said = f"{title}: "
    if crop.window is None:
        said += "no window"
        head = escape(said)
    else:
        start, end = crop.window
        head = (
            f'<a class="seek" href="#t={start:.2f}">'
            f"{escape(said)}{clock(start)} to {clock(end)}</a>"
        )
    status = f"{crop.status}, {crop.frames} frames"
    message = f" ({crop.message})" if crop.message else ""
    figures = "".join(
        f'<figure><a class="seek" href="#t={t:.2f}"><img loading="lazy" alt="frame at {t:.1f} s" '
        f'src="{frame}&amp;t={t:.3f}"></a><figcaption>{clock(t)}</figcaption></figure>'
        for t in times
    )
    reading = "<p class=soft>no reading was kept</p>"
    if crop.reading is not None and 0 <= crop.reading < len(conversations):
        reading = f'<p class="tokens">{_tokens(conversations[crop.reading].tokens)}</p>'
    return (
        f"<section class=crop><h3>{head} <span class=soft>{escape(status + message)}</span></h3>"
        f'<div class="beside"><div class="frames" tabindex="0">{figures}</div>'
        f"<div>{reading}</div></div></section>"
    )


def _conversations(one: Shown) -> str:
    if not one.conversations:
        texts = "".join(f"<pre>{escape(turn.completion)}</pre>" for turn in one.turns)
        return (
            "<p class=soft>No tokens were kept of this rollout (evaluation.keep_tokens).</p>"
            f"{texts or '<p class=soft>nothing was written</p>'}"
        )
    tokens = [token for talk in one.conversations for token in talk.tokens]
    known = {name for name in MODES if any(getattr(t, name) is not None for t in tokens)}
    switch = "".join(
        f'<label><input type="radio" name="mode" value="{mode}"'
        f"{' checked' if mode == 'role' else ''}{'' if mode in known else ' disabled'}>"
        f" {label}</label>"
        for mode, label in MODES.items()
    )
    if "advantage" not in known:
        switch += "<p class=soft>Advantages and ratios come from a step of training.</p>"
    main = "".join(
        f"<details><summary>prompt</summary><pre>{escape(talk.prompt)}</pre></details>"
        f'<p class="tokens">{_tokens(talk.tokens)}</p>'
        for talk in one.conversations
        if talk.kind == "main"
    )
    return (
        f'<fieldset class="switch"><legend>Colour tokens by</legend>{switch}</fieldset>'
        f'<p id="token" class="soft" role="status">Point at a token for its numbers.</p>'
        f"{_legend()}{main}"
    )


def _tokens(tokens: Sequence[Token]) -> str:
    return "".join(map(_token, tokens))


def _token(token: Token) -> str:
    """A token with its classes; one that was not sampled has its role alone."""
    if token.logprob is None:
        return f'<span class="t r{int(token.role)} given">{escape(token.text)}</span>'
    classes = [f"t r{int(token.role)} l{bisect(LOGPROB_STEPS, token.logprob)}"]
    said = f"{token.role.name}, log-probability {token.logprob:.3f}"
    if token.advantage is not None:
        classes.append(f"a{bisect(ADVANTAGE_STEPS, token.advantage)}")
        said += f", advantage {token.advantage:+.3f}"
    if token.ratio is not None:
        classes.append(f"q{bisect(RATIO_STEPS, token.ratio)}")
        said += f", ratio {token.ratio:.3f}"
    return f'<span class="{" ".join(classes)}" title="{said}">{escape(token.text)}</span>'


def _legend() -> str:
    """What each colour means, one line a mode; the style shows that of the chosen mode."""

    def line(mode: str, entries: Sequence[tuple[str, str]]) -> str:
        spans = " ".join(f'<span class="t {name}">{escape(text)}</span>' for name, text in entries)
        return f'<p class="legend for-{mode}">{spans}</p>'

    def steps(letter: str, bounds: Sequence[float]) -> list[tuple[str, str]]:
        texts = [f"below {bounds[0]:g}"]
        texts += [f"{a:g} to {b:g}" for a, b in pairwise(bounds)]
        return [(f"{letter}{i}", text) for i, text in enumerate([*texts, f"above {bounds[-1]:g}"])]

    return (
        line("role", [(f"r{int(role)}", role.name) for role in Role])
        + line("logprob", steps("l", LOGPROB_STEPS))
        + line("advantage", steps("a", ADVANTAGE_STEPS))
        + line("ratio", steps("q", RATIO_STEPS))
    )


def _reward(one: Shown) -> str:
    if not one.terms:
        return (
            f"<p>{one.reward:.3f}</p><p class=soft>no single terms were kept</p>"
            if not one.error
            else "<p class=soft>nothing was scored</p>"
        )
    return waterfall(one.terms, one.reward)
