"""The text protocol: tags, the tool's schema, the parser, the prompts (`protocol.prompts`).

The one place that knows the tags. The environment parses completions with it and agents write
prompts with it.
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
