"""Lives, rooms and scores: questions about what happens in a programme.

Six families of the `atari` task set, for channels and for a single long game. How many lives or
screens there are to count is drawn before the window that holds them, and wrong scores are scores
of the same programme. Each returns None where this draw leads nowhere. Pure functions of the
recording and the generator; run `pytest tests/tasksets/test_tasksets_atari.py`.
"""

from __future__ import annotations

import math

import numpy as np

from paravt_env.span import Span
from paravt_env.tasksets.made.atari.moments import (
    EDGE,
    ROOM_SECONDS,
    Aired,
    clear_count,
    lives_lost,
    rooms_entered,
    steady,
)
from paravt_env.tasksets.made.drafts import Draft, pick

COUNTS = (0, 1, 2, 3)
WINDOWS = (20, 30, 40)  # seconds in which something is counted: a crop can hold each
_READ = 3.0  # seconds for which a score stands still before and after it is asked for
_OUTCOMES = ((True, False), (False, True), (True, True), (False, False))


def _scored(shows: list[Aired]) -> list[Aired]:
    return [show for show in shows if show.game.scored]


def _window(
    show: Aired, times: list[float], apart: float, rng: np.random.Generator
) -> tuple[Span, int, str] | None:
    """A stretch of a programme in which a number drawn first of `times` lie, and its name."""
    wanted = COUNTS[int(rng.integers(len(COUNTS)))]
    for _ in range(100):
        length = WINDOWS[int(rng.integers(len(WINDOWS)))]
        parts = show.parts
        start, end = parts[int(rng.integers(len(parts)))]
        if len(parts) == 2 and rng.integers(2):
            start, name = parts[1][0], f"in the first {length} s after its interruption"
            end = parts[1][1]
        else:
            latest = math.floor(end - length)
            if latest < math.ceil(start):
                continue
            start = float(rng.integers(math.ceil(start), latest + 1))
            name = f"between {start:.0f} s and {start + length:.0f} s"
        window = (start, start + length)
        if window[1] <= end and clear_count(times, window, apart) == wanted:
            return window, wanted, name
    return None


def _counted(draft: str, window: Span, count: int) -> Draft:
    wrong = tuple(str(c) for c in COUNTS if c != count)
    return Draft(draft, str(count), (window,), wrong, ordered=True)


def lives(shows: list[Aired], rng: np.random.Generator) -> Draft | None:
    """How many lives are lost in a window."""
    for show in pick([show for show in shows if show.game.lives], 1, rng):
        found = _window(show, lives_lost(show.log), 0.0, rng)
        if found:
            window, count, name = found
            text = f"How many lives are lost in {show.game.name} {name}?"
            return _counted(text, window, count)
    return None


def rooms(shows: list[Aired], rng: np.random.Generator) -> Draft | None:
    """How often another room appears in a window in which no game ends."""
    for show in pick([show for show in shows if show.game.rooms is not None], 1, rng):
        found = _window(show, rooms_entered(show.log), ROOM_SECONDS, rng)
        if found and clear_count(show.log.ends, found[0]) == 0:
            window, count, name = found
            text = f"How often does the player of {show.game.name} enter another screen {name}?"
            return _counted(text, window, count)
    return None


def _wrong_scores(value: int, show: Aired, rng: np.random.Generator) -> tuple[str, ...]:
    """Three other numbers: scores that the programme shows at other times, then made-up ones."""
    shown = sorted({score for _, score in show.log.score} - {value, 0})
    step = math.gcd(*shown, value) or 1
    near = sorted(shown, key=lambda score: abs(score - value))[:8]
    wrong = pick(near, min(3, len(near)), rng)
    signs = [int(sign) for sign in rng.permutation([-1, 1])]
    made_up = [value + sign * step * factor for factor in (1, 2, 3, 4) for sign in signs]
    wrong += [score for score in made_up if score > 0 and score not in wrong]
    return tuple(str(score) for score in wrong[:3])


def _seconds_of(show: Aired, wanted: int) -> list[int]:
    """Seconds at which the score `wanted` can be read, at most a minute after it was reached."""
    since = [time for time, score in show.log.score if score == wanted]
    return [
        second
        for time in since
        for start, end in show.parts
        for second in range(math.ceil(max(time, start)), math.floor(min(time + 60, end)))
        if start + _READ <= second <= end - _READ
        and steady(show.log.score, second - _READ, second + _READ) == wanted
    ]


def _steady_score(shows: list[Aired], rng: np.random.Generator) -> tuple[Aired, int, int] | None:
    """A programme, a second at which its score can be read, and the score."""
    for show in pick(_scored(shows), 1, rng):
        scores = sorted({score for _, score in show.log.score if score > 0})
        for wanted in pick(scores, min(len(scores), 5), rng):
            for second in pick(_seconds_of(show, wanted), 1, rng):
                return show, second, wanted
    return None


def score(shows: list[Aired], rng: np.random.Generator) -> Draft | None:
    """Which score is on the screen at a moment."""
    found = _steady_score(shows, rng)
    if found is None:
        return None
    show, second, score = found
    text = f"Which score does {show.game.name} show at {second} s?"
    span = show.around(second, _READ, _READ)
    return Draft(text, str(score), (span,), _wrong_scores(score, show, rng))


def number(shows: list[Aired], rng: np.random.Generator) -> Draft | None:
    """As `score`, without options."""
    found = _steady_score(shows, rng)
    if found is None:
        return None
    show, second, score = found
    text = f"Which score does {show.game.name} show at {second} s? Answer with the number alone."
    return Draft(text, str(score), (show.around(second, _READ, _READ),), kind="open")


def final(shows: list[Aired], rng: np.random.Generator) -> Draft | None:
    """The last score of the game that is being played at a moment."""
    for show in pick([show for show in _scored(shows) if show.log.ends], 1, rng):
        number = int(rng.integers(len(show.log.ends)))
        start, end = ([show.programme.shot.start, *show.log.ends])[number : number + 2]
        score = steady(show.log.score, end - 1.0, end)
        seconds = [
            second
            for second in range(math.ceil(start + EDGE), math.floor(end - 10))
            if any(first + EDGE <= second < last - EDGE for first, last in show.parts)
        ]
        if not score or not seconds:
            return None
        (second,) = pick(seconds, 1, rng)
        text = f"With which score does the game of {show.game.name} played at {second} s end?"
        return Draft(
            text, str(score), (show.around(end, 4.0, 0.0),), _wrong_scores(score, show, rng)
        )
    return None


def goal(shows: list[Aired], rng: np.random.Generator) -> Draft | None:
    """Which of two programmes reaches a score in one of its games."""
    outcome = int(rng.integers(4))  # drawn first, so that "both" is as likely as "neither"
    two = pick(_scored(shows), 2, rng)
    if not two:
        return None
    best = [max((score, -time) for time, score in show.log.score) for show in two]
    one, other = best[0][0], best[1][0]
    step = math.gcd(one, other)
    wanted = (one, other, min(one, other), max(one, other) + step)[outcome]
    reached = (one >= wanted, other >= wanted)
    if min(one, other) <= 0 or reached != _OUTCOMES[outcome]:
        return None
    names = [*(show.game.name for show in two), "both", "neither"]
    answer = names.pop(outcome)
    text = (
        f"The goal is {wanted} points in one game. Which programme reaches it, "
        f"{two[0].game.name} or {two[1].game.name}?"
    )
    spans = tuple(show.around(-time, 1.0, 4.0) for show, (_, time) in zip(two, best, strict=True))
    return Draft(text, answer, spans, tuple(names))
