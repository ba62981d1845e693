"""Prompt styles: the templates of an agent's prompts, as data.

Between an observation and `parts.py`, which fills them. `paravt` is written for full-size models
and lists the tool's schema; `compact` spends as few tokens as it can, for a model of a few million
parameters. The others are for other model families: Qwen3-VL's own tool format, LongVT's one crop a
turn, PyVision-RL's without an overview, servers with tool calling of their own, and reasoning and
direct answers without any tool. Run the tests with `pytest tests/protocol/test_protocol.py`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from string import Formatter

from paravt_env.common.doors import chosen
from paravt_env.protocol.schema import END_KEYS, START_KEYS, TOOL_NAME
from paravt_env.protocol.tags import ANSWER, CALL, PYTHON, RESPONSE, THINK, closing, opening

REACH = 40.0
"""Seconds from an overview frame to the times that a style may name beside its own."""


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
        media: Before the images of a task; field media, which says how large each is.
        image: Before each image of a task; field number (from 0).
        output: What code of a turn wrote, and what it showed; split at the field output.
        picture: Before each picture that code showed and that is no frame; field number (from 1).
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
    media: str = "{media}\n"
    image: str = "<image {number}, scaled down>"
    output: str = f"{opening(RESPONSE)}\n{{output}}\n{closing(RESPONSE)}\n"
    picture: str = "<picture {number}>"


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

_CODE_TOOL = (
    "In each turn think first, {think}. To look closely, write Python and wait for what it "
    "brings:\n{code}\nIt runs in a session that lasts, without files and network, in at most "
    "{{max_turns}} turns. {objects} show(...) shows pictures (PIL images, arrays, lists of them), "
    "print(...) text; np and Image (PIL) are there. Otherwise end with {answer}. {kinds}"
)


def _code_tool(objects: str, example: str) -> str:
    return _CODE_TOOL.format(
        think=f"{opening(THINK)}...{closing(THINK)}",
        code=f"{opening(PYTHON)}\n{example}\n{closing(PYTHON)}",
        objects=objects,
        answer=_ANSWER_TAGS,
        kinds=_ANSWER_KINDS,
    )


PYVISION_VIDEO = replace(
    PYVISION,
    name="pyvision_video",
    system=(
        "You answer a question about a long video. You are told its length, size and frame rate, "
        "and see none of its frames before you ask for them. "
        + _code_tool(
            "video.frames(start, end, n) gives n frames between two times in seconds; video has "
            "duration, fps, width and height.",
            "show(video.frames(12, 30, 6))",
        )
    ),
)

PYVISION_IMAGE = replace(
    PYVISION,
    name="pyvision_image",
    system=(
        "You answer a question about images, which you see scaled down. "
        + _code_tool(
            "images[0] is the first image in its full size, a PIL image.",
            "show(images[0].crop((400, 300, 800, 600)))",
        )
    ),
)

COMPACT_CODE = replace(
    COMPACT, name="compact_code", media="", image="", output="{output}\n", picture=""
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
    for style in (
        *(PARAVT, COMPACT, QWEN3VL, LONGVT, PYVISION, PYVISION_VIDEO, PYVISION_IMAGE),
        *(COMPACT_CODE, TOOL_CALLING, REASONING, DIRECT),
    )
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
    "media": ("media",),
    "image": ("number",),
    "output": ("output",),
    "picture": ("number",),
}


def prompt_style(name: str) -> PromptStyle:
    """The style of a name in `PROMPTS`, or at `file.py:name`.

    Raises:
        ValueError: Unknown name (the nearest one is given), something else there, or a template
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
    if style.output.count("{output}") != 1:
        raise ValueError(f"prompt_style {name!r}: its output must hold {{output}} once")
    return style
