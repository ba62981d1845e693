r"""Where the grammar of a turn asked for a tag and something else was written.

Between the parser and token-level credit: a tag that is there has its own tokens, one that is
missing has the place where it was due. Read from the structure alone, so that no word of a thought
that closes is ever such a place:

- The turn does not begin with `<think>`: its first character, and without any tag the start of its
  last line, where it answers.
- A thought, an answer or a call is never closed: the tag that was written inside it, for a thought
  without one the start of its last line (what `untagged.py` takes for the answer), and the end of
  the turn.
- After the thoughts comes text, and no call or answer that is opened: its first character.
- The turn ends with neither a call nor an answer: its end.

Tests: `pytest tests/protocol/test_due.py`.
"""

from __future__ import annotations

import re

from paravt_env.protocol.structure import Block, ParsedCompletion
from paravt_env.protocol.tags import ANSWER, CALL, CODE, THINK, Role

_SHOWN = re.compile(r"\S")


def due_places(parsed: ParsedCompletion) -> tuple[int, ...]:
    r"""Characters at which a tag was due, in order; `len(text)` is the end of the turn.

    >>> from paravt_env.protocol.parser import parse
    >>> due_places(parse("<think>look</think><answer>B</answer>"))
    ()
    >>> due_places(parse("<think>look</think> B"))
    (20, 21)
    """
    blocks, text = parsed.blocks, parsed.text
    found = set()
    if not blocks or blocks[0].name != THINK or text[: blocks[0].start].strip():
        found.add(_first(text, 0))
    for block in blocks:
        if not block.closed:
            found |= _unclosed(parsed, block)
    if not any(block.name in (CALL, CODE, ANSWER) for block in blocks):
        found.add(len(text))
        spoken = [start for start, _, role in parsed.roles() if role == Role.text]
        found |= {_first(text, start) for start in spoken} if blocks else _last_line(text, 0)
    return tuple(sorted(found))


def _unclosed(parsed: ParsedCompletion, block: Block) -> set[int]:
    """Where the closing tag of a block was due."""
    inside = [t.start for t in parsed.tags if block.start < t.start < block.end]
    if inside:
        return {inside[0], block.end}
    lines = _last_line(block.text, block.end - len(block.text)) if block.name == THINK else set()
    return {block.end, *lines}


def _last_line(text: str, offset: int) -> set[int]:
    """Where the last of several lines begins, counted from `offset`; nothing of a single line."""
    before, _, _ = text.rstrip().rpartition("\n")
    return {offset + _first(text, len(before))} if before.strip() else set()


def _first(text: str, start: int) -> int:
    """The first character from `start` that is no white space; the end where there is none."""
    match = _SHOWN.search(text, start)
    return match.start() if match else len(text)
