"""Characters that mean the same, made the same: before answers are compared with options and gold.

Between an answer and `choice.py` or `answer.py`. Only spellings of one character are folded
(fullwidth forms, curly quotes, dashes, spaces), never signs with a meaning of their own. Tests:
`pytest tests/rewards/test_choice.py tests/rewards/test_open_answers.py`.
"""

from __future__ import annotations

_FULLWIDTH = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}
_QUOTES = {
    **dict.fromkeys(map(ord, "\u2018\u2019\u201a\u201b\u2032\u00b4\u02bc"), "'"),
    **dict.fromkeys(map(ord, "\u201c\u201d\u201e\u201f\u2033\u00ab\u00bb"), '"'),
}
_DASHES = dict.fromkeys(map(ord, "\u2010\u2011\u2012\u2013\u2212\ufe63"), "-")
_LONG_DASHES = dict.fromkeys(map(ord, "\u2014\u2015"), " - ")
_SPACES = dict.fromkeys(map(ord, "\u00a0\u2007\u202f\u3000"), " ")
_NOTHING = dict.fromkeys(map(ord, "\u200b\u200c\u200d\u2060\ufeff\u00ad"), "")
_TABLE = _FULLWIDTH | _QUOTES | _DASHES | _LONG_DASHES | _SPACES | _NOTHING

CJK = (
    "\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\u1100-\u11ff\u3130-\u318f"
    "\uac00-\ud7af\U00020000-\U0003ffff"
)
"""Chinese, Japanese and Korean letters, as the inside of a character class."""


def folded(text: str) -> str:
    r"""The text with one spelling a character; in time proportional to its length.

    >>> folded("\uff08\uff22\uff09 \u201cIt\u2019s 5\u201320\u201d")
    '(B) "It\'s 5-20"'
    """
    return text.translate(_TABLE)
