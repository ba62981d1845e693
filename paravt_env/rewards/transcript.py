"""What a reward term may look at: parsed completions and what the environment executed.

Built by the episode when it ends, read by every term. Raw text is never evidence of execution: a
call counts as executed only by its crop's status. Tests: `pytest tests/rewards/test_rewards.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

from paravt_env.crop import CodeRun, CropResult, CropStatus
from paravt_env.protocol import ParsedCompletion
from paravt_env.task import Task

NOT_A_CALL = (
    CropStatus.malformed,
    CropStatus.unknown_tool,
    CropStatus.over_limit,
    CropStatus.refused,
)
"""Calls that the environment could not read as a call of the tool, or no longer allowed."""


@dataclass(frozen=True)
class Turn:
    """One turn: its completion (None for an agent that writes none), one result per call."""

    parsed: ParsedCompletion | None
    crops: tuple[CropResult, ...] = ()

    @property
    def executed(self) -> int:
        """How many of its crops ran."""
        return sum(crop.status == CropStatus.ok for crop in self.crops)

    @property
    def windows(self) -> list[tuple[float, float]]:
        """Seconds of the crops that ran, as run, and those that code was given frames of."""
        return [
            window
            for crop in self.crops
            for window in ((crop.clipped,) if crop.ran is None else crop.ran.windows)
            if window is not None
        ]

    @property
    def cropped(self) -> list[tuple[float, float]]:
        """Seconds of the crops that ran, as run; nothing of what code looked at."""
        return [crop.clipped for crop in self.crops if crop.clipped is not None]

    @property
    def code(self) -> list[CodeRun]:
        """The code that ran to its end."""
        ran = (crop.ran for crop in self.crops if crop.status == CropStatus.ok)
        return [one for one in ran if one is not None]


@dataclass(frozen=True)
class Transcript:
    """A finished episode.

    Attributes:
        task: With the gold answer.
        turns: All turns, the forced one included.
        answer: The answer that counted; "" if none did.
        stop_reason: Why the episode ended.
        correct: The answer term in [0, 1] once it is known, so that later terms do not ask a judge
            again; None before.
        overlap: Where `correct` is the overlap of an open answer's tokens with the gold ones, the
            share of these that it says, 0 if it says more; None where it is anything else.
        untagged: Whether the answer that counted had no closed tag (`untagged_answers`).
        overview: Times in seconds of the frames that the episode began with.
    """

    task: Task
    turns: tuple[Turn, ...]
    answer: str = ""
    stop_reason: str = ""
    correct: float | None = None
    overlap: float | None = None
    untagged: bool = False
    overview: tuple[float, ...] = ()

    @property
    def windows(self) -> list[tuple[float, float]]:
        """Seconds of all crops that ran, as run, in order."""
        return [window for turn in self.turns for window in turn.windows]

    @property
    def called(self) -> bool:
        """Whether some call was a readable, allowed call of the tool, executed or not."""
        return any(crop.status not in NOT_A_CALL for turn in self.turns for crop in turn.crops)

    @property
    def executed(self) -> int:
        """How many crops ran."""
        return sum(turn.executed for turn in self.turns)
