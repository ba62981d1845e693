"""The text protocol: tags, the tool's schema, the parser, and what agents are told.

The one place that knows the tags. The environment parses completions with it (`parser.py`), and
agents tell their models what they see with it (`parts.py`, in the words of `styles.py`). Run the
tests with `pytest tests/protocol`.
"""

from paravt_env.protocol.parser import (
    action_from_completion,
    action_of,
    parse,
    render_completion,
)
from paravt_env.protocol.schema import TOOL_NAME, tool_schema
from paravt_env.protocol.structure import Block, ParsedCompletion, TagSpan, ToolCall
from paravt_env.protocol.tags import FORCED_PREFIX, TAG_NAMES, Role

__all__ = [
    "FORCED_PREFIX",
    "TAG_NAMES",
    "TOOL_NAME",
    "Block",
    "ParsedCompletion",
    "Role",
    "TagSpan",
    "ToolCall",
    "action_from_completion",
    "action_of",
    "parse",
    "render_completion",
    "tool_schema",
]
