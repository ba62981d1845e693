"""The plan of a synthetic video: its scenes, and the short events inside them.

First step of the `synthetic` task set: a plan is a pure function of (settings, split, index);
`render` turns it into an mp4 file and `questions` into tasks. Each scene has a background colour
and a sun that crosses the top edge, so a sparse overview shows *where* to look; a few seconds
around the scene's noon an event shows symbols, which is *what* a question asks for. Run `paravt
data make` to write the videos.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from paravt_env.span import Span
from paravt_env.task import TaskError
from paravt_env.tasksets.made.base import SPLITS, Dials

COLOURS = ("red", "green", "blue", "yellow", "purple", "orange", "cyan", "pink")
GREYS = ("light grey", "dark grey")
SYMBOLS = ("circle", "square", "triangle", "cross", "star", "diamond", "ring", "bar")
CORNERS = ("top left", "top right", "bottom left", "bottom right")
FAMILIES = ("flash", "open", "where", "count", "when", "order", "after", "goal")

# Events of the coloured scenes: how often each of a video's symbols occurs (three alike make a
# `goal` that is reached twice) ...
_SYMBOL_PATTERN = (0, 0, 0, 1, 1, 2, 2, 3)
# ... and how many corners show it (`count` asks for one to four; `where` needs a single one).
_COUNT_PATTERN = (1, 2, 3, 4, 1, 1, 1, 2)
_LENGTH_SPREAD = 0.08
_STAGGER_SECONDS = 0.5
_NUMBERS: dict[str, type[int] | tuple[type[int], type[float]]] = {
    "scenes": int,
    "event_seconds": (int, float),
    "event_jitter": (int, float),
    "distractors": int,
    "noise": int,
    "width": int,
    "height": int,
    "fps": int,
    "questions": int,
    "seed": int,
}


@dataclass(frozen=True)
class WorldSettings(Dials):
    """The difficulty dials; every field is plain data and part of the cache key.

    The defaults keep a promise: an overview of 16 frames or more shows every scene, and 40 seconds
    next to the frame closest to a scene's noon show its event and no other scene's.
    """

    name: ClassVar[str] = "synthetic"
    asked_at: ClassVar[int] = 0
    """Questions are about scenes that an overview of so many frames shows; 0: about any."""
    minutes: tuple[float, float] = (13.0, 20.0)  # video length, drawn uniformly
    scenes: int = 14  # at least 6; up to eight are coloured, the others are grey decoys
    event_seconds: float = 12.0  # how long an event stays on screen
    event_jitter: float = (
        5.0  # largest distance of an event's centre from its scene's noon, seconds
    )
    distractors: int = 2  # dull blobs drifting through every scene
    noise: int = 3  # largest change of a pixel's brightness by noise, of 255
    width: int = 128  # pixels, even
    height: int = 128  # pixels, even
    fps: int = 8
    questions: int = 12  # per video, balanced over the families
    families: tuple[str, ...] = FAMILIES
    seed: int = 0

    def __post_init__(self) -> None:
        """Check types and ranges, so that a wrong dial fails before anything is written."""
        for name, kind in _NUMBERS.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, kind):
                wanted = "a whole number" if kind is int else "a number"
                raise TaskError(f"synthetic: {name} must be {wanted}, not {value!r}")
        minutes = self.minutes
        if not isinstance(minutes, tuple | list) or len(minutes) != 2:
            raise TaskError(f"synthetic: minutes must be two numbers, not {minutes!r}")
        object.__setattr__(self, "minutes", (float(minutes[0]), float(minutes[1])))
        object.__setattr__(self, "families", tuple(self.families))
        low, high = self.minutes
        checks = {
            "minutes must be shortest and longest, both positive": 0 < low <= high < 1e4,
            "scenes must be at least 6": self.scenes >= 6,
            "event_seconds must be positive": self.event_seconds > 0,
            "event_jitter must be within 0 and half of event_seconds": (
                0 <= self.event_jitter <= self.event_seconds / 2
            ),
            "distractors must be within 0 and 20": 0 <= self.distractors <= 20,
            "noise must be within 0 and 12": 0 <= self.noise <= 12,
            "width and height must be even and at least 64": (
                min(self.width, self.height) >= 64 and not (self.width % 2 or self.height % 2)
            ),
            "seed must not be negative": self.seed >= 0,
            "fps must be within 1 and 120": 1 <= self.fps <= 120,
            "questions must be within 1 and 100": 1 <= self.questions <= 100,
            f"families must be some of {', '.join(FAMILIES)}": (
                bool(self.families) and set(self.families) <= set(FAMILIES)
            ),
        }
        for message, passed in checks.items():
            if not passed:
                raise TaskError(f"synthetic: {message}")
        needed = self.event_seconds + 2 * self.event_jitter + 2 * _STAGGER_SECONDS
        shortest = 60 * low / self.scenes * (1 - _LENGTH_SPREAD)
        if needed > shortest:
            raise TaskError(
                f"synthetic: an event needs {needed:.1f} s around noon, but the shortest of "
                f"{self.scenes} scenes in {low:g} minutes lasts {shortest:.1f} s: take fewer "
                "scenes, a longer video or a shorter event"
            )


@dataclass(frozen=True)
class Event:
    """One symbol in one corner, on screen while start <= t < end (seconds, whole frames)."""

    symbol: str
    corner: str
    start: float
    end: float


@dataclass(frozen=True)
class Scene:
    """A stretch of one background colour, start <= t < end (seconds), and its events."""

    start: float
    end: float
    colour: str
    events: tuple[Event, ...]

    @property
    def noon(self) -> float:
        """When the sun is at the centre of the top edge, seconds."""
        return (self.start + self.end) / 2

    def phase(self, time: float) -> float:
        """How far the sun has travelled at `time`: 0 left edge, 1 right edge."""
        return (time - self.start) / (self.end - self.start)

    @property
    def coloured(self) -> bool:
        """Whether questions can name this scene by its colour."""
        return self.colour in COLOURS

    @property
    def span(self) -> Span:
        """From the first symbol's appearance to the last one's end, seconds."""
        return min(e.start for e in self.events), max(e.end for e in self.events)


@dataclass(frozen=True)
class VideoPlan:
    """Everything that is drawn in one video, and the seed of its textures."""

    name: str
    seed: tuple[int, ...]
    duration: float
    scenes: tuple[Scene, ...]


def plan_video(settings: WorldSettings, split: str, index: int) -> VideoPlan:
    """Plan the `index`-th video of a split; splits draw from disjoint seeds.

    >>> plan = plan_video(WorldSettings(), "train", 0)
    >>> len(plan.scenes), plan == plan_video(WorldSettings(), "train", 0)
    (14, True)
    """
    if split not in SPLITS:
        raise TaskError(f"synthetic: unknown split {split!r}; known: {', '.join(SPLITS)}")
    seed = (settings.seed, SPLITS.index(split), index)
    rng = np.random.default_rng(seed)
    frames = round(rng.uniform(*settings.minutes) * 60 * settings.fps)
    shares = rng.uniform(1 - _LENGTH_SPREAD, 1 + _LENGTH_SPREAD, settings.scenes)
    cuts = np.rint(np.concatenate([[0.0], np.cumsum(shares)]) / shares.sum() * frames).astype(int)
    colours = _scene_colours(settings.scenes, rng)
    coloured = sum(colour in COLOURS for colour in colours)
    palette = rng.permutation(len(SYMBOLS))
    symbols = iter(rng.permutation(_SYMBOL_PATTERN[:coloured]))
    counts = iter(rng.permutation(_COUNT_PATTERN[:coloured]))
    scenes = []
    for start, end, colour in zip(cuts[:-1], cuts[1:], colours, strict=True):
        grey = colour not in COLOURS
        symbol = SYMBOLS[int(rng.integers(len(SYMBOLS))) if grey else palette[next(symbols)]]
        count = 1 if grey else int(next(counts))
        events = _scene_events(settings, int(start), int(end), symbol, count, rng)
        scenes.append(Scene(int(start) / settings.fps, int(end) / settings.fps, colour, events))
    return VideoPlan(f"{split}-{index:05d}", seed, frames / settings.fps, tuple(scenes))


def _scene_colours(scenes: int, rng: np.random.Generator) -> list[str]:
    """Colours in time order, each strong one once, greys between; neighbours always differ."""
    coloured = min(len(COLOURS), max(4, round(scenes * 4 / 7)))
    greys = scenes - coloured
    gaps = np.arange(greys) % (coloured + 1)
    per_gap = rng.permutation(np.bincount(gaps, minlength=coloured + 1))
    order = [COLOURS[i] for i in rng.permutation(len(COLOURS))[:coloured]]
    colours: list[str] = []
    shade = int(rng.integers(2))
    for gap, fillers in enumerate(per_gap):
        for _ in range(fillers):
            colours.append(GREYS[shade])
            shade = 1 - shade
        colours.extend(order[gap : gap + 1])
    return colours


def _scene_events(
    settings: WorldSettings, start: int, end: int, symbol: str, count: int, rng: np.random.Generator
) -> tuple[Event, ...]:
    """The same symbol in `count` corners, near noon; start and end in frames."""
    fps = settings.fps
    length = max(1, round(settings.event_seconds * fps))
    centre = (start + end) / 2 + rng.uniform(-settings.event_jitter, settings.event_jitter) * fps
    first = round(centre - length / 2)
    stagger = rng.integers(0, round(_STAGGER_SECONDS * fps) + 1, count)
    return tuple(
        Event(
            symbol, CORNERS[corner], (first + int(delay)) / fps, (first + int(delay) + length) / fps
        )
        for corner, delay in zip(rng.permutation(len(CORNERS))[:count], stagger, strict=True)
    )
