"""What an agent is told, in parts: text and references to frames, in the order of its context.

Between an observation and an agent's context. A part is a string, a `FrameRef`, the place where
the vision tokens of one frame go, or a `ClipRef`, that of frames which are shown as one video; the
agent tokenises, so no chat template appears here. The words are those of a `PromptStyle`
(`styles.py`); before the frames of a video stand the model's own times and not the style's. Run the
tests with `pytest tests/protocol/test_protocol.py`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from paravt_env.crop import CROP_STATUSES, OF_CODE, CropFrames, CropStatus, Window
from paravt_env.protocol.schema import tool_schema
from paravt_env.protocol.styles import REACH, PromptStyle
from paravt_env.subtitles import SubtitleLine, lines_of


@dataclass(frozen=True, slots=True)
class FrameRef:
    """The place of one frame: its index in the observation's frames, or in a sub-agent's crop."""

    index: int


@dataclass(frozen=True, slots=True)
class ClipRef:
    """The place of frames that are shown as one video.

    Attributes:
        indices: Of the frames, as those of `FrameRef`.
        times: Their times in seconds.
    """

    indices: tuple[int, ...]
    times: tuple[float, ...]


BY_CODE = (*OF_CODE, CropStatus.timeout)
"""What becomes of code that ran and did not reach its end."""

Part = str | FrameRef | ClipRef
FramesAs = Literal["image", "video"]
"""`image`: each frame by itself, after the style's text; `video`: the frames of the overview, and
those of each crop, as one video, whose times the model's own format writes."""
FRAMES_AS: tuple[str, ...] = get_args(FramesAs)


def system_text(
    style: PromptStyle,
    max_crops: int,
    max_crop_seconds: float,
    max_turns: int = 3,
    crop_frames: CropFrames | None = None,
) -> str:
    """The system message; "" where the style has none."""
    tools = json.dumps(tool_schema(max_crop_seconds, crop_frames))
    limits = {"max_turns": max_turns, "max_crops": max_crops, "max_seconds": max_crop_seconds}
    return style.system.format(tools=tools, **limits)


def overview_parts(
    style: PromptStyle, observation: Mapping[str, Any], frames_as: FramesAs = "image"
) -> list[Part]:
    """The first user message: the overview frames (of `reset`) with their times, the question."""
    shown = np.flatnonzero(np.asarray(observation["window"]) == 0)
    if not float(np.asarray(observation["video"]["duration"])):
        return _image_parts(style, observation, shown)
    video = {key: np.asarray(value).item() for key, value in observation["video"].items()}
    intro = style.video if len(shown) else style.on_demand
    parts: list[Part] = [intro.format(frames=len(shown), **video)]
    times = np.asarray(observation["timestamps"])[shown]
    parts += _frame_parts(style, shown, times, style.overview_frame, frames_as)
    parts.append(_subtitle_text(style, lines_of(observation.get("subtitles", ""), 0)))
    parts.append(style.question.format(question=observation["question"]))
    return _merged(parts)


def _image_parts(
    style: PromptStyle, observation: Mapping[str, Any], shown: np.ndarray
) -> list[Part]:
    """The first user message about images: what there is, each one scaled down, the question."""
    parts: list[Part] = [style.media.format(media=observation.get("output", ""))]
    for number, index in enumerate(shown):
        parts += [style.image.format(number=number), FrameRef(int(index))]
    parts.append(style.question.format(question=observation["question"]))
    return _merged(parts)


def window_that_ran(observation: Mapping[str, Any], window: Sequence[float] | np.ndarray) -> Window:
    """The part of a window (seconds, as asked) inside the video: what an executed crop shows.

    >>> window_that_ran({"video": {"duration": 60.0}}, (55.0, 5000.0))
    (55.0, 60.0)
    """
    duration = float(np.asarray(observation["video"]["duration"]).item())
    return max(float(window[0]), 0.0), min(float(window[1]), duration)


def evidence_parts(
    style: PromptStyle,
    observation: Mapping[str, Any],
    windows: Sequence[Window],
    texts: Sequence[str] | None = None,
    frames_as: FramesAs = "image",
) -> list[Part]:
    """What the calls of the last turn brought, in the order of the calls.

    Args:
        style: Templates.
        observation: The observation after the turn.
        windows: (start, end) in seconds of each call, as asked; what is told is the part that ran.
        texts: Evidence of each call from the sub-agents (ignored for calls that did not run); None
            shows the frames.
        frames_as: How frames are shown.

    Returns:
        Parts; empty when the turn held no call.
    """
    parts: list[Part] = []
    for row, code in enumerate(np.asarray(observation["crop_status"]).tolist()):
        if code == 0:
            continue
        status = CROP_STATUSES[code - 1]
        if "output" in observation and (status == CropStatus.ok or status in BY_CODE):
            parts += _code_parts(style, observation, row, status)
            continue
        if status != CropStatus.ok:
            parts.append(style.failure.format(index=row + 1, status=status.value))
            continue
        before, after = style.evidence.split("{evidence}")
        start, end = window_that_ran(observation, windows[row])
        parts.append(before.format(index=row + 1, start=start, end=end))
        if texts is None:
            shown = np.flatnonzero(np.asarray(observation["window"]) == row + 1)
            times = np.asarray(observation["timestamps"])[shown]
            parts += _frame_parts(style, shown, times, style.frame, frames_as)
            said = lines_of(observation.get("subtitles", ""), row + 1)
            parts.append(_subtitle_text(style, said))
        else:
            parts.append(texts[row])
        parts.append(after)
    if observation["feedback"] and not observation.get("output"):
        parts.append(style.feedback.format(feedback=observation["feedback"]))
    return _merged(parts)


def _code_parts(
    style: PromptStyle, observation: Mapping[str, Any], row: int, status: CropStatus
) -> list[Part]:
    """What code of the last turn brought: its text, then its pictures, frames with their times."""
    before, after = style.output.split("{output}")
    said = style.failure.format(index=row + 1, status=status.value)
    failed = "" if status == CropStatus.ok else said
    parts: list[Part] = [before, failed, str(observation["output"])]
    for number, index in enumerate(np.flatnonzero(observation["window"] == row + 1), 1):
        time = float(observation["timestamps"][index])
        (told,) = frame_times(style, np.array([time]))
        template = style.frame if time else style.picture
        parts += [template.format(number=number, time=told), FrameRef(int(index))]
    return [*parts, after]


def crop_parts(
    style: PromptStyle, timestamps: np.ndarray, first: int = 0, frames_as: FramesAs = "image"
) -> list[Part]:
    """The frames of a crop with their times (seconds), which are the `first` and on."""
    indices, times = range(first, first + len(timestamps)), np.asarray(timestamps, np.float64)
    return _merged(_frame_parts(style, indices, times, style.frame, frames_as))


def subagent_parts(
    style: PromptStyle,
    question: str,
    window: Window,
    timestamps: Sequence[float] | np.ndarray,
    subtitles: Sequence[SubtitleLine] = (),
    frames_as: FramesAs = "image",
) -> list[Part]:
    """The sub-agent's whole prompt: the frames of one crop with their times, then the question.

    Args:
        style: Templates.
        question: The observation's question, options included.
        window: (start, end) of the crop in seconds.
        timestamps: Time of each frame in seconds; `FrameRef(i)` is the i-th of them.
        subtitles: What is said in the crop: `subtitles.lines_of` the observation's text.
        frames_as: How the frames are shown.
    """
    parts: list[Part] = [style.subagent.format(start=float(window[0]), end=float(window[1]))]
    times = np.asarray(timestamps, np.float64)
    parts += _frame_parts(style, range(len(times)), times, style.frame, frames_as)
    parts.append(_subtitle_text(style, subtitles))
    parts.append(style.subagent_question.format(question=question))
    return _merged(parts)


def forced_answer_text(style: PromptStyle) -> str:
    """What is said when `must_answer` is set."""
    return style.forced_answer


def frame_times(style: PromptStyle, timestamps: np.ndarray) -> list[str]:
    """Timestamps (seconds, increasing) as text.

    Halves round up, so that times a second apart never read alike.

    >>> from paravt_env.protocol.styles import COMPACT
    >>> frame_times(COMPACT, np.array([0.5, 1.5, 2.5]))
    ['1', '2', '3']
    >>> frame_times(COMPACT, np.array([0.25, 0.75]))
    ['0.3', '0.8']
    """
    return _times_as_text(timestamps, _steps_per_second(style, timestamps))


def _steps_per_second(style: PromptStyle, timestamps: np.ndarray) -> int:
    close = len(timestamps) > 1 and float(np.diff(timestamps).min()) < 1.0 - 1e-6
    return 1 if style.whole_seconds and not close else 10


def _times_as_text(timestamps: np.ndarray, steps: int) -> list[str]:
    rounded = np.floor(np.asarray(timestamps) * steps + 0.5) / steps
    return [f"{time:.0f}" if steps == 1 else f"{time:.1f}" for time in rounded]


def _frame_parts(
    style: PromptStyle, indices: Any, timestamps: np.ndarray, template: str, frames_as: FramesAs
) -> list[Part]:
    if frames_as == "video":
        clip = ClipRef(tuple(map(int, indices)), tuple(map(float, timestamps)))
        return [clip] if clip.indices else []
    steps = _steps_per_second(style, timestamps)
    named = (timestamps, np.maximum(timestamps - REACH, 0.0), timestamps + REACH)
    texts = zip(*(_times_as_text(times, steps) for times in named), strict=True)
    parts: list[Part] = []
    for number, (index, (time, before, after)) in enumerate(zip(indices, texts, strict=True), 1):
        text = template.format(number=number, time=time, before=before, after=after)
        parts += [text, FrameRef(int(index))]
    return parts


def _subtitle_text(style: PromptStyle, lines: Sequence[SubtitleLine]) -> str:
    if not lines:
        return ""
    texts = (
        style.subtitle.format(start=line.start, end=line.end, text=line.text) for line in lines
    )
    return style.subtitles.format(lines="\n".join(texts))


def _merged(parts: Sequence[Part]) -> list[Part]:
    """Join neighbouring texts and drop empty ones."""
    merged: list[Part] = []
    for part in parts:
        if isinstance(part, str) and merged and isinstance(merged[-1], str):
            merged[-1] += part
        elif part != "":
            merged.append(part)
    return merged
