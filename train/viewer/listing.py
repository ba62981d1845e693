"""Rollouts as a list shows them, and what it can be filtered by.

Between the index of kept rollouts, or the rows of an evaluation, and the pages. Pure; tests:
`pytest tests/viewer/test_runs.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass
from sys import intern
from typing import Any, NamedTuple

from train.evaluation.row import EvalRow
from train.viewer.errors import CannotShow

CORRECT_FROM = 0.5
"""A score above it counts as right."""
ALL_STEPS = "steps"


@dataclass(frozen=True)
class Source:
    """Where rollouts come from: a step (from 0), all steps, or an evaluation."""

    step: int | None = None
    evaluation: str = ""

    @classmethod
    def parse(cls, text: str) -> Source:
        """`step:12`, `steps` or `eval:after`.

        Raises:
            CannotShow: Something else.

        >>> Source.parse("step:12"), str(Source.parse("eval:after"))
        (Source(step=12, evaluation=''), 'eval:after')
        """
        kind, _, rest = text.partition(":")
        if text == ALL_STEPS:
            return cls()
        if kind == "step" and rest.isascii() and rest.isdecimal() and len(rest) < 10:
            return cls(int(rest))
        if kind == "eval" and rest:
            return cls(evaluation=rest)
        raise CannotShow(f"{text[:40]!r} is no source of rollouts", 400)

    def __str__(self) -> str:
        if self.evaluation:
            return f"eval:{self.evaluation}"
        return ALL_STEPS if self.step is None else f"step:{self.step}"

    @property
    def title(self) -> str:
        """In words; steps are counted from 1, as in the curves."""
        if self.evaluation:
            return f"evaluation {self.evaluation}"
        return "all steps" if self.step is None else f"step {self.step + 1}"


class Listed(NamedTuple):
    """What a list says of one rollout; the names are those of `train.common.rollout_file.LISTED`.

    `place` is its number in its source, by which its page is found.
    """

    place: int
    group: int
    member: int
    task_id: str
    family: str
    frame_budget: int
    correct: float
    reward: float
    compliant: bool
    calls: int
    executed: int
    forced: bool
    stop_reason: str
    error: str
    answer: str


OUTCOMES: dict[str, Callable[[Listed], bool]] = {
    "right": lambda one: not one.error and one.correct > CORRECT_FROM,
    "wrong": lambda one: not one.error and one.correct <= CORRECT_FROM,
    "no call": lambda one: not one.error and not one.calls,
    "form lost": lambda one: not one.error and not one.compliant,
    "call failed": lambda one: one.executed < one.calls,
    "forced answer": lambda one: one.forced,
    "not scored": lambda one: bool(one.error),
}
"""Outcomes that a list can be filtered by."""


@dataclass(frozen=True)
class Filter:
    """What a list shows; "" or None shows all."""

    outcome: str = ""
    frame_budget: int | None = None
    family: str | None = None

    @property
    def shows_all(self) -> bool:
        """Whether nothing is filtered out."""
        return not self.outcome and self.frame_budget is None and self.family is None

    def may_keep(self, families: Container[str], frame_budgets: Container[int]) -> bool:
        """Whether rollouts of these families and frame budgets can be shown."""
        return (self.frame_budget is None or self.frame_budget in frame_budgets) and (
            self.family is None or self.family in families
        )

    def keeps(self, one: Listed) -> bool:
        """Whether a rollout is shown."""
        return (
            (self.frame_budget is None or self.frame_budget == one.frame_budget)
            and (self.family is None or self.family == one.family)
            and (not self.outcome or OUTCOMES[self.outcome](one))
        )


def from_index(rows: Iterable[Sequence[Any]]) -> tuple[Listed, ...]:
    """The rollouts of a line of the index.

    Raises:
        TypeError, ValueError: A value is of another kind than is written there.
    """
    return tuple(
        Listed(
            place,
            int(group),
            int(member),
            str(task),
            intern(str(family)),
            int(budget),
            float(correct),
            float(reward),
            bool(compliant),
            int(calls),
            int(executed),
            bool(forced),
            intern(str(reason)),
            str(error)[:80],
            str(answer)[:80],
        )
        for place, (
            group,
            member,
            task,
            family,
            budget,
            correct,
            reward,
            compliant,
            calls,
            executed,
            forced,
            reason,
            error,
            answer,
        ) in enumerate(rows)
    )


def from_rows(rows: Sequence[EvalRow], max_turns: int) -> tuple[Listed, ...]:
    """The rows of an evaluation; a group is a task, its members are the frame budgets."""
    groups: dict[str, list[int]] = {}
    for place, row in enumerate(rows):
        groups.setdefault(row.task_id, []).append(place)
    numbers = {task: number for number, task in enumerate(groups)}
    return tuple(
        Listed(
            place,
            numbers[row.task_id],
            groups[row.task_id].index(place),
            row.task_id,
            row.family,
            row.frame_budget,
            row.score,
            row.reward,
            row.compliant,
            row.calls,
            row.executed,
            len(row.turns) > max_turns,
            str(row.stop_reason),
            row.error[:80],
            row.answer[:80],
        )
        for place, row in enumerate(rows)
    )
