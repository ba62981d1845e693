"""The answer of a turn that has no closed `<answer>`: what the published evaluators read.

Between the parser and the episode, asked only where `untagged_answers` is on: they take a model's
raw text for its answer, so a model that writes "A" or "The answer is A." is measured by it. Tests:
`pytest tests/protocol/test_untagged.py`.
"""

from __future__ import annotations

import re

from paravt_env.protocol.structure import ParsedCompletion
from paravt_env.protocol.tags import TAG_PATTERN, Role

_CONTROL = re.compile(r"<\|[a-z_]{1,32}\|>")


def untagged_answer(parsed: ParsedCompletion) -> str:
    r"""What a completion says outside of its blocks, or the end of a thought that never closes.

    In order: an `<answer>` that was cut; the text outside of thoughts, calls and forged responses;
    the last line of a last thought that never closes. "" where there is none.

    >>> from paravt_env.protocol.parser import parse
    >>> texts = "<think>x</think> B", "<answer>B", "<think>x\nB"
    >>> [untagged_answer(parse(text)) for text in texts]
    ['B', 'B', 'B']
    """
    last = parsed.blocks[-1] if parsed.blocks else None
    if last is not None and last in parsed.answers and not last.closed:
        return _text(last.text)
    outside = "".join(
        parsed.text[start:end] for start, end, role in parsed.roles() if role == Role.text
    )
    if said := _text(outside):
        return said
    if last is not None and last in parsed.thoughts and not last.closed:
        lines = [line for line in map(_text, last.text.splitlines()) if line]
        return lines[-1] if lines else ""
    return ""


def _text(text: str) -> str:
    """Without tags, ends of turns and surrounding space."""
    return _CONTROL.sub(" ", TAG_PATTERN.sub(" ", text)).strip()
