"""The plan of a recording: which game is on when, who plays it, and what cuts in.

Third step of the `atari` task set: a pure function of (settings, split, index). A `channels` video
is a row of programmes, each another game; somewhere inside, each programme is interrupted for a few
seconds by one more game. A sparse overview shows the programmes, which is *where* to look; the
interruptions, lives, scores and rooms are *what* the questions ask for. Every few videos are one
long game without a cut. Run `paravt data make atari` to record the videos.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from paravt_env.task import TaskError
from paravt_env.tasksets.made.atari.games import GAMES
from paravt_env.tasksets.made.atari.players import STYLES
from paravt_env.tasksets.made.base import SPLITS, Dials

FAMILIES = (
    "cut", "lives", "which", "score", "when", "rooms", "order", "number", "after", "final", "goal",
)  # fmt: skip
CONSOLE_FPS = 60
_SHARE_SPREAD = 0.25  # lengths of programmes, relative to each other
_CALM = 0.2  # an interruption keeps this share of its programme from both of its ends
_LEAD_IN = 10.0  # longest time that an interrupting game has already been on, seconds
_WHOLE = ("programmes", "long_every", "fps", "questions", "seed")


@dataclass(frozen=True)
class AtariSettings(Dials):
    """The dials; every field is plain data and part of the cache key."""

    name: ClassVar[str] = "atari"
    minutes: tuple[float, float] = (10.0, 60.0)  # video length, drawn uniformly
    programmes: int = 10  # of a video of channels, 3 to 16
    cut_seconds: tuple[float, float] = (8.0, 16.0)  # length of an interruption, drawn uniformly
    long_every: int = 4  # every so many videos one is a single long game; 0: none
    fps: int = 10  # a divisor of 60, which is the console's
    questions: int = 12  # per video, balanced over the families that it allows
    families: tuple[str, ...] = FAMILIES
    seed: int = 0

    def __post_init__(self) -> None:
        """Check types and ranges, so that a wrong dial fails before anything is written."""
        for name in _WHOLE:
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int):
                raise TaskError(f"atari: {name} must be a whole number, not {value!r}")
        for name in ("minutes", "cut_seconds"):
            value = getattr(self, name)
            if (
                not isinstance(value, tuple | list)
                or len(value) != 2
                or any(isinstance(v, bool) or not isinstance(v, int | float) for v in value)
            ):
                raise TaskError(f"atari: {name} must be two numbers, not {value!r}")
            object.__setattr__(self, name, (float(value[0]), float(value[1])))
        object.__setattr__(self, "families", tuple(self.families))
        checks = {
            "minutes must be shortest and longest, both positive": (
                0 < self.minutes[0] <= self.minutes[1] <= 600
            ),
            "cut_seconds must be shortest and longest, at least 1": (
                1 <= self.cut_seconds[0] <= self.cut_seconds[1]
            ),
            "programmes must be within 3 and 16": 3 <= self.programmes <= 16,
            "long_every must not be negative": self.long_every >= 0,
            "fps must be a divisor of 60 from 2 to 60": (
                2 <= self.fps <= CONSOLE_FPS and CONSOLE_FPS % self.fps == 0
            ),
            "questions must be within 1 and 100": 1 <= self.questions <= 100,
            f"families must be some of {', '.join(FAMILIES)}": (
                bool(self.families) and set(self.families) <= set(FAMILIES)
            ),
            "seed must not be negative": self.seed >= 0,
        }
        for message, passed in checks.items():
            if not passed:
                raise TaskError(f"atari: {message}")
        spread = (1 - _SHARE_SPREAD) / (1 + _SHARE_SPREAD)
        shortest = 60 * self.minutes[0] / self.programmes * spread
        if self.cut_seconds[1] > shortest * (1 - 2 * _CALM):
            raise TaskError(
                f"atari: a programme may last {shortest:.1f} s, too short for an interruption of "
                f"{self.cut_seconds[1]:g} s: take fewer programmes, a longer video or shorter cuts"
            )


@dataclass(frozen=True)
class Shot:
    """One game, played by one player from one seed, on screen while start <= t < end (seconds)."""

    game: str
    style: str
    seed: int
    start: float
    end: float
    lead_in: float = 0.0  # seconds that are played before the first picture


@dataclass(frozen=True)
class Programme:
    """A shot and what interrupts it; the interrupted game stands still meanwhile."""

    shot: Shot
    cut: Shot | None


@dataclass(frozen=True)
class VideoPlan:
    """Everything that is recorded into one video."""

    name: str
    seed: tuple[int, ...]
    duration: float
    programmes: tuple[Programme, ...]


def plan_video(settings: AtariSettings, split: str, index: int) -> VideoPlan:
    """Plan the `index`-th video of a split; splits draw from disjoint seeds.

    >>> plan = plan_video(AtariSettings(), "train", 0)
    >>> len(plan.programmes), plan == plan_video(AtariSettings(), "train", 0)
    (10, True)
    """
    seed = (settings.seed, SPLITS.index(split), index)
    rng = np.random.default_rng(seed)
    frames = round(rng.uniform(*settings.minutes) * 60 * settings.fps)
    duration = frames / settings.fps
    name = f"{split}-{index:05d}"
    if settings.long_every and index % settings.long_every == settings.long_every - 1:
        long_games = [key for key, game in GAMES.items() if game.lives and game.scored]
        game = long_games[int(rng.integers(len(long_games)))]
        shot = Shot(game, _style(rng), _game_seed(rng), 0.0, duration)
        return VideoPlan(name, seed, duration, (Programme(shot, None),))
    shares = rng.uniform(1 - _SHARE_SPREAD, 1 + _SHARE_SPREAD, settings.programmes)
    ends = np.rint(np.concatenate([[0.0], np.cumsum(shares)]) / shares.sum() * frames).astype(int)
    on, others = _line_up(settings.programmes, rng)
    cuts: list[str] = []
    while len(cuts) < settings.programmes:  # every one of the others before any comes again
        cuts += [others[int(i)] for i in rng.permutation(len(others))]
    programmes = []
    for game, cut, start, end in zip(on, cuts, ends[:-1], ends[1:], strict=False):
        shot = Shot(
            game, _style(rng), _game_seed(rng), int(start) / settings.fps, int(end) / settings.fps
        )
        length = round(rng.uniform(*settings.cut_seconds) * settings.fps)
        calm = round(_CALM * (end - start))
        first = int(rng.integers(start + calm, end - calm - length + 1))
        programmes.append(Programme(shot, _cut(cut, first, first + length, settings.fps, rng)))
    return VideoPlan(name, seed, duration, tuple(programmes))


def _cut(game: str, first: int, last: int, fps: int, rng: np.random.Generator) -> Shot:
    lead_in = round(rng.uniform(0, _LEAD_IN) * fps) / fps
    return Shot(game, _style(rng), _game_seed(rng), first / fps, last / fps, lead_in)


def _line_up(programmes: int, rng: np.random.Generator) -> tuple[list[str], list[str]]:
    """Different games for the programmes, one of rooms among them, and the games that are left."""
    keys = list(GAMES)
    with_rooms = [key for key in keys if GAMES[key].rooms is not None]
    sure = with_rooms[int(rng.integers(len(with_rooms)))]
    rest = [key for key in keys if key != sure]
    order = [rest[int(i)] for i in rng.permutation(len(rest))]
    on = [sure, *order[: programmes - 1]]
    return [on[int(i)] for i in rng.permutation(programmes)], order[programmes - 1 :]


def _style(rng: np.random.Generator) -> str:
    return STYLES[int(rng.integers(len(STYLES)))]


def _game_seed(rng: np.random.Generator) -> int:
    return int(rng.integers(2**31))
