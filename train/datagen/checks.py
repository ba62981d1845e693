"""What a row must be by itself, before any solver is asked: pure functions of its texts.

Fifth step of the data engine, first half. A wrong option that differs from the answer in length,
punctuation or kind tells a reader which one is right, and so does a question that names the answer.
Tests: `pytest tests/datagen/test_checks.py`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from paravt_env.rewards.terms.answer import tokens
from train.config.reason import CheckConfig
from train.datagen.questions import Row
from train.datagen.refusal import Rejected

_CAPTIONS = re.compile(
    r"\b(?:captions?|captioned|transcripts?|descriptions?|clips? (?:number )?\d+)\b", re.IGNORECASE
)
_LETTERS = re.compile(r"\b(?:option|choice|answer) \(?[A-J]\b|\([A-J]\)", re.IGNORECASE)
_CATCH_ALL = re.compile(
    r"\b(?:all|none|any|both|neither) of (?:the|these|them)\b|\b(?:cannot|can't) be determined\b",
    re.IGNORECASE,
)
_NUMBER = re.compile(r"[-+]?\d[\d.,:]*")


def check(row: Row, config: CheckConfig) -> None:
    """Refuse a row for what can be read off it.

    Raises:
        Rejected: `cites`, `evidence`, `leak` or `form`.
    """
    _check_words(row)
    _check_evidence(row, config.widest_evidence)
    if only_the_answer_is_in(row.question, row.options):
        raise Rejected("leak", f"the question names the answer {row.answer!r} alone")
    problem = form_problem(row.options, config.longest_option, config.slack)
    if problem:
        raise Rejected("form", problem)


def _check_words(row: Row) -> None:
    for field, text in (("question", row.question), ("reasoning", row.reasoning)):
        for pattern in (_CAPTIONS, _LETTERS):
            found = pattern.search(text)
            if found:
                raise Rejected("cites", f"{field}: {found[0]!r}")


def _check_evidence(row: Row, widest: float) -> None:
    seconds = sum(end - start for start, end in row.evidence)
    if seconds > widest * row.film.duration:
        share = seconds / row.film.duration
        raise Rejected(
            "evidence", f"{100 * share:.0f} % of the video; {100 * widest:.0f} % at most"
        )


def only_the_answer_is_in(question: str, options: Sequence[str]) -> bool:
    """Whether the question holds the words of the answer, in order, and those of no other option.

    Args:
        question: In words.
        options: The answer first.

    >>> only_the_answer_is_in("Who drives the red car?", ["red car", "blue car"])
    True
    >>> only_the_answer_is_in("Is the car red or blue?", ["red", "blue"])
    False
    """
    asked = tokens(question)
    held = [_holds(asked, tokens(option)) for option in options]
    return held[0] and not any(held[1:])


def _holds(asked: Sequence[str], words: Sequence[str]) -> bool:
    count = len(words)
    places = range(len(asked) - count + 1) if count else ()
    return any(list(asked[place : place + count]) == list(words) for place in places)


def form_problem(options: Sequence[str], longest: float, slack: int) -> str:
    """What tells the options apart that should not; "" where nothing does.

    Args:
        options: In words.
        longest: Characters of the longest may be so many times those of the shortest.
        slack: Or exceed them by so many.

    >>> form_problem(["to the left", "to the right", "up", "He walks to the left."], 2.0, 30)
    'some end with a full stop, others do not'
    """
    if len({tuple(tokens(option)) for option in options}) < len(options):
        return "two options are the same"
    for option in options:
        if _CATCH_ALL.search(option):
            return f"{option!r} is about the other options"
    lengths = sorted(map(len, options))
    if lengths[-1] > max(longest * lengths[0], lengths[0] + slack):
        return f"lengths from {lengths[0]} to {lengths[-1]} characters"
    for what, marks in (
        ("end with a full stop", [option.endswith(".") for option in options]),
        ("are numbers", [bool(_NUMBER.fullmatch(option)) for option in options]),
    ):
        if len(set(marks)) > 1:
            return f"some {what}, others do not"
    capital = {option[0].isupper() for option in options[1:]}
    if capital == {not options[0][0].isupper()}:
        return "the answer alone begins with a letter of another case"
    return ""
