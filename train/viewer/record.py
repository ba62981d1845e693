"""One rollout as its page shows it, whether a step kept it or an evaluation measured it.

Files of kept rollouts are taken for hostile: each value is turned into what it must be, or the
rollout is not shown. Tests: `pytest tests/viewer/test_rollout_page.py`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from paravt_env.protocol.tags import Role
from train.common.rollout_file import RolloutFileError
from train.evaluation.row import EvalRow
from train.rollout.record import with_readings


@dataclass(frozen=True)
class Crop:
    """A call of a turn; `window` is None where it names none, in seconds.

    `reading` is the place of the conversation in which a sub-agent read it, if one did.
    """

    window: tuple[float, float] | None
    status: str
    message: str
    frames: int
    reading: int | None

    def times(self, duration: float) -> list[float]:
        """When its frames are, in seconds: the midpoints of equal parts of what ran.

        That is the part of the window inside a video of `duration` seconds.
        """
        if self.window is None or not self.frames:
            return []
        start, end = max(self.window[0], 0.0), min(self.window[1], duration)
        return [start + (i + 0.5) * (end - start) / self.frames for i in range(self.frames)]


@dataclass(frozen=True)
class Turn:
    """What was written in a turn, and its calls."""

    completion: str
    crops: tuple[Crop, ...]


@dataclass(frozen=True)
class Token:
    """A piece of a conversation; the numbers are None where nothing was sampled."""

    text: str
    role: Role
    logprob: float | None = None
    advantage: float | None = None
    ratio: float | None = None


@dataclass(frozen=True)
class Conversation:
    """The agent's own conversation (`main`) or that of a reading (`subagent`)."""

    kind: str
    prompt: str
    tokens: tuple[Token, ...]


@dataclass(frozen=True)
class Shown:
    """All that the page of a rollout shows.

    Attributes:
        terms: Reward terms with their weights in; they add up to `reward`. Empty where the source
            does not say.
        duration: Of the video in seconds; 0 where it is not known.
    """

    task_id: str
    family: str
    video: str
    question: str
    gold: str
    evidence: tuple[tuple[float, float], ...]
    duration: float
    frame_budget: int
    correct: float
    reward: float
    terms: dict[str, float]
    compliant: bool
    calls: int
    stop_reason: str
    error: str
    answer: str
    turns: tuple[Turn, ...]
    conversations: tuple[Conversation, ...] = ()

    @classmethod
    def from_file(cls, record: Mapping[str, Any]) -> Shown:
        """A rollout that a step kept.

        Raises:
            RolloutFileError: The file holds something else.
        """
        try:
            return cls(
                task_id=str(record["task_id"]),
                family=str(record["family"]),
                video=str(record["video"]),
                question=str(record["question"]),
                gold=str(record["gold"]),
                evidence=tuple((_number(a), _number(b)) for a, b in record["evidence"]),
                duration=_number(record["duration"]),
                frame_budget=min(int(record["frame_budget"]), 10_000),
                correct=_number(record["correct"]),
                reward=_number(record["reward"]),
                terms={str(name): _number(value) for name, value in record["terms"].items()},
                compliant=bool(record["compliant"]),
                calls=int(record["calls"]),
                stop_reason=str(record["stop_reason"]),
                error=str(record["error"]),
                answer=str(record["answer"]),
                turns=_turns(record["turns"]),
                conversations=tuple(map(_conversation, record["conversations"])),
            )
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise RolloutFileError(f"this rollout's file is damaged: {error!r}") from error

    @classmethod
    def from_row(cls, row: EvalRow, tokens: Sequence[Mapping[str, Any]] = ()) -> Shown:
        """A row of an evaluation, with its conversations where they were kept.

        Raises:
            RolloutFileError: Its turns are no turns, or its conversations none.
        """
        try:
            conversations = tuple(map(_conversation, tokens))
            turns = _turns(with_readings(row.turns, tokens) if tokens else row.turns)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise RolloutFileError(f"what was kept of this row is damaged: {error!r}") from error
        return cls(
            task_id=row.task_id,
            family=row.family,
            video=row.video,
            question=row.question,
            gold=row.gold,
            evidence=row.evidence,
            duration=row.duration,
            frame_budget=row.frame_budget,
            correct=row.score,
            reward=row.reward,
            terms=dict(row.terms),
            compliant=row.compliant,
            calls=row.calls,
            stop_reason=str(row.stop_reason),
            error=row.error,
            answer=row.answer,
            turns=turns,
            conversations=conversations,
        )


def _number(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{number} is no finite number")
    return number


def _turns(turns: Sequence[Mapping[str, Any]]) -> tuple[Turn, ...]:
    return tuple(
        Turn(str(turn.get("completion", "")), tuple(map(_crop, turn.get("crops", ()))))
        for turn in turns
    )


def _crop(crop: Mapping[str, Any]) -> Crop:
    start, end = crop["window"]
    known = start is not None and end is not None
    reading = crop.get("reading")
    return Crop(
        (_number(start), _number(end)) if known else None,
        str(crop["status"]),
        str(crop.get("message", "")),
        min(max(int(crop.get("frames", 0)), 0), 1000),
        None if reading is None else int(reading),
    )


def _conversation(one: Mapping[str, Any]) -> Conversation:
    columns = (one["pieces"], one["roles"], one["logprobs"], one["advantages"], one["ratios"])
    tokens = tuple(
        Token(str(text), Role(int(role)), *(None if n is None else _number(n) for n in numbers))
        for text, role, *numbers in zip(*columns, strict=True)
    )
    return Conversation(str(one["kind"]), str(one["prompt"]), tokens)
