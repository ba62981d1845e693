"""A second pass over calls that the strict reader refused: the forms that models do write.

Beside `schema.py`, asked by the parser only where an environment reads calls leniently
(`lenient_calls`). Nothing is evaluated and every reader is bounded. Each repair has a name and is
counted, so that a well-formed call stays one. Tests: `pytest tests/protocol/test_lenient.py`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from paravt_env.crop import Window
from paravt_env.protocol.schema import (
    END_KEYS,
    MALFORMED,
    MAX_CALL_CHARS,
    PATH_KEY,
    START_KEYS,
    TOOL_NAME,
    UNKNOWN_TOOL,
    CallError,
    decode_json,
    density_of,
)
from paravt_env.span import read_time

REPAIRS = (
    "positional",  # crop_video(1, 2)
    "wrapped",  # print(crop_video(...)), tools.crop_video(...), clip = crop_video(...)
    "several",  # more than one call in a block
    "fenced",  # ```json ... ```
    "time",  # "01:30", "10s"
    "text_arguments",  # the arguments as a JSON text
    "quotes",  # 'single', True, None
    "commas",  # {"start": 1,}
    "parameters",  # in place of "arguments"
    "unclosed",  # the closing tag is missing
    "in_thought",  # inside a thought that never closes
)
_FENCE = re.compile(r"\s*```[a-z_]*\s*(.*?)\s*(?:```\s*)?", re.DOTALL)
_CALLEE = re.compile(r"(?:\b([A-Za-z_]\w*)\.)?\b([A-Za-z_]\w*)\s*\(")
_ARGUMENT = re.compile(
    r"""\s*(?:([A-Za-z_]\w*)\s*=\s*)?("[^"\\]*"|'[^'\\]*'|[^\s,'"()=]+['"]?)\s*(,|(?=\)))"""
)
_LITERAL = re.compile(
    r"""("(?:[^"\\]|\\.)*")|'((?:[^'\\]|\\.)*)'|\b(True|False|None)\b|,(?=\s*[}\]])""", re.DOTALL
)
_WORDS = {"True": "true", "False": "false", "None": "null"}


class Repaired(NamedTuple):
    """One call that could be read: as `schema.read_json_call` gives it, and its repairs."""

    name: str
    window: Window
    path: str | None
    fps: float
    """As `schema.read_density` gives it."""
    repairs: tuple[str, ...]


def read_leniently(body: str) -> list[Repaired]:
    """The calls of a block's body, in order, as JSON or as code in either kind of block.

    Args:
        body: What stands between the tags.

    Raises:
        CallError: Not one call can be read.

    >>> call, = read_leniently("print(crop_video('01:30', '1m40s'))")
    >>> call.window, call.repairs
    ((90.0, 100.0), ('positional', 'wrapped', 'time'))
    """
    repairs: set[str] = set()
    if len(body) > MAX_CALL_CHARS:
        raise CallError(MALFORMED, f"the body is longer than {MAX_CALL_CHARS} characters")
    fence = _FENCE.fullmatch(body)
    if fence is not None:
        repairs.add("fenced")
        body = fence[1]
    text = body.strip()
    found = list(_json(text, repairs) if text[:1] in ("{", "[") else _code(text, repairs))
    if not found:
        raise CallError(MALFORMED, "the body holds no call")
    if len(found) > 1:
        repairs.add("several")
    return [_call(name, arguments, repairs | own) for name, arguments, own in found]


def _json(text: str, repairs: set[str]) -> Iterator[tuple[str, Any, set[str]]]:
    """Calls as JSON: one object, objects one after the other, or an array of them."""
    position = 0
    while position < len(text):
        try:
            value, end = decode_json(text, position)
        except CallError:
            mended = _LITERAL.sub(lambda match: _mended(match, repairs), text[position:])
            text, position = mended, 0
            value, end = decode_json(text, position)
        for one in value if isinstance(value, list) else [value]:
            yield _object(one)
        rest = text[end:].lstrip(" \t\r\n,;")
        position = len(text) - len(rest)


def _mended(match: re.Match[str], repairs: set[str]) -> str:
    if match[1]:
        return match[1]
    if match[0] == ",":
        repairs.add("commas")
        return ""
    repairs.add("quotes")
    if match[3]:
        return _WORDS[match[3]]
    return json.dumps(match[2].replace("\\'", "'"))


def _object(value: Any) -> tuple[str, Any, set[str]]:
    own: set[str] = set()
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        raise CallError(MALFORMED, 'a call needs a "name" and "arguments"')
    arguments = value.get("arguments")
    if arguments is None and "parameters" in value:
        own.add("parameters")
        arguments = value["parameters"]
    if isinstance(arguments, str):
        own.add("text_arguments")
        arguments, _ = decode_json(arguments.strip(), 0)
    return value["name"], arguments, own


def _code(text: str, repairs: set[str]) -> Iterator[tuple[str, dict[str, Any], set[str]]]:
    """Calls as code, wherever they stand; unknown ones only where there is no other."""
    position, unknown = 0, ""
    while (match := _CALLEE.search(text, position)) is not None:
        position = match.end()
        if match[2] != TOOL_NAME:
            unknown = unknown or match[2]
            continue
        before = text[: match.start()].rsplit("\n", 1)[-1].strip()
        own = {"wrapped"} if before or match[1] else set()
        named, placed, position = _arguments(text, position)
        if placed:
            own.add("positional")
            names = [PATH_KEY] * (len(placed) > 2) + [START_KEYS[0], END_KEYS[0]]
            named = dict(zip(names, placed, strict=False)) | named
        yield TOOL_NAME, named, own
        unknown = TOOL_NAME
    if unknown and unknown not in (TOOL_NAME, "print"):
        raise CallError(UNKNOWN_TOOL, f"there is no tool {unknown[:40]!r}, only {TOOL_NAME}")


def _arguments(text: str, position: int) -> tuple[dict[str, Any], list[str], int]:
    """Named and placed arguments of a call, and where it ends."""
    named: dict[str, Any] = {}
    placed: list[str] = []
    while (match := _ARGUMENT.match(text, position)) is not None:
        value = match[2].strip("\"'")
        position = match.end()
        if match[1]:
            named[match[1]] = value
        else:
            placed.append(value)
        if not match[3]:
            break
    return named, placed, position


def _call(name: str, arguments: Any, repairs: set[str]) -> Repaired:
    if name != TOOL_NAME:
        raise CallError(UNKNOWN_TOOL, f"there is no tool {name[:40]!r}, only {TOOL_NAME}")
    if not isinstance(arguments, Mapping):
        raise CallError(MALFORMED, '"arguments" is not an object')
    path, own = arguments.get(PATH_KEY), set(repairs)
    window = _seconds(arguments, START_KEYS, own), _seconds(arguments, END_KEYS, own)
    ordered = tuple(repair for repair in REPAIRS if repair in own)
    path = path if isinstance(path, str) else None
    return Repaired(name, window, path, density_of(arguments), ordered)


def _seconds(arguments: Mapping[str, Any], keys: tuple[str, ...], repairs: set[str]) -> float:
    value = next((arguments[key] for key in keys if key in arguments), None)
    if isinstance(value, float):
        return value
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            seconds = read_time(value)
            if seconds is not None:
                repairs.add("time")
                return seconds
    raise CallError(MALFORMED, f"{keys[0]} is not a number of seconds")
