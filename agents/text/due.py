"""The tokens that were sampled where the grammar of a turn asked for a tag.

From the characters that the parser names (`paravt_env/protocol/due.py`) to the tokens that hold
them, for token-level credit (`agents/algorithm/credit.py`). Tests: `pytest
tests/algorithm/test_due_credit.py`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

from paravt_env.protocol.due import due_places
from paravt_env.protocol.structure import ParsedCompletion


def due_tokens(parsed: ParsedCompletion, ends: Sequence[int], count: int) -> list[bool]:
    """Whether each token stands where a tag was due: the one that holds the character.

    Args:
        parsed: The completion.
        ends: For each token of its text, the character offset after it (`decode_with_offsets`).
        count: Tokens of the turn; one more than `ends` where a stop token ended it, which is the
            one that stands at the end. A turn that its limit cut has no token there.
    """
    places = {bisect_right(ends, place) for place in due_places(parsed)}
    return [token in places for token in range(count)]
