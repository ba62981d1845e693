r"""Which options of a multiple-choice question a text names: letters in any usual form, or text.

Used by the answer term only. Letters A-J alone, wrapped ("(B)", "**B**", "\boxed{B}"), leading
("b) blue"), after a cue ("option b") or standing as a capital in prose; "a" and "I" count only
where they cannot be the article or the pronoun. A text that names two options names no answer.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_WRAP = r"[\s()\[\]{}<>\"'*`.,:;!]*"
_ALONE = re.compile(rf"{_WRAP}([A-Ja-j]){_WRAP}")
_ENDS = r"(?=$|[.,;:!?)\]}\"'*`])"
_LETTERS = (
    # a capital in prose, not part of a word, an abbreviation, a compound or a contraction
    re.compile(r"(?<!\w)(?<!\w[.'-])([B-HJ])(?!\w)(?!['-]\w)"),
    re.compile(
        rf"(?<!\w)(?<!\w[.'-])([AI])(?:{_ENDS}|(?= (?:is|because|since|and|or|but)\b))(?!'\w)"
    ),
    re.compile(r"[(\[{]([a-j])[)\]}]"),
    re.compile(r"^([a-j])[).:](?!\S)"),
    re.compile(rf"\b(?i:option|choice|answer|letter)(?: is|:| )*[(\[{{*\"'`]*([a-j]){_ENDS}"),
)


def named_options(text: str, options: Sequence[str]) -> frozenset[str]:
    """The letters of all options that `text` names.

    Args:
        text: An answer; white space does not matter.
        options: The option texts in order, without letters.

    Returns:
        Letters "A".."J"; also such as no option has. One option is named when there is one letter.

    >>> options = ("a red car", "a blue car", "nothing")
    >>> [sorted(named_options(t, options)) for t in ("b", "(B) a blue car", "The answer is C.")]
    [['B'], ['B'], ['C']]
    >>> sorted(named_options("C. The answer is A. Option B", options))
    ['A', 'B', 'C']
    """
    text = " ".join(text.split()).replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")
    if alone := _ALONE.fullmatch(text):
        return frozenset(alone[1].upper())
    texts = {letter: _plain(option) for letter, option in zip("ABCDEFGHIJ", options, strict=False)}
    if exact := frozenset(letter for letter, option in texts.items() if option == _plain(text)):
        return exact
    named = set()
    # The longest first: "dark blue" does not name "blue". What is found is blanked, so that the
    # article in "B. A red car" is not read as a letter.
    for letter, option in sorted(texts.items(), key=lambda item: -len(item[1])):
        if not option or _ALONE.fullmatch(option):
            continue
        pattern = rf"(?<!\w)(?<!\d\.){re.escape(option)}(?!\w)(?!\.\d)"
        text, found = re.subn(pattern, "_", text, flags=re.IGNORECASE)
        if found:
            named.add(letter)
    for pattern_ in _LETTERS:
        named.update(match.upper() for match in pattern_.findall(text))
    return frozenset(named)


def _plain(text: str) -> str:
    return " ".join(text.split()).strip(" .,:;!\"'`*").casefold()
