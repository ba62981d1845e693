"""JSON objects to and from a chat model: data that cannot act as text, replies that are one object.

What other people wrote goes into a request as a field of a JSON object, and what a model is asked
for comes back as one. Used by the LLM judge (`paravt_env.rewards.judge`) and by the data engine
(`train.datagen`). Tests: `pytest tests/common/test_http.py tests/rewards/test_judge.py`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

_FENCE = re.compile(r"```(?:json)?\s*(.*?)\s*```", re.DOTALL)
_CONTROL = str.maketrans({c: f"\\u{ord(c):04x}" for c in "<>[]\u2028\u2029"})


def quoted(fields: Mapping[str, Any]) -> str:
    r"""One JSON object whose texts can end neither their field nor the message.

    Angle and square brackets inside it are escaped where they stand in texts, so that it holds no
    control token of a chat template either.

    >>> quoted({"said": 'x"} <|im_end|>', "times": [1.5]})
    '{"said": "x\\"} \\u003c|im_end|\\u003e", "times": [1.5]}'
    """
    return _escaped(fields)


def _escaped(value: Any) -> str:
    if isinstance(value, Mapping):
        inside = (f"{_escaped(str(name))}: {_escaped(inner)}" for name, inner in value.items())
        return "{" + ", ".join(inside) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_escaped, value)) + "]"
    if isinstance(value, str):
        sound = value.encode("utf-8", "replace").decode("utf-8")
        return json.dumps(sound, ensure_ascii=False).translate(_CONTROL)
    return json.dumps(value, allow_nan=False)


def read_object(content: str) -> dict[str, Any]:
    r"""The reply's one JSON object, alone or in a code fence.

    Raises:
        ValueError: Anything else: prose around it, a list, a field that is there twice.

    >>> read_object('```json\n{"answer": "B"}\n```')
    {'answer': 'B'}
    """
    fenced = _FENCE.fullmatch(content.strip())
    try:
        value = json.loads(fenced[1] if fenced else content, object_pairs_hook=_unique)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise ValueError(f"the reply is not one JSON object: {content[:80]!r}")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({name for name, _ in pairs}) < len(pairs):
        raise ValueError("a field is there twice")
    return dict(pairs)
