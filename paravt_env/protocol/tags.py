"""The tags of the text protocol, the forced prefix and the roles of text, written once.

Sits between an agent's completion and the environment's action. Tags are exact and case-sensitive,
as they are single tokens of the models' vocabularies. Run the tests with `pytest
tests/protocol/test_protocol.py`.
"""

from __future__ import annotations

import re
from enum import IntEnum

THINK = "think"
CALL = "tool_call"
CODE = "tool_code"
RESPONSE = "tool_response"
ANSWER = "answer"
TAG_NAMES: tuple[str, ...] = (THINK, CALL, CODE, RESPONSE, ANSWER)
TAG_PATTERN = re.compile(f"<(/?)({'|'.join(TAG_NAMES)})>")
"""Any tag: group 1 is "/" for a closing one, group 2 its name."""

PYTHON = "code"
"""Holds Python to be run, where the environment's tool is code; elsewhere it is text."""
PYTHON_PATTERN = re.compile(f"<(/?)({'|'.join((*TAG_NAMES, PYTHON))})>")
"""The same as `TAG_PATTERN` where that tool is."""


def opening(name: str) -> str:
    """`<name>`."""
    return f"<{name}>"


def closing(name: str) -> str:
    """`</name>`."""
    return f"</{name}>"


FORCED_PREFIX = opening(THINK) + "\n"
"""Every response starts with it (Exploration Anchoring); it is parsed and scored as its part."""


class Role(IntEnum):
    """What a stretch of a rollout's text is; the codes are stored per token in a trajectory."""

    prompt = 0
    think = 1
    call = 2
    response = 3
    answer = 4
    tag = 5
    text = 6


ROLE_OF_TAG: dict[str, Role] = {
    THINK: Role.think,
    CALL: Role.call,
    CODE: Role.call,
    PYTHON: Role.call,
    RESPONSE: Role.response,
    ANSWER: Role.answer,
}
