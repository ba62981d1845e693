"""A question that is not yet a task, and the random choice that all families share.

Below the families of `interruptions` and `happenings`. Run `pytest
tests/tasksets/test_tasksets_atari.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from paravt_env.task import TaskKind
from paravt_env.tasksets.made.atari.moments import Aired, Span

T = TypeVar("T")


@dataclass(frozen=True)
class Draft:
    """A question before its options are put in order."""

    question: str
    answer: str
    evidence: tuple[Span, ...]
    wrong: tuple[str, ...] = ()
    kind: TaskKind = "mcq"
    ordered: bool = False  # options stay in the order in which a reader expects them


def pick(items: Sequence[T], count: int, rng: np.random.Generator) -> list[T]:
    """`count` of the items in random order, none where there are fewer."""
    if len(items) < count:
        return []
    return [items[int(i)] for i in rng.choice(len(items), count, replace=False)]


Drafter = Callable[[list[Aired], np.random.Generator], Draft | None]
