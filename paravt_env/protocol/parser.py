r"""Completion text -> structure: a linear-time state machine that never raises on model text.

Between an agent's completion and the environment's action. The rules, each with a test:

- Only its own closing tag leaves `<think>`, `<answer>` and `<tool_response>`: whatever stands
  inside is content. So a call inside a thought, an answer or a forged tool response does not count,
  and a think that is never closed is a thought to the end of the text. A prefix of the text
  therefore parses as the whole does.
- A `<tool_call>` that holds exactly one JSON object closes after that object: a tag inside a JSON
  string is content. Any other body ends at the first `</tool_call>`, or unclosed at the next
  opening tag: one malformed call costs no neighbour its turn.
- A malformed call stays in `calls`, with its error; the order of calls is the order of the text.
- The forced prefix `<think>\n` is part of the completion.
- `<code>` is a tag where the environment's tool is code (`code=True`), and text elsewhere. Only its
  own closing tag leaves it, too; one that is never closed is a malformed call.
- Strict reading is the rule, as a reward that pays for a repaired call pays for broken form
  (`tests/protocol/test_lenient.py`); `lenient` gives malformed calls a second reading.

Work is proportional to the length. A call's body is read up to `MAX_CALL_CHARS` characters; past
`MAX_TAGS` tags, the rest of the text is content of whatever is open.

A turn's text is read once, although the agent asks for its structure and the environment, which
trusts only its own result, asks again: `parse` caches its results for the latest texts. Tests:
`pytest tests/protocol`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import islice
from textwrap import dedent
from typing import Any

import numpy as np

from paravt_env.crop import CHOSEN_BY_SETTING, Window
from paravt_env.protocol import schema
from paravt_env.protocol.lenient import read_leniently
from paravt_env.protocol.structure import Block, ParsedCompletion, TagSpan, ToolCall
from paravt_env.protocol.tags import (
    ANSWER,
    CALL,
    CODE,
    FORCED_PREFIX,
    PYTHON,
    PYTHON_PATTERN,
    TAG_PATTERN,
    THINK,
    closing,
    opening,
)

MAX_TAGS = 100_000
"""Tags that are read; a sampled completion has a few dozen."""

MAX_CODE_CHARS = 20_000
"""Characters of one piece of code."""

KEPT_TEXTS, KEPT_CHARS = 512, 16_384
"""How many parses are kept, more than rows play at once, and the longest text of one of them.

2 MB of usual completions, at worst (nothing but tags) 280 MB. The structure of a longer text is
read again."""

_SPACE = re.compile(r"\s*")
_CUT_TAG = re.compile(r"<(?:/[a-z_]{0,12})?\Z")
"""The start of a closing tag, where the text ends inside it."""


def parse(
    text: str, forced_prefix_included: bool = True, lenient: bool = False, code: bool = False
) -> ParsedCompletion:
    r"""Parse a completion.

    Args:
        text: What the agent wrote, the forced prefix included.
        forced_prefix_included: False if `text` lacks the prefix; it is then put in front, and all
            positions count it.
        lenient: Give calls that are malformed a second reading (`lenient.py`), and take a call
            inside a thought that never closes for a call; each repair is named in the call.
        code: Whether the environment's tool is code: `<code>` holds a call.

    Returns:
        The structure; do not change it: all callers with an equal text share it.

    >>> parsed = parse("<think>look</think><tool_code>crop_video(start=1, end=2)</tool_code>")
    >>> parsed.calls[0].window, parsed.answer, parsed.balanced
    ((1.0, 2.0), '', True)
    """
    text = str.__str__(text)  # a subclass could have an equality of its own
    if not forced_prefix_included:
        text = FORCED_PREFIX + text
    return _kept(text, lenient, code) if len(text) <= KEPT_CHARS else _read(text, lenient, code)


@lru_cache(KEPT_TEXTS)
def _kept(text: str, lenient: bool, code: bool) -> ParsedCompletion:
    return _read(text, lenient, code)


def _read(text: str, lenient: bool, code: bool) -> ParsedCompletion:
    tags: list[TagSpan] = []
    blocks: list[Block] = []
    calls: list[ToolCall] = []
    opened: TagSpan | None = None
    resume, fallen = 0, False
    last_close = text.rfind(closing(THINK)) if lenient else len(text)
    pattern = PYTHON_PATTERN if code else TAG_PATTERN
    for match in islice(pattern.finditer(text), MAX_TAGS):
        if match.start() < resume:
            continue
        tag = TagSpan(match[2], bool(match[1]), match.start(), match.end())
        if opened is not None and tag.closing and tag.name == opened.name:
            _end_block(text, opened, tag.start, tag.end, blocks, calls)
            opened = None
        elif opened is not None and not tag.closing and opened.name in (CALL, CODE):
            _end_block(text, opened, tag.start, None, blocks, calls)
            opened = tag
        elif opened is None and not tag.closing:
            opened = tag
        elif opened is not None and opened.start > last_close and _leaves_thought(opened, tag):
            _end_block(text, opened, tag.start, None, blocks, calls)
            opened, fallen = tag, True
        tags.append(tag)
        if opened is tag and tag.name == CALL and (found := _json_call(text, tag)) is not None:
            value, close = found
            tags.append(close)
            blocks.append(Block(CALL, text[tag.end : close.start], tag.start, close.end, True))
            calls.append(_read_call(schema.read_json_call, value, tag.start, close.end))
            opened, resume = None, close.end
    if opened is not None:
        _end_block(text, opened, len(text), None, blocks, calls)
    if lenient and calls:
        calls = _mended(blocks, calls, ("in_thought",) if fallen else ())
    return ParsedCompletion(text, tuple(tags), tuple(blocks), tuple(calls))


def _leaves_thought(opened: TagSpan, tag: TagSpan) -> bool:
    """Whether a tag opens a call inside a thought."""
    return opened.name == THINK and not tag.closing and tag.name in (CALL, CODE)


def _mended(
    blocks: Sequence[Block], calls: Sequence[ToolCall], always: tuple[str, ...]
) -> list[ToolCall]:
    """The calls, those that could not be read read again; `always` was repaired in every one."""
    bodies = {block.start: block for block in blocks if block.name in (CALL, CODE)}
    mended: list[ToolCall] = []
    for call in calls:
        if call.error is None:
            mended.append(replace(call, repairs=always) if always else call)
            continue
        block = bodies[call.start]
        more = always if block.closed else ("unclosed", *always)
        try:
            found = read_leniently(block.text if block.closed else _CUT_TAG.sub("", block.text))
        except schema.CallError as error:
            mended.append(replace(call, error=error.kind, message=str(error)))
            continue
        mended += [
            ToolCall(
                *(one.name, one.window, one.path, None, "", call.start, call.end),
                repairs=(*one.repairs, *more),
                fps=one.fps,
            )
            for one in found
        ]
    return mended


def _json_call(text: str, tag: TagSpan) -> tuple[Any, TagSpan] | None:
    """The object that a `<tool_call>` holds and its closing tag, if it holds just one object."""
    start = _SPACE.match(text, tag.end).end()  # type: ignore[union-attr]
    if not text.startswith("{", start):
        return None
    try:
        value, end = schema.decode_json(text, start)
    except schema.CallError:
        return None
    end = _SPACE.match(text, end).end()  # type: ignore[union-attr]
    if not text.startswith(closing(CALL), end):
        return None
    return value, TagSpan(CALL, True, end, end + len(closing(CALL)))


def _end_block(
    text: str,
    opened: TagSpan,
    inner_end: int,
    end: int | None,
    blocks: list[Block],
    calls: list[ToolCall],
) -> None:
    """Append the block whose content ends at `inner_end`; `end`: past its closing tag, or None."""
    body = text[opened.end : inner_end]
    stop = inner_end if end is None else end
    blocks.append(Block(opened.name, body, opened.start, stop, end is not None))
    if opened.name not in (CALL, CODE, PYTHON):
        return
    if opened.name == PYTHON and end is not None:
        calls.append(_code_call(body, opened.start, stop))
    elif end is None:
        error = f"{opening(opened.name)} is never closed"
        calls.append(ToolCall(None, None, None, schema.MALFORMED, error, opened.start, stop))
    elif opened.name == CODE:
        calls.append(_read_call(schema.read_code_call, body, opened.start, stop))
    else:
        calls.append(_read_call(_reject_json, body, opened.start, stop))


def _code_call(body: str, start: int, end: int) -> ToolCall:
    """Python to be run; what stands around it on its first and last line is no part of it."""
    if not body.strip():
        return ToolCall(None, None, None, schema.MALFORMED, "there is no code in it", start, end)
    if len(body) > MAX_CODE_CHARS:
        reason = f"code has {MAX_CODE_CHARS} characters at most"
        return ToolCall(None, None, None, schema.MALFORMED, reason, start, end)
    return ToolCall(PYTHON, None, None, None, "", start, end, code=dedent(body).strip("\n"))


def _reject_json(body: str) -> tuple[str, Window, str | None]:
    """Say why a body that `_json_call` refused is not a call."""
    schema.decode_json(body.strip(), 0)
    raise schema.CallError(schema.MALFORMED, "the body is not one JSON object")


def _read_call(reader: Any, body: Any, start: int, end: int) -> ToolCall:
    try:
        name, window, path = reader(body)
    except schema.CallError as error:
        return ToolCall(None, None, None, error.kind, str(error), start, end)
    density = schema.read_density(body)
    return ToolCall(name, window, path, None, "", start, end, fps=density)


def action_from_completion(
    text: str, max_crops: int, lenient: bool = False, density: bool = False, code: bool = False
) -> dict[str, Any]:
    """The environment's action for a completion (forced prefix included): see `action_of`.

    Args:
        text: What the model wrote.
        max_crops: Of the environment.
        lenient: As the environment reads calls (`lenient_calls`).
        density: Whether the environment lets calls choose their density (`crop_density`).
        code: Whether the environment's tool is code (`tool="code"`).

    Raises:
        ValueError: `text` is no text.
    """
    if not isinstance(text, str):
        raise ValueError(f"the action is a text, what the model wrote, not {text!r}")
    return action_of(parse(text, lenient=lenient, code=code), max_crops, density)


def action_of(parsed: ParsedCompletion, max_crops: int, density: bool = False) -> dict[str, Any]:
    """The environment's action for a completion that is parsed already, as plain data.

    Args:
        parsed: The completion.
        max_crops: P.
        density: Whether the environment lets calls choose their density.

    Returns:
        `crops` float64 (max_crops, 2) seconds, `crop_mask` int8 (max_crops,), `answer`,
        `completion`. Row i is the i-th call; one that cannot run, or that is code, has a NaN window
        and mask 1;
        unused rows are zero with mask 0. With `density` also `crop_fps` float64 (max_crops,).
    """
    crops = np.zeros((max_crops, 2), np.float64)
    mask = np.zeros(max_crops, np.int8)
    for row, call in enumerate(parsed.calls[:max_crops]):
        crops[row] = call.window if call.window is not None else (math.nan, math.nan)
        mask[row] = 1
    action = {"crops": crops, "crop_mask": mask, "answer": parsed.answer, "completion": parsed.text}
    if density:
        rates = action["crop_fps"] = np.full(max_crops, CHOSEN_BY_SETTING)
        for row, call in enumerate(parsed.calls[:max_crops]):
            rates[row] = call.fps
    return action


def render_completion(
    thought: str,
    windows: Sequence[Window] = (),
    answer: str | None = None,
    densities: Sequence[float] = (),
    native: bool = False,
    code: str | None = None,
) -> str:
    """Write the canonical completion: the thought, then the calls, then the answer if there is one.

    Args:
        thought: Text of the think block.
        windows: (start, end) seconds of each call; whole numbers are written without a fraction.
        answer: Text of the answer block; None writes no block.
        densities: Frames a second of each call, NaN for none; empty: no call asks for any.
        native: Leave out the tags of the thought and of the answer, as models of the family write
            before they were taught the structure: only a call has its tag.
        code: Python to be run, where the environment's tool is code; None writes no block.

    Raises:
        ValueError: The thought, the code or the answer holds a tag.

    >>> print(render_completion("look twice", [(1, 2.5)]))
    <think>
    look twice
    </think>
    <tool_call>
    {"name": "crop_video", "arguments": {"start_time": 1, "end_time": 2.5}}
    </tool_call>
    """
    for text in (thought, answer or "", code or ""):
        if (TAG_PATTERN if code is None else PYTHON_PATTERN).search(text):
            raise ValueError(f"a tag inside a block: {text!r}")
    parts = [thought if native else f"{FORCED_PREFIX}{thought}\n{closing(THINK)}"]
    rates = densities or [CHOSEN_BY_SETTING] * len(windows)
    for (start, end), fps in zip(windows, rates, strict=True):
        arguments = {schema.START_KEYS[0]: _plain(start), schema.END_KEYS[0]: _plain(end)}
        if not math.isnan(fps):
            arguments[schema.FPS_KEY] = _plain(fps)
        call = json.dumps({"name": schema.TOOL_NAME, "arguments": arguments})
        parts.append(f"{opening(CALL)}\n{call}\n{closing(CALL)}")
    if code is not None:
        parts.append(f"{opening(PYTHON)}\n{code}\n{closing(PYTHON)}")
    if answer is not None:
        parts.append(answer if native else f"{opening(ANSWER)}{answer}{closing(ANSWER)}")
    return "\n".join(parts)


def _plain(seconds: float) -> int | float:
    value = float(seconds)
    return int(value) if value.is_integer() else value
