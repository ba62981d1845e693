"""Which game when: questions about what cuts into a programme.

Five families of the `atari` task set. An overview shows the programmes; the few seconds of another
game inside one of them have to be looked for. A single long game has no interruptions: each family
then returns None. Pure functions of the recording and the generator; run `pytest
tests/tasksets/test_tasksets_atari.py`.
"""

from __future__ import annotations

import math

import numpy as np

from paravt_env.tasksets.made.atari.games import GAMES
from paravt_env.tasksets.made.atari.moments import EDGE, Aired
from paravt_env.tasksets.made.drafts import Draft, pick

_CLOSE = 20.0  # seconds from an interruption


def _interrupted(shows: list[Aired]) -> list[Aired]:
    return [show for show in shows if show.programme.cut is not None]


def _other_games(
    shows: list[Aired], count: int, rng: np.random.Generator, *taken: str
) -> tuple[str, ...]:
    """Names of games that could have cut in: those that do elsewhere, then any that are not on."""
    on = {show.programme.shot.game for show in shows}
    cuts = {show.cut.game for show in _interrupted(shows)}
    near = [key for key in GAMES if key in cuts and key not in taken]
    far = [key for key in GAMES if key not in cuts | on and key not in taken]
    keys = pick(near, min(count, len(near)), rng)
    keys += pick(far, count - len(keys), rng)
    return tuple(GAMES[key].name for key in keys)


def cut(shows: list[Aired], rng: np.random.Generator) -> Draft | None:
    """Which game interrupts a programme."""
    for show in pick(_interrupted(shows), 1, rng):
        cut = show.cut
        text = f"Which game interrupts {show.game.name} for some seconds?"
        wrong = _other_games(shows, 3, rng, cut.game)
        return Draft(text, GAMES[cut.game].name, ((cut.start, cut.end),), wrong)
    return None


def after(shows: list[Aired], rng: np.random.Generator) -> Draft | None:
    """Which game interrupts the programme after the one that is named."""
    pairs = list(zip(_interrupted(shows), _interrupted(shows)[1:], strict=False))
    for show, following in pick(pairs, 1, rng):
        cut = following.cut
        text = f"Which game interrupts the programme that follows {show.game.name}?"
        wrong = _other_games(shows, 3, rng, cut.game)
        return Draft(text, GAMES[cut.game].name, ((cut.start, cut.end),), wrong)
    return None


def order(shows: list[Aired], rng: np.random.Generator) -> Draft | None:
    """Which games interrupt two programmes, in order."""
    two = pick(_interrupted(shows), 2, rng)
    one, other = sorted(two, key=lambda show: show.cut.start) or (None, None)
    if one is None or other is None or one.cut.game == other.cut.game:
        return None
    first, second = GAMES[one.cut.game].title, GAMES[other.cut.game].title
    # Two candidates for each place: either interruption alone leaves a coin to toss.
    names = _other_games(shows, 2, rng, one.cut.game, other.cut.game)
    a, b = (next(g.title for g in GAMES.values() if g.name == name) for name in names)
    wrong = tuple(f"{x}, {y}" for x, y in ((first, b), (a, second), (a, b)))
    text = f"Which games interrupt {one.game.name}, then {other.game.name}?"
    spans = tuple((show.cut.start, show.cut.end) for show in (one, other))
    return Draft(text, f"{first}, {second}", spans, wrong)


def when(shows: list[Aired], rng: np.random.Generator) -> Draft | None:
    """From when to when a programme is interrupted."""
    for show in pick(_interrupted(shows), 1, rng):
        start, end = show.cut.start, show.cut.end
        text = f"When is {show.game.name} interrupted by another game? Answer start-end in seconds."
        return Draft(text, f"{start:.1f}-{end:.1f}", ((start, end),), kind="grounding")
    return None


def which(shows: list[Aired], rng: np.random.Generator) -> Draft | None:
    """Which game is on at a moment, inside an interruption or close to one."""
    for show in pick(_interrupted(shows), 1, rng):
        cut, inside = show.cut, bool(rng.integers(2))  # as often the one as the other
        before, after = show.parts
        close = [
            (max(before[0], before[1] - _CLOSE), before[1]),
            (after[0], min(after[1], after[0] + _CLOSE)),
        ]
        moments = [
            second
            for start, end in ([(cut.start, cut.end)] if inside else close)
            for second in range(math.ceil(start + EDGE), math.floor(end - EDGE) + 1)
        ]
        games = [GAMES[cut.game].name, show.game.name]
        answer = games.pop(0 if inside else 1)
        wrong = (*games, *_other_games(shows, 2, rng, cut.game, show.programme.shot.game))
        for moment in pick(moments, 1, rng):
            span = (moment - 1.0, moment + 1.0)
            return Draft(f"Which game is on at {moment} s?", answer, (span,), wrong)
    return None
