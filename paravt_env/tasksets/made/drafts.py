"""Questions that are not yet tasks: what the families of all made task sets share.

Between a plan or a recording and the tasks of a manifest: a family draws a `Draft`, families take
turns until there are enough different ones, and the gold option stands where a shuffled deck says.
The generator's draws are part of a set: another order of them would ask other questions. Run the
tests with `pytest tests/tasksets/test_synthetic.py tests/tasksets/test_tasksets_atari.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from paravt_env.span import Span
from paravt_env.task import OPTION_LETTERS, Task, TaskKind

T = TypeVar("T")


@dataclass(frozen=True)
class Draft:
    """A question before its options are put in order.

    Attributes:
        question: In words.
        answer: In words, too.
        evidence: Seconds that a reader has to see.
        wrong: The other options.
        kind: The task's.
        ordered: Options stay in the order in which a reader expects them.
        metadata: What the task's metadata say of it.
    """

    question: str
    answer: str
    evidence: tuple[Span, ...]
    wrong: tuple[str, ...] = ()
    kind: TaskKind = "mcq"
    ordered: bool = False
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def as_task(self, options: tuple[str, ...], **fields: Any) -> Task:
        """The task, its options as `arrange` put them; `fields` are what a draft does not know."""
        return Task(
            question=self.question,
            kind=self.kind,
            options=options,
            answer=OPTION_LETTERS[options.index(self.answer)] if options else self.answer,
            evidence=self.evidence,
            **fields,
        )


Drafter = Callable[[T, np.random.Generator], Draft | None]
"""A family: draws a question about a video's contents; None where this draw leads nowhere."""


def pick(items: Sequence[T], count: int, rng: np.random.Generator) -> list[T]:
    """`count` of the items in random order, none where there are fewer."""
    if len(items) < count:
        return []
    return [items[int(i)] for i in rng.choice(len(items), count, replace=False)]


def take_turns(
    families: Sequence[str],
    draw: Callable[[str], Draft | None],
    turns: Iterable[int],
    attempts: int,
) -> Iterator[tuple[str, Draft]]:
    """Different questions, each with its family, as long as some family has another one.

    One is drawn when it is asked for, so that whatever a caller draws for it comes before the next.

    Args:
        families: Turn n is that of the n-th, in a circle; one that has no other question gives its
            turn to the next.
        draw: A question of a family.
        turns: Their numbers, counted across videos.
        attempts: Draws after which a family has no other question.
    """
    seen: set[Hashable] = set()
    for turn in turns:
        found = _another(families, draw, turn, attempts, seen)
        if found is None:
            return
        family, draft = found
        seen |= {draft.question, (family, *draft.evidence)}
        yield found


def _another(
    families: Sequence[str],
    draw: Callable[[str], Draft | None],
    turn: int,
    attempts: int,
    seen: set[Hashable],
) -> tuple[str, Draft] | None:
    for offset in range(len(families)):
        family = families[(turn + offset) % len(families)]
        for _ in range(attempts):
            draft = draw(family)
            if draft and not seen & {draft.question, (family, *draft.evidence)}:
                return family, draft
    return None


def arrange(
    draft: Draft,
    deck: list[int],
    rng: np.random.Generator,
    shuffled: Callable[[Sequence[str], np.random.Generator], list[str]],
) -> tuple[str, ...]:
    """Options with the gold one where the deck says; none unless multiple choice.

    Args:
        draft: The question.
        deck: Places of the gold options of a video, used up from the end and dealt anew when it is
            empty: every four questions use each place once.
        rng: The video's generator.
        shuffled: The wrong options in random order.
    """
    if draft.kind != "mcq":
        return ()
    if draft.ordered:
        return tuple(sorted((draft.answer, *draft.wrong)))
    if not deck:
        deck += rng.permutation(1 + len(draft.wrong)).tolist()
    options = shuffled(draft.wrong, rng)
    options.insert(deck.pop(), draft.answer)
    return tuple(options)


def tasks_of(
    name: str,
    drafts: Iterable[tuple[str, Draft]],
    drafters: Mapping[str, tuple[str, Any]],
    rng: np.random.Generator,
    shuffled: Callable[[Sequence[str], np.random.Generator], list[str]],
    metadata: Mapping[str, Any],
    **fields: Any,
) -> list[Task]:
    """The tasks of one video, numbered, each with its options as `arrange` puts them.

    Args:
        name: The video's, in front of the number.
        drafts: From `take_turns`.
        drafters: Category and drafter of each family.
        rng: The video's generator.
        shuffled: As in `arrange`.
        metadata: What all of them say; a draft's own come on top.
        fields: What all of them share of a task.
    """
    deck: list[int] = []
    return [
        draft.as_task(
            arrange(draft, deck, rng, shuffled),
            id=f"{name}-{number:02d}",
            category=drafters[family][0],
            family=family,
            metadata={**metadata, **draft.metadata},
            **fields,
        )
        for number, (family, draft) in enumerate(drafts)
    ]
