"""Questions about a planned video: eight families over the four published categories.

Third step of the `synthetic` task set. Each question names scenes by what the overview shows (their
colours) and asks for what only a look at the right seconds shows (their events). Gold letters come
from a shuffled deck and gold texts are drawn evenly, so neither a letter nor a word is worth
guessing. A family is one function and one table entry. `paravt data stats` measures the result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from itertools import permutations
from typing import Any

import numpy as np

from paravt_env.task import Task, TaskError
from paravt_env.tasksets.made.drafts import Draft, Drafter, pick, take_turns, tasks_of
from paravt_env.tasksets.made.synthetic.world import (
    CORNERS,
    SYMBOLS,
    Scene,
    VideoPlan,
    WorldSettings,
)
from paravt_env.video.sampler import overview_times

COUNTS = ("1", "2", "3", "4")
_DRAWS = 200  # attempts at a question that this video does not have yet


Scenes = tuple[Scene, ...]


def _coloured(scenes: Scenes) -> list[int]:
    return [i for i, scene in enumerate(scenes) if scene.coloured]


def _symbol(scene: Scene) -> str:
    return scene.events[0].symbol


def _other_symbols(count: int, rng: np.random.Generator, *taken: str) -> tuple[str, ...]:
    return tuple(pick([s for s in SYMBOLS if s not in taken], count, rng))


def _about(scenes: Scenes, asked: Sequence[int], *colours: str) -> dict[str, Any]:
    """Where a draft's evidence lies: the scenes that are asked about, and how they are named."""
    return {
        "evidence": tuple(scenes[i].span for i in asked),
        "metadata": {"asked": list(asked), "colours": list(colours)},
    }


def _phrase(rng: np.random.Generator, *phrasings: str) -> str:
    return phrasings[int(rng.integers(len(phrasings)))]


def _flash(scenes: Scenes, rng: np.random.Generator) -> Draft:
    (i,) = pick(_coloured(scenes), 1, rng)
    colour, symbol = scenes[i].colour, _symbol(scenes[i])
    text = _phrase(
        rng,
        f"Which symbol flashes in the {colour} scene?",
        f"In the {colour} scene, which symbol flashes?",
    )
    wrong = _other_symbols(3, rng, symbol)
    return Draft(text, symbol, wrong=wrong, **_about(scenes, (i,), colour))


def _open(scenes: Scenes, rng: np.random.Generator) -> Draft:
    (i,) = pick(_coloured(scenes), 1, rng)
    colour = scenes[i].colour
    text = _phrase(
        rng,
        f"Name the symbol that flashes in the {colour} scene.",
        f"What flashes in the {colour} scene?",
    )
    return Draft(text, _symbol(scenes[i]), kind="open", **_about(scenes, (i,), colour))


def _where(scenes: Scenes, rng: np.random.Generator) -> Draft | None:
    single = pick([i for i in _coloured(scenes) if len(scenes[i].events) == 1], 1, rng)
    if not single:
        return None
    colour, corner = scenes[single[0]].colour, scenes[single[0]].events[0].corner
    text = f"In which corner does a symbol flash in the {colour} scene?"
    wrong = tuple(c for c in CORNERS if c != corner)
    return Draft(text, corner, wrong=wrong, **_about(scenes, single, colour))


def _count(scenes: Scenes, rng: np.random.Generator) -> Draft | None:
    number = int(rng.integers(len(COUNTS)))  # drawn first, so that four is as likely as one
    chosen = pick([i for i in _coloured(scenes) if len(scenes[i].events) == number + 1], 1, rng)
    if not chosen:
        return None
    colour, answer = scenes[chosen[0]].colour, COUNTS[number]
    text = _phrase(
        rng,
        f"How many symbols flash in the {colour} scene?",
        f"In the {colour} scene, how many symbols flash?",
    )
    wrong = tuple(c for c in COUNTS if c != answer)
    return Draft(text, answer, wrong=wrong, ordered=True, **_about(scenes, chosen, colour))


def _when(scenes: Scenes, rng: np.random.Generator) -> Draft:
    (i,) = pick(_coloured(scenes), 1, rng)
    start, end = scenes[i].span
    colour = scenes[i].colour
    text = f"When does a symbol flash in the {colour} scene? Answer start-end in seconds."
    about = _about(scenes, (i,), colour)
    return Draft(text, f"{start:.1f}-{end:.1f}", kind="grounding", **about)


def _order(scenes: Scenes, rng: np.random.Generator) -> Draft:
    i, j = sorted(pick(_coloured(scenes), 2, rng))
    first, second = _symbol(scenes[i]), _symbol(scenes[j])
    # Two candidates for each place: either scene alone leaves a coin to toss.
    (other_first,) = _other_symbols(1, rng, first, second)
    (other_second,) = _other_symbols(1, rng, first, second, other_first)
    wrong = ((first, other_second), (other_first, second), (other_first, other_second))
    one, two = scenes[i].colour, scenes[j].colour
    text = f"Which symbols flash in the {one} scene, then in the {two} scene?"
    names = tuple(f"{a}, {b}" for a, b in wrong)
    return Draft(text, f"{first}, {second}", wrong=names, **_about(scenes, (i, j), one, two))


def _after(scenes: Scenes, rng: np.random.Generator) -> Draft:
    (i,) = pick([i for i in _coloured(scenes) if i + 1 < len(scenes)], 1, rng)
    colour, symbol = scenes[i].colour, _symbol(scenes[i + 1])
    text = f"Which symbol flashes in the scene right after the {colour} scene?"
    wrong = _other_symbols(3, rng, symbol)
    return Draft(text, symbol, wrong=wrong, **_about(scenes, (i + 1,), colour))


def _goal(scenes: Scenes, rng: np.random.Generator) -> Draft | None:
    def reached(triple: tuple[int, ...]) -> tuple[bool, bool]:
        goal, one, two = (_symbol(scenes[i]) for i in triple)
        return one == goal, two == goal

    hits = (
        bool(rng.integers(2)),
        bool(rng.integers(2)),
    )  # drawn first, so that "both" is as likely as "neither"
    triples = [triple for triple in permutations(_coloured(scenes), 3) if reached(triple) == hits]
    if not triples:
        return None
    asked = triples[int(rng.integers(len(triples)))]
    goal, one, two = (scenes[i].colour for i in asked)
    outcomes = {
        (True, False): one,
        (False, True): two,
        (True, True): "both",
        (False, False): "neither",
    }
    text = f"The goal is the symbol of the {goal} scene. Which scene reaches it, {one} or {two}?"
    answer, wrong = outcomes.pop(hits), tuple(outcomes.values())
    return Draft(text, answer, wrong=wrong, **_about(scenes, asked, goal, one, two))


DRAFTERS: dict[str, tuple[str, Drafter[Scenes]]] = {
    "flash": ("plot", _flash),
    "open": ("plot", _open),
    "where": ("spatial", _where),
    "count": ("plot", _count),
    "when": ("temporal", _when),
    "order": ("temporal", _order),
    "after": ("temporal", _after),
    "goal": ("goal", _goal),
}


def make_tasks(plan: VideoPlan, settings: WorldSettings, index: int, video: str) -> list[Task]:
    """Ask `settings.questions` different questions about the `index`-th video of a split.

    Families take turns, also across videos; one that has run out of scenes gives its turn to the
    next. A pure function of its arguments.

    Raises:
        TaskError: The video cannot yield that many different questions.
    """
    rng = np.random.default_rng((*plan.seed, 2))
    metadata = {
        "video": plan.name,
        "duration": plan.duration,
        "event_seconds": settings.event_seconds,
        "event_jitter": settings.event_jitter,
        "scenes": [asdict(scene) for scene in plan.scenes],
    }
    shown = _shown_scenes(plan, settings.asked_at)

    def draw(family: str) -> Draft | None:
        draft = DRAFTERS[family][1](plan.scenes, rng)
        return draft if draft and shown.issuperset(draft.metadata["asked"]) else None

    first = index * settings.questions
    turns = range(first, first + settings.questions)
    drafts = take_turns(settings.families, draw, turns, _DRAWS)
    tasks = tasks_of(
        plan.name, drafts, DRAFTERS, rng, _shuffled, metadata, video=video, source="synthetic"
    )
    if len(tasks) < settings.questions:
        raise TaskError(
            f"synthetic: {plan.name} has {len(tasks)} different questions; ask fewer or use more "
            "scenes"
        )
    return tasks


def _shown_scenes(plan: VideoPlan, frames: int) -> set[int]:
    """The scenes that may be asked about: those that an overview of `frames` shows; 0: all."""
    if not frames:
        return set(range(len(plan.scenes)))
    starts = [scene.start for scene in plan.scenes]
    times = overview_times(plan.duration, frames)
    return set((np.searchsorted(starts, times, side="right") - 1).tolist())


def _shuffled(options: Sequence[str], rng: np.random.Generator) -> list[str]:
    return [options[int(i)] for i in rng.permutation(len(options))]
