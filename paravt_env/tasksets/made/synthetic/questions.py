"""Questions about a planned video: eight families over the four published categories.

Third step of the `synthetic` task set. Each question names scenes by what the overview shows (their
colours) and asks for what only a look at the right seconds shows (their events). Gold letters come
from a shuffled deck and gold texts are drawn evenly, so neither a letter nor a word is worth
guessing. A family is one function and one table entry. `paravt data stats` measures the result.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import permutations

import numpy as np

from paravt_env.task import OPTION_LETTERS, Task, TaskError, TaskKind
from paravt_env.tasksets.made.synthetic.world import (
    CORNERS,
    SYMBOLS,
    Scene,
    VideoPlan,
    WorldSettings,
)

COUNTS = ("1", "2", "3", "4")
_DRAWS = 200  # attempts at a question that this video does not have yet


@dataclass(frozen=True)
class Draft:
    """A question before its options are put in order; `asked` scenes hold the evidence."""

    question: str
    answer: str
    wrong: tuple[str, ...]
    asked: tuple[int, ...]
    colours: tuple[str, ...]  # as the question names them
    kind: TaskKind = "mcq"
    ordered: bool = False  # options in natural order, not shuffled


Scenes = tuple[Scene, ...]
Drafter = Callable[[Scenes, np.random.Generator], Draft | None]


def _pick(items: list[int], count: int, rng: np.random.Generator) -> list[int]:
    return [int(i) for i in rng.choice(items, count, replace=False)] if len(items) >= count else []


def _coloured(scenes: Scenes) -> list[int]:
    return [i for i, scene in enumerate(scenes) if scene.coloured]


def _symbol(scene: Scene) -> str:
    return scene.events[0].symbol


def _other_symbols(count: int, rng: np.random.Generator, *taken: str) -> tuple[str, ...]:
    rest = [s for s in SYMBOLS if s not in taken]
    return tuple(rest[int(i)] for i in rng.choice(len(rest), count, replace=False))


def _phrase(rng: np.random.Generator, *phrasings: str) -> str:
    return phrasings[int(rng.integers(len(phrasings)))]


def _flash(scenes: Scenes, rng: np.random.Generator) -> Draft:
    (i,) = _pick(_coloured(scenes), 1, rng)
    colour, symbol = scenes[i].colour, _symbol(scenes[i])
    text = _phrase(
        rng,
        f"Which symbol flashes in the {colour} scene?",
        f"In the {colour} scene, which symbol flashes?",
    )
    return Draft(text, symbol, _other_symbols(3, rng, symbol), (i,), (colour,))


def _open(scenes: Scenes, rng: np.random.Generator) -> Draft:
    (i,) = _pick(_coloured(scenes), 1, rng)
    colour = scenes[i].colour
    text = _phrase(
        rng,
        f"Name the symbol that flashes in the {colour} scene.",
        f"What flashes in the {colour} scene?",
    )
    return Draft(text, _symbol(scenes[i]), (), (i,), (colour,), kind="open")


def _where(scenes: Scenes, rng: np.random.Generator) -> Draft | None:
    single = _pick([i for i in _coloured(scenes) if len(scenes[i].events) == 1], 1, rng)
    if not single:
        return None
    colour, corner = scenes[single[0]].colour, scenes[single[0]].events[0].corner
    text = f"In which corner does a symbol flash in the {colour} scene?"
    return Draft(text, corner, tuple(c for c in CORNERS if c != corner), tuple(single), (colour,))


def _count(scenes: Scenes, rng: np.random.Generator) -> Draft | None:
    number = int(rng.integers(len(COUNTS)))  # drawn first, so that four is as likely as one
    chosen = _pick([i for i in _coloured(scenes) if len(scenes[i].events) == number + 1], 1, rng)
    if not chosen:
        return None
    colour, answer = scenes[chosen[0]].colour, COUNTS[number]
    text = _phrase(
        rng,
        f"How many symbols flash in the {colour} scene?",
        f"In the {colour} scene, how many symbols flash?",
    )
    return Draft(
        text,
        answer,
        tuple(c for c in COUNTS if c != answer),
        tuple(chosen),
        (colour,),
        ordered=True,
    )


def _when(scenes: Scenes, rng: np.random.Generator) -> Draft:
    (i,) = _pick(_coloured(scenes), 1, rng)
    start, end = scenes[i].span
    colour = scenes[i].colour
    text = f"When does a symbol flash in the {colour} scene? Answer start-end in seconds."
    return Draft(text, f"{start:.1f}-{end:.1f}", (), (i,), (colour,), kind="grounding")


def _order(scenes: Scenes, rng: np.random.Generator) -> Draft:
    i, j = sorted(_pick(_coloured(scenes), 2, rng))
    first, second = _symbol(scenes[i]), _symbol(scenes[j])
    # Two candidates for each place: either scene alone leaves a coin to toss.
    (other_first,) = _other_symbols(1, rng, first, second)
    (other_second,) = _other_symbols(1, rng, first, second, other_first)
    wrong = ((first, other_second), (other_first, second), (other_first, other_second))
    one, two = scenes[i].colour, scenes[j].colour
    text = f"Which symbols flash in the {one} scene, then in the {two} scene?"
    return Draft(
        text, f"{first}, {second}", tuple(f"{a}, {b}" for a, b in wrong), (i, j), (one, two)
    )


def _after(scenes: Scenes, rng: np.random.Generator) -> Draft:
    (i,) = _pick([i for i in _coloured(scenes) if i + 1 < len(scenes)], 1, rng)
    colour, symbol = scenes[i].colour, _symbol(scenes[i + 1])
    text = f"Which symbol flashes in the scene right after the {colour} scene?"
    return Draft(text, symbol, _other_symbols(3, rng, symbol), (i + 1,), (colour,))


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
    return Draft(text, outcomes.pop(hits), tuple(outcomes.values()), asked, (goal, one, two))


DRAFTERS: dict[str, tuple[str, Drafter]] = {
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

    Families take turns, going on from one video to the next; one that has run out of scenes gives
    its turn away. A pure function of its arguments.

    Raises:
        TaskError: The video cannot yield that many different questions.
    """
    rng = np.random.default_rng((*plan.seed, 2))
    deck: list[int] = []  # places of the gold options: every four questions use each place once
    metadata = {
        "video": plan.name,
        "duration": plan.duration,
        "event_seconds": settings.event_seconds,
        "event_jitter": settings.event_jitter,
        "scenes": [asdict(scene) for scene in plan.scenes],
    }
    tasks: list[Task] = []
    seen: set[tuple[str, tuple[int, ...]]] = set()
    for number in range(settings.questions):
        turn = index * settings.questions + number
        family, draft = _new_draft(settings.families, turn, plan, rng, seen)
        seen.add((family, draft.asked))
        options = _arrange(draft, deck, rng)
        tasks.append(
            Task(
                id=f"{plan.name}-{number:02d}",
                video=video,
                question=draft.question,
                kind=draft.kind,
                options=options,
                answer=OPTION_LETTERS[options.index(draft.answer)] if options else draft.answer,
                evidence=tuple(plan.scenes[i].span for i in draft.asked),
                category=DRAFTERS[family][0],
                source="synthetic",
                family=family,
                metadata={**metadata, "asked": list(draft.asked), "colours": list(draft.colours)},
            )
        )
    return tasks


def _new_draft(
    families: tuple[str, ...],
    turn: int,
    plan: VideoPlan,
    rng: np.random.Generator,
    seen: set[tuple[str, tuple[int, ...]]],
) -> tuple[str, Draft]:
    """A question not asked yet, of the family whose turn it is or the next that has one."""
    for offset in range(len(families)):
        family = families[(turn + offset) % len(families)]
        for _ in range(_DRAWS):
            draft = DRAFTERS[family][1](plan.scenes, rng)
            if draft is not None and (family, draft.asked) not in seen:
                return family, draft
    raise TaskError(
        f"synthetic: {plan.name} has {len(seen)} different questions; ask fewer or use more scenes"
    )


def _arrange(draft: Draft, deck: list[int], rng: np.random.Generator) -> tuple[str, ...]:
    """Options with the gold one where the deck says; none unless multiple choice."""
    if draft.kind != "mcq":
        return ()
    if draft.ordered:
        return tuple(sorted((draft.answer, *draft.wrong)))
    if not deck:
        deck += rng.permutation(1 + len(draft.wrong)).tolist()
    options = [draft.wrong[int(i)] for i in rng.permutation(len(draft.wrong))]
    options.insert(deck.pop(), draft.answer)
    return tuple(options)
