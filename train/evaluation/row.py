"""One row of an evaluation: the rollout of one task at one frame budget, beside its gold answer.

Between `train.evaluation.evaluate`, which plays, and the report. A row with an error has score 0
and stays in every mean. Pure functions; tests: `pytest tests/evaluation/test_scores.py`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from operator import attrgetter
from typing import Any

from paravt_env.common.infos import plain
from paravt_env.rewards.terms.answer import score_answer
from paravt_env.span import parse_span, temporal_iou
from paravt_env.task import Task
from train.rollout.play import Rollout
from train.rollout.record import DIGITS, weighted_terms
from train.rollout.starts import Start

MAX_COMPLETION = 20_000
"""Characters of a turn's text that a row keeps; what was cut is counted at its end."""
DURATIONS = ((120.0, "under 2 min"), (900.0, "2-15 min"), (3600.0, "15-60 min"))
"""Upper ends in seconds of the groups of videos whose source names none."""
LAYOUT = (
    *("task_id", "video", "family", "category", "kind", "frame_budget", "question", "gold"),
    *("evidence", "score", "majority", "reward", "compliant", "calls", "executed", "parallel"),
    *("frames_seen", "evidence_recall", "stop_reason", "answer", "error", "turns", "error_kind"),
    *("duration", "duration_group", "usage", "span_iou", "blind", "untagged", "lapses", "terms"),
)
"""Names of a row's values in reports and row files, in order."""
PLAYED = (
    *("task_id", "video", "family", "category", "frame_budget", "reward", "compliant", "calls"),
    *("executed", "parallel", "frames_seen", "stop_reason", "answer", "error"),
)
"""Those that are the rollout's as they stand."""
PLAYED_LATER = ("duration", "usage", "untagged", "lapses")
"""The rollout's too, which older reports lack."""
RowKey = tuple[str, int | None]
"""What a row answers: the task and the frame budget asked for (None: the environment samples)."""


@dataclass(frozen=True, eq=False)
class EvalRow:
    """One task at one frame budget.

    What is asked of the rollout is asked of the row by the same name: `row.calls`, `row.turns`.

    Attributes:
        rollout: As it was played, its turns as plain data; without the trajectories and the
            unweighted terms, which are not written. `frame_budget` is the one asked for.
        kind: Kind of the question.
        question: The prompt's question with its options.
        gold: The correct answer.
        evidence: Spans of the gold evidence, seconds.
        majority: What the most frequent answer of the task's family scores here.
        duration_group: Length of the video as the source names it, or by its seconds.
        span_iou: Temporal IoU of the answer with the gold span; None for other kinds.
        blind: Score of the same task without any frame; None where that was not played.
        terms: Reward terms with their weights in, which add up to `reward`; empty in rows of older
            reports, and where nothing was scored.
    """

    rollout: Rollout
    kind: str
    question: str
    gold: str
    evidence: tuple[tuple[float, float], ...]
    majority: float
    duration_group: str = ""
    span_iou: float | None = None
    blind: float | None = None
    terms: Mapping[str, float] = field(default_factory=dict)

    task_id = property(attrgetter("rollout.task_id"))
    video = property(attrgetter("rollout.video"))
    family = property(attrgetter("rollout.family"))
    category = property(attrgetter("rollout.category"))
    frame_budget = property(attrgetter("rollout.frame_budget"))
    reward = property(attrgetter("rollout.reward"))
    compliant = property(attrgetter("rollout.compliant"))
    calls = property(attrgetter("rollout.calls"))
    executed = property(attrgetter("rollout.executed"))
    parallel = property(attrgetter("rollout.parallel"))
    frames_seen = property(attrgetter("rollout.frames_seen"))
    stop_reason = property(attrgetter("rollout.stop_reason"))
    answer = property(attrgetter("rollout.answer"))
    error = property(attrgetter("rollout.error"))
    turns = property(attrgetter("rollout.turns"))
    duration = property(attrgetter("rollout.duration"))
    usage = property(attrgetter("rollout.usage"))
    untagged = property(attrgetter("rollout.untagged"))
    lapses = property(attrgetter("rollout.lapses"))

    @property
    def score(self) -> float:
        """Value of the answer term, 0 to 1; 0 where there was an error."""
        return self.rollout.correct

    @property
    def evidence_recall(self) -> float | None:
        """Share of the gold evidence that the crops cover; None without gold."""
        return None if math.isnan(self.rollout.evidence_recall) else self.rollout.evidence_recall

    @property
    def called(self) -> bool:
        """Whether a tool was called, with any status."""
        return self.rollout.calls > 0

    @property
    def error_kind(self) -> str:
        """Why nothing was scored: `video_error`, `agent_error`, `judge_error`; "" where it was."""
        return self.rollout.stop_reason if self.rollout.error else ""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, EvalRow) and self.as_json() == other.as_json()

    def as_json(self) -> dict[str, Any]:
        """The values of `LAYOUT`, as reports and row files hold them."""
        return {name: getattr(self, name) for name in LAYOUT}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> EvalRow:
        """The row that `as_json` and JSON made `fields` of; older ones lack what has a default.

        Raises:
            KeyError, TypeError, ValueError: They are not of a row.
        """
        own = dict(fields)
        own.pop("error_kind", None)  # the stop reason says it
        recall = own.pop("evidence_recall")
        given = {name: own.pop(name) for name in PLAYED}
        given |= {name: own.pop(name) for name in PLAYED_LATER if name in own}
        rollout = Rollout(
            **given,
            correct=own.pop("score"),
            terms={},
            turns=tuple(own.pop("turns")),
            evidence_recall=math.nan if recall is None else recall,
        )
        spans = tuple((start, end) for start, end in own.pop("evidence"))
        terms = {str(name): float(value) for name, value in dict(own.pop("terms", {})).items()}
        return cls(rollout, evidence=spans, terms=terms, **own)


def key_of(start: Start) -> RowKey:
    """The sample that a start plays."""
    if start.task_id is None:
        raise ValueError("an evaluation plays named tasks")
    return start.task_id, start.frame_budget


def make_row(
    rollout: Rollout,
    task: Task,
    best: Mapping[str, str],
    start: Start,
    weights: Mapping[str, float],
) -> EvalRow:
    """The row of a rollout.

    Args:
        rollout: Of the task.
        task: What was asked.
        best: Most frequent gold answer of each family.
        start: What the rollout was asked to play.
        weights: Of the reward terms.
    """
    failed = bool(rollout.error)
    iou = None
    if task.kind == "grounding":
        gold = parse_span(task.answer)
        iou = 0.0
        if not failed and gold is not None:
            iou = temporal_iou(parse_span(rollout.answer), gold)
    terms = {} if failed else weighted_terms(rollout.terms, rollout.reward, weights)
    budget = rollout.frame_budget if start.frame_budget is None else start.frame_budget
    kept = replace(
        rollout,
        frame_budget=budget,
        reward=0.0 if failed else rollout.reward,
        correct=0.0 if failed else rollout.correct,
        compliant=rollout.compliant and not failed,
        turns=tuple(_shortened(turn) for turn in plain(rollout.turns)),
        usage=plain(rollout.usage),
        terms={},
        trajectories=(),
    )
    return EvalRow(
        kept,
        kind=task.kind,
        question=task.prompt,
        gold=task.answer,
        evidence=task.evidence,
        majority=_majority(task, best[task.family]),
        duration_group=duration_group(task, rollout.duration),
        span_iou=iou,
        terms={name: round(value, DIGITS) for name, value in terms.items()},
    )


def _majority(task: Task, answer: str) -> float:
    """What the most frequent answer scores; 0 for a task whose gold answer is none."""
    if task.kind == "grounding" and parse_span(task.answer) is None:
        return 0.0
    return score_answer(task, answer)


def _shortened(turn: Mapping[str, Any]) -> dict[str, Any]:
    text = turn["completion"]
    cut = len(text) - MAX_COMPLETION
    if cut <= 0:
        return dict(turn)
    return {**turn, "completion": f"{text[:MAX_COMPLETION]} [{cut} more characters]"}


def duration_group(task: Task, seconds: float) -> str:
    """How long the video is: in the source's words, or by `DURATIONS`; "" if unknown.

    >>> duration_group(Task("t", "v", "Who?", "open", metadata={"duration_group": "600"}), 480.0)
    '600'
    """
    for name in ("duration_group", "duration"):
        named = str(task.metadata.get(name, ""))
        if named and (name == "duration_group" or named.isalpha()):
            return named
    if not seconds:
        return ""
    return next((name for end, name in DURATIONS if seconds < end), "over 60 min")
