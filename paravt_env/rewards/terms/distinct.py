"""Which pieces of code count as different: by what they say, and by what they brought.

Beside `evidence.distinct_windows`, for the accumulative tool term where the tool is code. Code is
hostile: it is cut into tokens, never compiled. Tests: `pytest tests/rewards/test_distinct.py`.
"""

from __future__ import annotations

import io
import tokenize
from collections.abc import Iterable

from paravt_env.crop import CodeRun

_LAYOUT = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
}


def distinct_code(runs: Iterable[CodeRun]) -> int:
    """How many runs are new: neither their code nor what they brought was there before.

    A comment, a blank line or another spacing makes no new code, and another way to the same crop
    brings nothing new. So all code that brings nothing at all counts once.

    >>> crop, same = "images[0].crop((0, 0, 9, 9))", "images[0].crop((0,0,9,9))  # again"
    >>> distinct_code([CodeRun(crop, "", (), b"1"), CodeRun(same, "", (), b"2")])
    1
    """
    codes: set[tuple[str, ...]] = set()
    brought: set[bytes] = set()
    count = 0
    for run in runs:
        code = words_of(run.code)
        count += code not in codes and run.seen not in brought
        codes.add(code)
        brought.add(run.seen)
    return count


def words_of(code: str) -> tuple[str, ...]:
    """The tokens of code without comments and layout; what is no Python, by its spaces.

    >>> words_of("x = 1  # one")
    ('x', '=', '1')
    """
    try:
        tokens = list(tokenize.generate_tokens(io.StringIO(code).readline))
    except (tokenize.TokenError, SyntaxError):
        return tuple(code.split())
    return tuple(token.string for token in tokens if token.type not in _LAYOUT)
