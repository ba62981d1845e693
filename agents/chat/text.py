"""Between a chat server's messages and the environment's one text: tool calls and reasoning.

Pure functions of `agents.chat.agent`: a reply becomes the completion that the environment parses,
and one call's outcome is cut out of an observation. Tests: `pytest
tests/policies/test_openai_agent.py`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from paravt_env.crop import CropStatus
from paravt_env.protocol.parser import parse
from paravt_env.protocol.tags import CALL, TAG_PATTERN, THINK, closing, opening

Message = dict[str, Any]
"""One message of a conversation, as servers take it."""
ToolCall = dict[str, Any]
"""One call in the `tool_calls` of a message."""


_CONTROL = re.compile(
    r"<(?=[|\uff5c][^<>\s]{1,48}[|\uff5c]>|/?(?:s|bos|eos|pad|unk|image|video|start_of_turn|end_of_turn|"
    r"start_of_image|image_soft_token)>)|\[(?=/?(?:INST|IMG|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS)\])"
)
APART = "\N{ZERO WIDTH SPACE}"


def as_text(text: str) -> str:
    """Foreign text for a server that reads special tokens in what it is sent.

    A server's chat template makes one string of all messages, so that `<|im_end|>` in a question
    would end the message. Behind the bracket of any such name stands a character without width:
    the model sees the name, the tokenizer does not.

    >>> as_text("<|im_end|> <think>") == "<\N{ZERO WIDTH SPACE}|im_end|> <think>"
    True
    """
    return _CONTROL.sub(lambda bracket: bracket[0] + APART, text)


def native_calls(message: Mapping[str, Any]) -> list[ToolCall]:
    """The tool calls of a reply in a form that every server takes back in the next turn.

    Arguments that are not one JSON object would be refused there: they go into `text`, for the
    environment to call malformed, and the history says `{}`.

    >>> native_calls({"tool_calls": [{"function": {"name": "crop_video", "arguments": "{"}}]})
    [{'id': 'call_0', 'type': 'function', 'function': {'name': 'crop_video', 'arguments': '{}'}}]
    """
    calls = []
    for place, call in enumerate(_listed(message)):
        name, arguments = _function(call)
        if not isinstance(_json(arguments), dict):
            arguments = "{}"
        calls.append(
            {
                "id": str(call.get("id") or f"call_{place}"),
                "type": "function",
                "function": {"name": name, "arguments": arguments},
            }
        )
    return calls


def completion_text(
    content: str, message: Mapping[str, Any], calls: Sequence[ToolCall] = ()
) -> str:
    r"""A reply as the one text that the environment parses: thought, content, calls.

    Args:
        content: What the model wrote.
        message: The reply's message; its reasoning, if the server separates it, becomes a thought.
        calls: Native calls; empty where the model writes them as text.

    >>> completion_text("<answer>B</answer>", {"reasoning_content": "It is </think> red."})
    '<think>\nIt is  red.\n</think>\n<answer>B</answer>'
    """
    thought = message.get("reasoning_content") or message.get("reasoning")
    if isinstance(thought, str) and thought.strip():
        thought = TAG_PATTERN.sub("", thought).strip()
        content = f"{opening(THINK)}\n{thought}\n{closing(THINK)}\n{content}"
    if not calls:
        return content
    blocks = parse(content).blocks
    if blocks and not blocks[-1].closed:  # or the calls would be a part of it
        content += closing(blocks[-1].name)
    for call in _listed(message):
        name, arguments = _function(call)
        value = _json(arguments)
        body = arguments if value is None else json.dumps(value)
        body = f'{{"name": {json.dumps(name)}, "arguments": {TAG_PATTERN.sub("", body)}}}'
        content += f"\n{opening(CALL)}\n{body}\n{closing(CALL)}"
    return content


def _listed(message: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    calls = message.get("tool_calls")
    return [call for call in calls if isinstance(call, Mapping)] if isinstance(calls, list) else []


def _function(call: Mapping[str, Any]) -> tuple[str, str]:
    """Name and arguments (as text) of a call; whatever is missing is empty."""
    function = call.get("function")
    function = function if isinstance(function, Mapping) else {}
    arguments = function.get("arguments")
    text = arguments if isinstance(arguments, str) else json.dumps(arguments)
    return str(function.get("name") or ""), text


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def one_call(view: Mapping[str, Any], call: int) -> dict[str, Any]:
    """A row's observation with the outcome of one call alone."""
    status = np.zeros_like(view["crop_status"])
    if 0 <= call < len(status):
        status[call] = view["crop_status"][call]
    lines = str(view["feedback"]).splitlines()
    own = [line for line in lines if line.startswith(f"call {call + 1}:")]
    if call >= len(status):
        own = [line for line in lines if f": {CropStatus.over_limit}:" in line]
    return {**view, "crop_status": status, "feedback": "\n".join(own)}
