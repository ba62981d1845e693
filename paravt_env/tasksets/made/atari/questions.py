"""Questions about a recording: eleven families over four categories, answered by the emulator.

Fifth step of the `atari` task set. A question names a programme or a moment, which an overview
shows, and asks for what only a look at the right seconds shows. Gold letters come from a shuffled
deck: no letter is worth guessing. A family is one function and one table entry; one that a video
does not allow gives its turn to the next.
"""

from __future__ import annotations

from collections.abc import Hashable

import numpy as np

from paravt_env.task import OPTION_LETTERS, Task, TaskError
from paravt_env.tasksets.made.atari import happenings, interruptions
from paravt_env.tasksets.made.atari.drafts import Draft, Drafter, pick
from paravt_env.tasksets.made.atari.moments import Aired, aired
from paravt_env.tasksets.made.atari.plan import AtariSettings
from paravt_env.tasksets.made.atari.record import Recording

_DRAWS = 60  # attempts at a question that this video does not have yet


DRAFTERS: dict[str, tuple[str, Drafter]] = {
    "cut": ("plot", interruptions.cut),
    "lives": ("plot", happenings.lives),
    "which": ("temporal", interruptions.which),
    "score": ("plot", happenings.score),
    "when": ("temporal", interruptions.when),
    "rooms": ("spatial", happenings.rooms),
    "order": ("temporal", interruptions.order),
    "number": ("plot", happenings.number),
    "after": ("temporal", interruptions.after),
    "final": ("plot", happenings.final),
    "goal": ("goal", happenings.goal),
}


def make_tasks(recording: Recording, settings: AtariSettings, index: int, video: str) -> list[Task]:
    """Ask `settings.questions` different questions about the `index`-th video of a split.

    Families take turns, going on from one video to the next. A pure function of its arguments.

    Raises:
        TaskError: The video cannot yield that many different questions.
    """
    plan = recording.plan
    rng = np.random.default_rng((*plan.seed, 1))
    shows = aired(recording)
    deck: list[int] = []  # places of the gold options: every four questions use each place once
    metadata = {"video": plan.name, "duration": plan.duration, "programmes": _programmes(shows)}
    tasks: list[Task] = []
    seen: set[Hashable] = set()
    for number in range(settings.questions):
        turn = index * settings.questions + number
        family, draft = _new_draft(settings.families, turn, shows, rng, seen, plan.name)
        seen |= {draft.question, (family, *draft.evidence)}
        options = _arrange(draft, deck, rng)
        tasks.append(
            Task(
                id=f"{plan.name}-{number:02d}",
                video=video,
                question=draft.question,
                kind=draft.kind,
                options=options,
                answer=OPTION_LETTERS[options.index(draft.answer)] if options else draft.answer,
                evidence=draft.evidence,
                category=DRAFTERS[family][0],
                source="atari",
                family=family,
                metadata=metadata,
            )
        )
    return tasks


def _programmes(shows: list[Aired]) -> list[dict[str, object]]:
    """What is on when, as plain data."""
    listed: list[dict[str, object]] = []
    for show in shows:
        shot, cut = show.programme.shot, show.programme.cut
        entry: dict[str, object] = {
            "game": shot.game, "player": shot.style, "start": shot.start, "end": shot.end
        }  # fmt: skip
        if cut:
            entry["cut"] = {"game": cut.game, "start": cut.start, "end": cut.end}
        listed.append(entry)
    return listed


def _new_draft(
    families: tuple[str, ...],
    turn: int,
    shows: list[Aired],
    rng: np.random.Generator,
    seen: set[Hashable],
    name: str,
) -> tuple[str, Draft]:
    """A question not asked yet, of the family whose turn it is or the next that has one."""
    for offset in range(len(families)):
        family = families[(turn + offset) % len(families)]
        for _ in range(_DRAWS):
            draft = DRAFTERS[family][1](shows, rng)
            if draft and not seen & {draft.question, (family, *draft.evidence)}:
                return family, draft
    raise TaskError(
        f"atari: {name} has {len(seen) // 2} different questions; ask fewer, of more families, or "
        "record longer videos"
    )


def _arrange(draft: Draft, deck: list[int], rng: np.random.Generator) -> tuple[str, ...]:
    """Options with the gold one where the deck says; none unless multiple choice."""
    if draft.kind != "mcq":
        return ()
    if draft.ordered:
        return tuple(sorted((draft.answer, *draft.wrong)))
    if not deck:
        deck += rng.permutation(1 + len(draft.wrong)).tolist()
    options = pick(draft.wrong, len(draft.wrong), rng)
    options.insert(deck.pop(), draft.answer)
    return tuple(options)
