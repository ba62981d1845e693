"""The one tool, `crop_video`: its schema for prompts and the reading of a model's calls.

Between the parser, which finds the call's body, and `crop.py`, which judges the window. Nothing
here is evaluated: a body is JSON (`<tool_call>`) or `name(key=number, ...)` (`<tool_code>`), and
both readers are bounded. Run the tests with `pytest tests/protocol/test_protocol.py`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from paravt_env.crop import CHOSEN_BY_SETTING, CropFrames, Window

TOOL_NAME = "crop_video"
START_KEYS = ("start_time", "start")
END_KEYS = ("end_time", "end")
PATH_KEY, FPS_KEY = "video_path", "fps"
MAX_CALL_CHARS = 4096
"""A longer body (characters) is malformed: it bounds the work that one call can ask for."""

MALFORMED = "malformed"
UNKNOWN_TOOL = "unknown_tool"

# Numbers become floats at once: an integer of 5,000 digits is infinite, not an exception.
_DECODER = json.JSONDecoder(parse_int=float)
_CODE = re.compile(r"\s*([A-Za-z_][\w.]*)\s*\((.*)\)\s*", re.DOTALL)
_ARGUMENT = re.compile(
    r"""\s*([A-Za-z_]\w*)\s*=\s*("[^"\\]*"|'[^'\\]*'|[^\s,'"()]+)\s*(?:,|$)""",
)


class CallError(ValueError):
    """A call that cannot run; `kind` is `malformed` or `unknown_tool`."""

    def __init__(self, kind: str, message: str) -> None:
        """Keep the kind beside the message."""
        super().__init__(message)
        self.kind = kind


def tool_schema(max_crop_seconds: float, crop_frames: CropFrames | None = None) -> dict[str, Any]:
    """The tool as a JSON schema, in the form that chat templates list under `tools`.

    Args:
        max_crop_seconds: Seconds of a crop at most.
        crop_frames: What a policy is told of the frames of crops; None: nothing.
    """
    seconds = {"type": "number"}
    schema: dict[str, Any] = {
        "type": "function",
        "function": {
            "name": TOOL_NAME,
            "description": (
                "Watch one window of the video closely. Several calls in one turn run in parallel. "
                f"A window lasts at most {max_crop_seconds:g} seconds."
            ),
            "parameters": {
                "type": "object",
                "properties": {
                    START_KEYS[0]: {**seconds, "description": "start of the window, in seconds"},
                    END_KEYS[0]: {**seconds, "description": "end of the window, in seconds"},
                },
                "required": [START_KEYS[0], END_KEYS[0]],
            },
        },
    }
    if crop_frames is None:
        return schema
    function = schema["function"]
    function["description"] += f" It shows at most {crop_frames.most} frames."
    if crop_frames.quota:
        function["description"] += f" All windows together show at most {crop_frames.quota}."
    if crop_frames.chosen:
        said = f"frames a second in the window; {crop_frames.fps:g} where it is left out"
        function["parameters"]["properties"][FPS_KEY] = {**seconds, "description": said}
    return schema


def decode_json(text: str, start: int) -> tuple[Any, int]:
    """Decode one JSON value of `text` at `start`.

    Returns:
        The value and the position after it.

    Raises:
        CallError: Not JSON, nested too deeply, or longer than `MAX_CALL_CHARS`.
    """
    try:
        value, length = _DECODER.raw_decode(text[start : start + MAX_CALL_CHARS])
    except RecursionError:
        raise CallError(MALFORMED, "the JSON is nested too deeply") from None
    except ValueError:
        raise CallError(MALFORMED, "the body is not one JSON object") from None
    return value, start + length


def read_json_call(value: Any) -> tuple[str, Window, str | None]:
    """Read `{"name": ..., "arguments": {...}}`.

    Returns:
        The tool's name, the window in seconds (not validated; may be NaN or infinite) and the
        `video_path` or None.

    Raises:
        CallError: Missing or mistyped fields, or another tool.
    """
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        raise CallError(MALFORMED, 'a call needs a "name" and "arguments"')
    return _read_arguments(value["name"], value.get("arguments"))


def read_code_call(body: str) -> tuple[str, Window, str | None]:
    """Read `crop_video(start_time=1, end_time=2)`; keyword arguments with literal values only.

    Returns:
        As `read_json_call`.

    Raises:
        CallError: Any other syntax, or another tool.

    >>> read_code_call("crop_video(start=1, end='2.5')")
    ('crop_video', (1.0, 2.5), None)
    """
    return _read_arguments(*_code_arguments(body))


def read_density(body: Any) -> float:
    """The `fps` of a call that `read_json_call` or `read_code_call` has read.

    Args:
        body: What they were given.

    Returns:
        Frames a second; NaN where the call has none, 0 where it is no number.

    >>> read_density("crop_video(start=1, end=2, fps=0.5)")
    0.5
    """
    return density_of(_code_arguments(body)[1] if isinstance(body, str) else body["arguments"])


def density_of(arguments: Mapping[str, Any]) -> float:
    """`fps` among a call's arguments: NaN where there is none, 0 where it is no number."""
    value = arguments.get(FPS_KEY)
    if value is None:
        return CHOSEN_BY_SETTING
    return _number(value) or 0.0


def _code_arguments(body: str) -> tuple[str, dict[str, str]]:
    match = _CODE.fullmatch(body) if len(body) <= MAX_CALL_CHARS else None
    if match is None:
        raise CallError(MALFORMED, "the body is not one call with keyword arguments")
    name, listing = match.groups()
    arguments: dict[str, str] = {}
    position = 0
    while position < len(listing) and not listing[position:].isspace():
        argument = _ARGUMENT.match(listing, position)
        if argument is None:
            raise CallError(MALFORMED, "the body is not one call with keyword arguments")
        arguments[argument[1]] = argument[2].strip("\"'")
        position = argument.end()
    return name, arguments


def _read_arguments(name: str, arguments: Any) -> tuple[str, Window, str | None]:
    if name != TOOL_NAME:
        raise CallError(UNKNOWN_TOOL, f"there is no tool {name[:40]!r}, only {TOOL_NAME}")
    if not isinstance(arguments, dict):
        raise CallError(MALFORMED, '"arguments" is not an object')
    path = arguments.get(PATH_KEY)
    if path is not None and not isinstance(path, str):
        raise CallError(MALFORMED, f"{PATH_KEY} is not text")
    return name, (_seconds(arguments, START_KEYS), _seconds(arguments, END_KEYS)), path


def _seconds(arguments: Mapping[str, Any], keys: tuple[str, ...]) -> float:
    """The first of `keys` that is there, as a float; a numeric string counts."""
    value = _number(next((arguments[key] for key in keys if key in arguments), None))
    if value is None:
        raise CallError(MALFORMED, f"{keys[0]} is not a number of seconds")
    return value


def _number(value: Any) -> float | None:
    """A number, or a text that is one; None for anything else."""
    if isinstance(value, (float, str)):
        try:
            return float(value)
        except ValueError:
            pass
    return None
