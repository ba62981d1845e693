"""What a perfect reader knows of a synthetic video from a few frames, and what it would do next.

The rules here use what is on screen at the given times and nothing else: background colours, the
sun's place, visible symbols. They serve the scripted oracle, the traces of the cold start and the
statistics (`paravt data stats`). All functions are pure; run `pytest
tests/tasksets/test_synthetic_oracle.py`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from paravt_env.crop import Window
from paravt_env.task import OPTION_LETTERS, Task
from paravt_env.tasksets.made.synthetic.world import SYMBOLS, Event, Scene

# With the default dials, this much next to the frame closest to noon holds the event.
CROP_SECONDS = 40.0
Times = Sequence[float] | np.ndarray  # seconds
_EPSILON = 1e-6  # times of frames are multiples of 1 / fps up to rounding


@dataclass(frozen=True)
class Cue:
    """What the frame at `time` shows: the sun's `phase` (0 left, 1 right), symbols with corners."""

    time: float
    scene: int
    colour: str
    phase: float
    symbols: tuple[tuple[str, str], ...]

    @property
    def sun_left(self) -> bool:
        """Whether noon is still ahead."""
        return self.phase < 0.5


@dataclass(frozen=True)
class Sighting:
    """One symbol seen in a crop: `first` and `last` frame that show it, in seconds.

    `start` and `end` are estimates: half-way to the neighbouring frames without it, or the crop's
    own first and last frame.
    """

    scene: int
    colour: str
    symbol: str
    corner: str
    first: float
    last: float
    start: float
    end: float


def scenes_of(task: Task) -> tuple[Scene, ...]:
    """The planned scenes of a synthetic task's video."""
    return tuple(
        Scene(s["start"], s["end"], s["colour"], tuple(Event(**event) for event in s["events"]))
        for s in task.metadata["scenes"]
    )


def visible_cues(task: Task, timestamps: Times) -> tuple[Cue, ...]:
    """What the frames at `timestamps` (seconds) show, in the same order."""
    scenes = scenes_of(task)
    starts = [scene.start for scene in scenes]
    cues = []
    for time in timestamps:
        index = max(0, bisect_right(starts, float(time) + _EPSILON) - 1)
        scene = scenes[index]
        symbols = tuple((e.symbol, e.corner) for e in scene.events if _on_screen(e, time))
        cues.append(
            Cue(
                float(time),
                index,
                scene.colour,
                min(max(scene.phase(float(time)), 0.0), 1.0),
                symbols,
            )
        )
    return tuple(cues)


def asked_scenes(task: Task, cues: Sequence[Cue]) -> tuple[int | None, ...]:
    """The scenes that the question is about as far as the frames tell; `None` where not seen.

    For `after` it is the scene of the first later frame that has another colour: with a sparse
    overview that may be the wrong one.
    """
    colours = task.metadata["colours"]
    if task.family != "after":
        return tuple(
            next((cue.scene for cue in cues if cue.colour == colour), None) for colour in colours
        )
    ordered = sorted(cues, key=lambda cue: cue.time)
    places = [i for i, cue in enumerate(ordered) if cue.colour == colours[0]]
    following = ordered[places[-1] + 1 :] if places else []
    return (following[0].scene if following else None,)


def cue_windows(
    task: Task,
    overview_timestamps: Times,
    seconds: float = CROP_SECONDS,
    needed_only: bool = True,
    whole_seconds: bool = True,
) -> list[Window]:
    """The windows that a policy which has only seen the overview asks for, in asked order.

    For each asked scene it takes the frame closest to noon: sun on the left, the event is ahead,
    (t, t + seconds); on the right, it is over, (t - seconds, t); a frame that shows the event is
    put in the middle of the window. Scenes that no frame shows are skipped.

    Args:
        task: A synthetic task.
        overview_timestamps: Seconds.
        seconds: Length of a window.
        needed_only: Leave out scenes whose event the overview shows, unless the question is when it
            happens.
        whole_seconds: Round t, as prompts show it.
    """
    cues = visible_cues(task, overview_timestamps)
    windows = []
    for scene in asked_scenes(task, cues):
        frames = [cue for cue in cues if cue.scene == scene]
        if not frames:
            continue
        seen = [cue for cue in frames if cue.symbols]
        if seen and needed_only and task.kind != "grounding":
            continue
        best = min(seen or frames, key=lambda cue: abs(cue.phase - 0.5))
        time = float(np.floor(best.time + 0.5)) if whole_seconds else best.time
        start = time - seconds / 2 if seen else time if best.sun_left else time - seconds
        windows.append((max(0.0, start), start + seconds))
    return windows


def read_window(task: Task, timestamps: Times) -> tuple[Sighting, ...]:
    """Every symbol that the frames of one crop (or an overview) show, in order of appearance."""
    times = sorted(float(t) for t in timestamps)
    readings = []
    for index, scene in enumerate(scenes_of(task)):
        for event in scene.events:
            shown = [i for i, time in enumerate(times) if _on_screen(event, time)]
            if shown:
                first, last = times[shown[0]], times[shown[-1]]
                before = times[shown[0] - 1] if shown[0] > 0 else first
                after = times[shown[-1] + 1] if shown[-1] + 1 < len(times) else last
                start, end = (before + first) / 2, (last + after) / 2
                readings.append(
                    Sighting(
                        index, scene.colour, event.symbol, event.corner, first, last, start, end
                    )
                )
    return tuple(sorted(readings, key=lambda reading: (reading.first, reading.scene)))


def possible_answers(
    task: Task, readings: Sequence[Sighting], asked: Sequence[int | None] | None = None
) -> tuple[str, ...]:
    """Answers that agree with what was read: letters, texts, or at most one span for grounding.

    Args:
        task: A synthetic task.
        readings: Symbols seen so far, of any scene.
        asked: The scenes that the policy takes the question to be about (`asked_scenes`); default
            the right ones.
    """
    scenes = task.metadata["asked"] if asked is None else asked
    seen = [[r for r in readings if scene is not None and r.scene == scene] for scene in scenes]
    if task.kind == "grounding":
        return (
            (f"{min(r.start for r in seen[0]):.1f}-{max(r.end for r in seen[0]):.1f}",)
            if seen[0]
            else ()
        )
    symbols = [found[0].symbol if found else None for found in seen]
    if task.kind == "open":
        return (symbols[0],) if symbols[0] else SYMBOLS
    if task.family == "where":
        known = {seen[0][0].corner} if seen[0] else set(task.options)
    elif task.family == "count":
        known = {str(len({r.corner for r in seen[0]}))} if seen[0] else set(task.options)
    elif task.family == "goal":
        known = _goal_outcomes(symbols, task.metadata["colours"])
    else:
        known = {
            option
            for option in task.options
            if all(
                s is None or s == part for s, part in zip(symbols, option.split(", "), strict=True)
            )
        }
    return tuple(
        letter
        for letter, option in zip(OPTION_LETTERS, task.options, strict=False)
        if option in known
    )


def answer_from_readings(
    task: Task, readings: Sequence[Sighting], asked: Sequence[int | None] | None = None
) -> str | None:
    """The answer if the readings leave exactly one, else `None`."""
    answers = possible_answers(task, readings, asked)
    return answers[0] if len(answers) == 1 else None


def guess_span(task: Task, overview_timestamps: Times) -> str | None:
    """The best answer to a `when` question without a crop.

    An event of known length around the frames that show it, or around noon.

    `None` where no frame shows the scene.
    """
    cues = visible_cues(task, overview_timestamps)
    frames = [cue for cue in cues if cue.scene == asked_scenes(task, cues)[0]]
    if not frames:
        return None
    seen = [cue.time for cue in frames if cue.symbols]
    if seen:
        middle = (min(seen) + max(seen)) / 2
    else:
        nearest = min(frames, key=lambda cue: abs(cue.phase - 0.5))
        scene_seconds = task.metadata["duration"] / len(task.metadata["scenes"])
        middle = nearest.time + (0.5 - nearest.phase) * scene_seconds
    half = task.metadata["event_seconds"] / 2
    return f"{max(0.0, middle - half):.1f}-{middle + half:.1f}"


def _on_screen(event: Event, time: float) -> bool:
    return event.start - _EPSILON <= time < event.end - _EPSILON


def _goal_outcomes(symbols: Sequence[str | None], colours: Sequence[str]) -> set[str]:
    """Outcomes of a `goal` question that agree with the symbols known so far (goal, one, two)."""
    goal, one, two = symbols
    names = {
        (True, False): colours[1],
        (False, True): colours[2],
        (True, True): "both",
        (False, False): "neither",
    }
    possible = set()
    for (hit_one, hit_two), name in names.items():
        fits_one = goal is None or one is None or (one == goal) == hit_one
        fits_two = goal is None or two is None or (two == goal) == hit_two
        fits_pair = (
            one is None
            or two is None
            or (hit_one == hit_two if one == two else not (hit_one and hit_two))
        )
        if fits_one and fits_two and fits_pair:
            possible.add(name)
    return possible
