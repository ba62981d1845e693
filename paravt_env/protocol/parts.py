"""What an agent is told, in parts: text and references to frames, in the order of its context.

Between an observation and an agent's context. A part is a string or a `FrameRef`, the place where
the vision tokens of one frame go; the agent tokenises, so no chat template appears here. `paravt`
is written for full-size models and lists the tool's schema; `compact` spends as few tokens as it
can, for a model of a few million parameters. The others are for other model families: Qwen3-VL's
own tool format, LongVT's one crop a turn, PyVision-RL's without an overview, servers with tool
calling of their own, and reasoning and direct answers without any tool.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from string import Formatter
from typing import Any

import numpy as np

from paravt_env.common.doors import chosen
from paravt_env.crop import CROP_STATUSES, CropStatus
from paravt_env.protocol.schema import END_KEYS, START_KEYS, TOOL_NAME, tool_schema
from paravt_env.protocol.tags import ANSWER, CALL, RESPONSE, THINK, closing, opening
from paravt_env.subtitles import SubtitleLine, lines_of


@dataclass(frozen=True, slots=True)
class FrameRef:
    """The place of one frame: its index in the observation's frames, or in a sub-agent's crop."""

    index: int


Part = str | FrameRef
REACH = 40.0
"""Seconds from an overview frame to the times that a style may name beside its own."""
Window = tuple[float, float]


@dataclass(frozen=True)
class PromptStyle:
    """Templates of one style, filled with `str.format`.

    Attributes:
        name: Key in `PROMPTS`, for a style that stands there.
        system: Fields tools, max_turns, max_crops, max_seconds.
        video: Before the overview; fields duration, fps, width, height, frames.
        on_demand: The same where there is no overview frame.
        overview_frame: Before each frame of the overview; fields time, number (from 1), and before
            and after, the times `REACH` seconds away: a small model copies the ends of a window.
        frame: Before each frame of a crop; field time.
        question: After the overview; field question.
        evidence: One executed call; fields index (from 1), start, end; split at the field evidence.
        failure: One call that did not run; fields index, status.
        feedback: All calls that did not run, in the environment's words; field feedback.
        subagent: Before a crop's frames; fields start, end.
        subagent_question: After them; field question.
        forced_answer: Asks for the answer when no call is allowed any more.
        whole_seconds: Times as integers, with one decimal only where frames are less than a second
            apart.
        subtitles: After the frames that they belong to, where there are any; field lines.
        subtitle: One line of them; fields start, end, text.
    """

    name: str
    system: str
    video: str
    on_demand: str
    overview_frame: str
    frame: str
    question: str
    evidence: str
    failure: str
    feedback: str
    subagent: str
    subagent_question: str
    forced_answer: str
    whole_seconds: bool
    subtitles: str = "\nSubtitles at these times:\n{lines}\n"
    subtitle: str = "{start:.1f}-{end:.1f} s: {text}"


_CALL_EXAMPLE = json.dumps(
    {"name": TOOL_NAME, "arguments": {START_KEYS[0]: 12, END_KEYS[0]: 30}}
).translate({ord("{"): "{{", ord("}"): "}}"})

_ABOUT_VIDEO = "The video lasts {duration:.1f} seconds ({width}x{height}, {fps:.4g} fps)."

PARAVT = PromptStyle(
    name="paravt",
    system=(
        "You answer a question about a long video. You see a few frames of it with their times, "
        "and you can watch windows of it closely with a tool.\n\n"
        "# Tools\n\nThe tools, as JSON, stand between <tools> tags:\n<tools>\n{tools}\n</tools>\n\n"
        f"A call is one JSON object between {CALL} tags:\n"
        f"{opening(CALL)}\n{_CALL_EXAMPLE}\n{closing(CALL)}\n"
        "Several calls in one turn run in parallel: at most {max_crops} a turn, each at most "
        "{max_seconds:g} seconds long, in at most {max_turns} turns.\n\n"
        "# Format\n\n"
        f"Each turn starts with your reasoning, {opening(THINK)}...{closing(THINK)}, and then "
        f"holds either calls or the answer, {opening(ANSWER)}...{closing(ANSWER)}, and nothing "
        "else. Answer a multiple-choice question with the letter, a question about when something "
        "happens with start-end in seconds such as 12.5-20.0, any other question in a few words. "
        "Call the tool only where the frames do not suffice."
    ),
    video=f"{_ABOUT_VIDEO} {{frames}} of its frames:\n",
    on_demand=_ABOUT_VIDEO,
    overview_frame="<{time} seconds>",
    frame="<{time} seconds>",
    question="\n{question}",
    evidence=(
        f"{opening(RESPONSE)}\nCrop {{index}}, {{start:.1f}}-{{end:.1f}} s: {{evidence}}\n"
        f"{closing(RESPONSE)}\n"
    ),
    failure="",
    feedback=f"{opening(RESPONSE)}\n{{feedback}}\n{closing(RESPONSE)}\n",
    subagent="These frames show a video from {start:.1f} to {end:.1f} seconds:\n",
    subagent_question=(
        "\nState briefly, with times, what they show that helps to answer the question. "
        "Do not guess.\n{question}"
    ),
    forced_answer=(
        "No more calls are allowed. Give your final answer now, "
        f"{opening(ANSWER)}...{closing(ANSWER)}."
    ),
    whole_seconds=False,
)

COMPACT = PromptStyle(
    name="compact",
    system="",
    video="",
    on_demand="{duration:.0f}",
    overview_frame=" {number} {before} {time} {after}",
    frame=" {time}",
    question="\n{question}",
    evidence="{index} {evidence}\n",
    failure="{index} {status}\n",
    feedback="",
    subagent=">",
    subagent_question="\n{question}",
    forced_answer="Answer.",
    whole_seconds=True,
    subtitles="\n{lines}",
    subtitle="{start:.0f} {text}",
)

_ANSWER_KINDS = (
    "Answer a multiple-choice question with the letter, a question about when something happens "
    "with start-end in seconds such as 12.5-20.0, any other question in a few words."
)
_ASKED = "You answer a question about a long video from frames of it that come with their times."
_ANSWER_TAGS = f"{opening(ANSWER)}...{closing(ANSWER)}"
_REPLY = '{{"name": <function-name>, "arguments": <args-json-object>}}'

QWEN3VL = replace(
    PARAVT,
    name="qwen3vl",
    # The list of tools is worded as in Qwen's chat template, which the model was trained on.
    system=(
        f"{_ASKED} With a tool you can watch windows of at most {{max_seconds:g}} seconds closely, "
        "up to {max_crops} in one turn and in at most {max_turns} turns. When you know the answer, "
        f"write it as {_ANSWER_TAGS} without a call. {_ANSWER_KINDS}\n\n"
        "# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
        "You are provided with function signatures within <tools></tools> XML tags:\n"
        "<tools>\n{tools}\n</tools>\n\n"
        "For each function call, return a json object with function name and arguments within "
        f"{opening(CALL)}{closing(CALL)} XML tags:\n{opening(CALL)}\n{_REPLY}\n{closing(CALL)}"
    ),
)

_ONE_WINDOW = (
    "A tool shows one window of the video, of at most {max_seconds:g} seconds, as frames.\n\n"
    "# Tools\n\n<tools>\n{tools}\n</tools>\n\n"
    f"In each turn think first, {opening(THINK)}...{closing(THINK)}. If what you have seen "
    "does not suffice, look at one window with one call and wait for its frames:\n"
    f"{opening(CALL)}\n{_CALL_EXAMPLE}\n{closing(CALL)}\n"
    f"You may do so in {{max_turns}} turns. Otherwise end with {_ANSWER_TAGS}. {_ANSWER_KINDS}"
)

LONGVT = replace(PARAVT, name="longvt", system=f"{_ASKED} {_ONE_WINDOW}")

PYVISION = replace(
    PARAVT,
    name="pyvision",
    system=(
        "You answer a question about a long video. You are told its length, size and frame rate, "
        f"and see none of its frames before you ask for them. {_ONE_WINDOW}"
    ),
)

TOOL_CALLING = replace(
    PARAVT,
    name="tool_calling",
    # For servers that list the tools and read the calls themselves.
    system=(
        f"{_ASKED} With the tool {TOOL_NAME} you can watch windows of at most {{max_seconds:g}} "
        "seconds closely: up to {max_crops} calls in one turn, which run in parallel, in at most "
        "{max_turns} turns. Call it only where the frames do not suffice. When you know the "
        f"answer, write it as {_ANSWER_TAGS} without a call. {_ANSWER_KINDS}"
    ),
)

REASONING = replace(
    PARAVT,
    name="reasoning",
    system=(
        f"{_ASKED} Reason step by step, {opening(THINK)}...{closing(THINK)}, and then give the "
        f"answer, {_ANSWER_TAGS}. {_ANSWER_KINDS}"
    ),
    forced_answer=f"\nGive your answer, {_ANSWER_TAGS}.",
)

DIRECT = replace(
    REASONING,
    name="direct",
    system=f"{_ASKED} Write the answer alone, as {_ANSWER_TAGS}. {_ANSWER_KINDS}",
)

PROMPTS: dict[str, PromptStyle] = {
    style.name: style
    for style in (PARAVT, COMPACT, QWEN3VL, LONGVT, PYVISION, TOOL_CALLING, REASONING, DIRECT)
}
_FIELDS = {
    "system": ("tools", "max_turns", "max_crops", "max_seconds"),
    "video": ("duration", "fps", "width", "height", "frames"),
    "on_demand": ("duration", "fps", "width", "height", "frames"),
    "overview_frame": ("time", "number", "before", "after"),
    "frame": ("time", "number", "before", "after"),
    "question": ("question",),
    "evidence": ("index", "start", "end", "evidence"),
    "failure": ("index", "status"),
    "feedback": ("feedback",),
    "subagent": ("start", "end"),
    "subagent_question": ("question",),
    "subtitles": ("lines",),
    "subtitle": ("start", "end", "text"),
}


def prompt_style(name: str) -> PromptStyle:
    """The style of a name in `PROMPTS`, or of a door to a `PromptStyle`.

    Raises:
        ValueError: Unknown name (the nearest one is given), a door to something else, or a template
            with a field that it is not filled with.

    >>> prompt_style("compact").name
    'compact'
    """
    style = chosen("prompt_style", name, PROMPTS)
    if not isinstance(style, PromptStyle):
        raise ValueError(f"prompt_style {name!r} must lead to a PromptStyle, not {style!r}")
    for template, fields in _FIELDS.items():
        try:
            parts = list(Formatter().parse(getattr(style, template)))
        except ValueError as error:
            raise ValueError(f"prompt_style {name!r}: its {template}: {error}") from error
        unknown = {field for _, field, *_ in parts if field is not None} - {*fields}
        if unknown:
            raise ValueError(
                f"prompt_style {name!r}: its {template} is filled with {', '.join(fields)}, not "
                f"with {sorted(unknown)}; write a brace of the text twice"
            )
    if style.evidence.count("{evidence}") != 1:
        raise ValueError(f"prompt_style {name!r}: its evidence must hold {{evidence}} once")
    return style


def system_text(
    style: PromptStyle, max_crops: int, max_crop_seconds: float, max_turns: int = 3
) -> str:
    """The system message; "" where the style has none."""
    tools = json.dumps(tool_schema(max_crop_seconds))
    limits = {"max_turns": max_turns, "max_crops": max_crops, "max_seconds": max_crop_seconds}
    return style.system.format(tools=tools, **limits)


def overview_parts(style: PromptStyle, observation: Mapping[str, Any]) -> list[Part]:
    """The first user message: the overview frames (of `reset`) with their times, the question."""
    shown = np.flatnonzero(np.asarray(observation["window"]) == 0)
    video = {key: np.asarray(value).item() for key, value in observation["video"].items()}
    intro = style.video if len(shown) else style.on_demand
    parts: list[Part] = [intro.format(frames=len(shown), **video)]
    times = np.asarray(observation["timestamps"])[shown]
    parts += _frame_parts(style, shown, times, style.overview_frame)
    parts.append(_subtitle_text(style, lines_of(observation.get("subtitles", ""), 0)))
    parts.append(style.question.format(question=observation["question"]))
    return _merged(parts)


def evidence_parts(
    style: PromptStyle,
    observation: Mapping[str, Any],
    windows: Sequence[Window],
    texts: Sequence[str] | None = None,
) -> list[Part]:
    """What the calls of the last turn brought, in the order of the calls.

    Args:
        style: Templates.
        observation: The observation after the turn.
        windows: (start, end) in seconds of each call, as asked.
        texts: Evidence of each call from the sub-agents (ignored for calls that did not run); None
            shows the frames.

    Returns:
        Parts; empty when the turn held no call.
    """
    parts: list[Part] = []
    for row, code in enumerate(np.asarray(observation["crop_status"]).tolist()):
        if code == 0:
            continue
        status = CROP_STATUSES[code - 1]
        if status != CropStatus.ok:
            parts.append(style.failure.format(index=row + 1, status=status.value))
            continue
        before, after = style.evidence.split("{evidence}")
        start, end = windows[row]
        parts.append(before.format(index=row + 1, start=float(start), end=float(end)))
        if texts is None:
            shown = np.flatnonzero(np.asarray(observation["window"]) == row + 1)
            times = np.asarray(observation["timestamps"])[shown]
            parts += _frame_parts(style, shown, times, style.frame)
            said = lines_of(observation.get("subtitles", ""), row + 1)
            parts.append(_subtitle_text(style, said))
        else:
            parts.append(texts[row])
        parts.append(after)
    if observation["feedback"]:
        parts.append(style.feedback.format(feedback=observation["feedback"]))
    return _merged(parts)


def crop_parts(style: PromptStyle, timestamps: np.ndarray, first: int = 0) -> list[Part]:
    """The frames of a crop with their times (seconds), as `FrameRef(first)` and on."""
    indices = range(first, first + len(timestamps))
    return _merged(_frame_parts(style, indices, np.asarray(timestamps, np.float64), style.frame))


def subagent_parts(
    style: PromptStyle,
    question: str,
    window: Window,
    timestamps: Sequence[float] | np.ndarray,
    subtitles: Sequence[SubtitleLine] = (),
) -> list[Part]:
    """The sub-agent's whole prompt: the frames of one crop with their times, then the question.

    Args:
        style: Templates.
        question: The observation's question, options included.
        window: (start, end) of the crop in seconds.
        timestamps: Time of each frame in seconds; `FrameRef(i)` is the i-th of them.
        subtitles: What is said in the crop: `subtitles.lines_of` the observation's text.
    """
    parts: list[Part] = [style.subagent.format(start=float(window[0]), end=float(window[1]))]
    times = np.asarray(timestamps, np.float64)
    parts += _frame_parts(style, range(len(times)), times, style.frame)
    parts.append(_subtitle_text(style, subtitles))
    parts.append(style.subagent_question.format(question=question))
    return _merged(parts)


def forced_answer_text(style: PromptStyle) -> str:
    """What is said when `must_answer` is set."""
    return style.forced_answer


def frame_times(style: PromptStyle, timestamps: np.ndarray) -> list[str]:
    """Timestamps (seconds, increasing) as text.

    Halves round up, so that times a second apart never read alike.

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
    style: PromptStyle, indices: Any, timestamps: np.ndarray, template: str
) -> list[Part]:
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
