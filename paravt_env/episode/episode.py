"""One episode as a state machine: turn table, observation and info of a single row, without I/O.

`simulation.py` decodes frames and hands them in; `env.py` drives one episode and `vector.py` many,
through the same code. Run the tests with `pytest tests/env/test_env.py`.

| the turn holds | what happens |
|---|---|
| calls (with or without an answer) | the crops run; the answer does not count yet; next turn |
| an answer, no call | terminated, `answered` |
| neither | the forced-answer turn (once) |
| forced turn, no answer | terminated, `unanswered` |

With `force_answer=False` the third row terminates as `unanswered`, and the last calling turn
truncates as `turn_limit`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

from paravt_env.crop import CROP_STATUSES, CodeRequest, CropRequest, CropResult, CropStatus
from paravt_env.protocol.structure import ParsedCompletion
from paravt_env.rewards import Transcript, Turn
from paravt_env.sandbox.pool import Session
from paravt_env.settings import EnvSettings
from paravt_env.spaces import OVERVIEW, PADDING
from paravt_env.subtitles import as_text, at_times, in_window
from paravt_env.task import Task
from paravt_env.video.types import Frames, Size, VideoInfo


class StopReason(StrEnum):
    """Why an episode ended."""

    answered = "answered"  # a turn held an answer that counts
    unanswered = (
        "unanswered"  # the forced turn (or, without one, a turn without calls) held no answer
    )
    turn_limit = (
        "turn_limit"  # force_answer=False and the last calling turn called again: truncated
    )
    video_error = "video_error"  # the video could not be read at reset: never scored
    judge_error = "judge_error"  # the scorer gave no verdict on the answer: never scored
    server_error = "server_error"  # the server that played the row was lost: never scored


class Outcome(NamedTuple):
    """What a turn did to the episode."""

    terminated: bool
    truncated: bool


@dataclass(frozen=True)
class TurnPlan:
    """A turn before it runs.

    Attributes:
        parsed: The parsed completion; None for an agent that writes none.
        answer: The answer without surrounding space, "" where there is none.
        calls: In the order written: a request that will run, or the result of one that will not.
        untagged: Whether the answer is the turn's text, without a closed tag.
    """

    parsed: ParsedCompletion | None
    answer: str
    calls: tuple[CropRequest | CodeRequest | CropResult, ...]
    untagged: bool = False


@dataclass
class Episode:
    """The state of one row between `reset` and its end; single-use.

    Attributes:
        task: The question and its gold answer.
        frame_budget: K, the overview frames asked for.
        video: Duration, fps and size of the video.
        overview: The K overview frames.
        settings: The environment's arguments.
        turn: Turns taken so far.
        must_answer: Whether the next turn is the forced one.
        turns: What was said and executed so far.
        answer: The answer that counted, "" before the end and where there was none.
        untagged: Whether that answer had no closed tag.
        stop_reason: None while the episode runs.
        sizes: Height and width in pixels of each image of the task.
        session: Where its code runs, once some did; not part of a copy.
    """

    task: Task
    frame_budget: int
    video: VideoInfo
    overview: Frames
    settings: EnvSettings
    turn: int = 0
    must_answer: bool = False
    turns: list[Turn] = field(default_factory=list)
    answer: str = ""
    untagged: bool = False
    stop_reason: StopReason | None = None
    frames_seen: int = 0
    slow_frames: int = 0
    sizes: tuple[Size, ...] = ()
    session: Session | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Everything but the session, whose names are in another process."""
        return {**self.__dict__, "session": None}

    def __post_init__(self) -> None:
        """Count the overview; without a calling turn the first turn is the forced one."""
        self.frames_seen = len(self.overview.timestamps)
        self.slow_frames = self.overview.slow_count
        self.must_answer = self.settings.max_turns == 0

    @property
    def crop_frames_seen(self) -> int:
        """Frames that its crops have shown so far."""
        return self.frames_seen - len(self.overview.timestamps)

    @property
    def transcript(self) -> Transcript:
        """Everything the reward terms may look at."""
        stop_reason = "" if self.stop_reason is None else str(self.stop_reason)
        return Transcript(
            task=self.task,
            turns=tuple(self.turns),
            answer=self.answer,
            stop_reason=stop_reason,
            untagged=self.untagged,
            overview=tuple(map(float, self.overview.timestamps)),
        )

    @property
    def crops(self) -> tuple[CropResult, ...]:
        """The calls of the latest turn, in the order they were written."""
        return self.turns[-1].crops if self.turns else ()

    def advance(self, plan: TurnPlan, crops: Sequence[CropResult]) -> Outcome:
        """Apply one turn whose calls have been executed (or refused).

        Args:
            plan: The turn as it was read from the action.
            crops: One result for each call of `plan`, in order.
        """
        if self.stop_reason is not None:
            raise RuntimeError(
                f"the episode of task {self.task.id!r} is over ({self.stop_reason}); call reset()"
            )
        self.turns.append(Turn(parsed=plan.parsed, crops=tuple(crops)))
        self.turn += 1
        decoded = [crop.frames for crop in crops if crop.frames is not None]
        self.frames_seen += sum(len(frames.timestamps) for frames in decoded)
        self.slow_frames += sum(frames.slow_count for frames in decoded)
        force_answer = self.settings.force_answer
        if plan.answer and (self.must_answer or not plan.calls):
            self.answer, self.untagged = plan.answer, plan.untagged
            self.stop_reason = StopReason.answered
        elif self.must_answer or not (plan.calls or force_answer):
            self.stop_reason = StopReason.unanswered
        elif not plan.calls or self.turn >= self.settings.max_turns:
            self.must_answer = force_answer
            self.stop_reason = None if force_answer else StopReason.turn_limit
        ended = self.stop_reason is not None
        if ended and self.session is not None:
            self.session.close()
        truncated = self.stop_reason is StopReason.turn_limit
        return Outcome(terminated=ended and not truncated, truncated=truncated)

    def observe(self, batch: dict[str, Any], row: int) -> None:
        """Write the current observation into row `row` of a zeroed batch (`spaces.empty_batch`)."""
        shown = [(OVERVIEW, self.overview)] if self.turn == 0 else []
        shown += [
            (i, crop.frames) for i, crop in enumerate(self.crops, 1) if crop.frames is not None
        ]
        batch["window"][row] = PADDING
        start = 0
        for window, frames in shown:
            stop = start + len(frames.timestamps)
            for place, image in enumerate(frames.images, start):
                batch["frames"][row, place] = image
            batch["timestamps"][row, start:stop] = frames.timestamps
            batch["window"][row, start:stop] = window
            start = stop
        batch["question"][row] = self.task.prompt
        for name in ("duration", "fps", "width", "height"):
            batch["video"][name][row] = getattr(self.video, name)
        batch["turn"][row] = self.turn
        batch["must_answer"][row] = self.must_answer
        for i, crop in enumerate(self.crops[: self.settings.max_crops]):
            batch["crop_status"][row, i] = 1 + CROP_STATUSES.index(crop.status)
        batch["feedback"][row] = feedback(self.crops)
        batch["subtitles"][row] = self._subtitles()
        if "output" in batch:
            batch["output"][row] = self._output()

    def _output(self) -> str:
        """What code of the turn wrote; before the first turn, which objects code finds."""
        if self.turn:
            return "\n".join(crop.ran.text for crop in self.crops if crop.ran is not None)
        if self.task.video:
            return "video"
        return "\n".join(
            f"images[{number}]: {width} x {height} pixels"
            for number, (height, width) in enumerate(self.sizes)
        )

    def _subtitles(self) -> str:
        """What is said at the times of the frames that the current observation shows."""
        if not self.settings.subtitles:
            return ""
        said = self.task.subtitles
        sections = [(OVERVIEW, at_times(said, self.overview.timestamps))] if self.turn == 0 else []
        sections += [
            (i, in_window(said, crop.clipped))
            for i, crop in enumerate(self.crops, 1)
            if crop.clipped is not None
        ]
        return as_text(sections, self.settings.subtitle_characters, self.video.duration)

    def info(self) -> dict[str, Any]:
        """What an evaluator may know and an agent may not; `crops` are those of the latest turn."""
        return {
            "task_id": self.task.id,
            "frame_budget": self.frame_budget,
            "crops": [_crop_info(crop, self.settings.crop_density) for crop in self.crops],
            "frames_seen": self.frames_seen,
            "slow_frames": self.slow_frames,
            "turn": self.turn,
        }


def feedback(crops: Sequence[CropResult]) -> str:
    """One line for each call that did not run, "" when all did.

    The n-th call of the turn is `call n`; calls over the limit share one line.
    """
    lines = [
        f"call {i}: {crop.status}: {crop.message}"
        for i, crop in enumerate(crops, 1)
        if crop.status not in (CropStatus.ok, CropStatus.over_limit)
    ]
    over = [crop for crop in crops if crop.status == CropStatus.over_limit]
    if over:
        lines.append(f"{len(over)} more: {CropStatus.over_limit}: {over[0].message}")
    return "\n".join(lines)


def _crop_info(crop: CropResult, density: bool) -> dict[str, Any]:
    times = [] if crop.frames is None else crop.frames.timestamps.tolist()
    info = {
        "window": crop.window,
        "clipped": crop.clipped,
        "status": crop.status,
        "message": crop.message,
        "frames": len(times),
        "timestamps": times,
    }
    if crop.ran is not None:
        info |= {"code": crop.ran.code, "output": crop.ran.text, "windows": crop.ran.windows}
    return info | {"fps": crop.fps} if density else info
