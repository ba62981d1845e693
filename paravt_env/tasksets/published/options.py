"""Multiple choice as data sets write it: options inside the question, answers as letter or text.

Between a published row and `Task`, whose options have no letters and whose gold answer is one
letter. Pure functions; run the examples with `python -m doctest
paravt_env/tasksets/published/options.py`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from paravt_env.task import OPTION_LETTERS

_AT_LINE = re.compile(r"^[ \t]*[(\[]?([A-J])[.):\]][ \t]*(?=\S)", re.MULTILINE)
_IN_LINE = re.compile(r"(?<!\S)[(\[]?([A-J])[.)\]][ \t]+(?=\S)")
_LETTER = re.compile(r"[(\[]?([A-J])(?:[.):\]].*)?", re.DOTALL)
_TAGGED = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)


def split_options(text: str) -> tuple[str, tuple[str, ...]]:
    r"""Take the options out of a question.

    Options are the longest run A, B, C, ... of labels (the last one among equals), each at the
    start of a line or, failing that, after a space. The last option ends with its line; what
    follows is part of the question.

    Returns:
        The question without the options, and their texts; no texts where there are not two.

    >>> split_options("What year?\n(A) 1636\n(B) 1366\nAnswer with the letter.")
    ('What year?\nAnswer with the letter.', ('1636', '1366'))
    >>> split_options("Who? A. Ada B. Bob")
    ('Who?', ('Ada', 'Bob'))
    """
    for pattern in (_AT_LINE, _IN_LINE):
        run = _longest_run(list(pattern.finditer(text)))
        if len(run) > 1:
            break
    else:
        return text.strip(), ()
    starts = [label.end() for label in run]
    ends = [label.start() for label in run[1:]]
    last, _, after = text[starts[-1] :].partition("\n")
    bodies = [text[start:end] for start, end in zip(starts[:-1], ends, strict=True)]
    options = tuple(" ".join(body.split()) for body in [*bodies, last])
    question = "\n".join(filter(None, (text[: run[0].start()].strip(), after.strip())))
    return question, options


def _longest_run(labels: Sequence[re.Match[str]]) -> list[re.Match[str]]:
    best: list[re.Match[str]] = []
    run: list[re.Match[str]] = []
    for label in labels:
        if label[1] == "A":
            run = [label]
        elif run and label[1] == OPTION_LETTERS[len(run) % len(OPTION_LETTERS)]:
            run = [*run, label]
        if len(run) >= len(best):
            best = run
    return best


def strip_labels(options: Sequence[str]) -> tuple[str, ...]:
    """Options without their own letters ("A. red"), where every one has the letter of its place.

    >>> strip_labels(["A. red", "B. blue"]), strip_labels(["A. Milne", "T. Eliot"])
    (('red', 'blue'), ('A. Milne', 'T. Eliot'))
    """
    labels = [_AT_LINE.match(option) for option in options]
    letters = [label[1] if label else "" for label in labels]
    if letters != list(OPTION_LETTERS[: len(options)]):
        return tuple(option.strip() for option in options)
    return tuple(
        option[label.end() :].strip() if label else option
        for option, label in zip(options, labels, strict=True)
    )


def gold_letter(answer: str, count: int) -> str:
    """The letter that a gold answer such as "B", "(B)", "B. red" or "<answer>B</answer>" names.

    Args:
        answer: As published.
        count: Number of options.

    Returns:
        The letter, or "" where the answer is none of the options' letters.

    >>> [gold_letter(text, 4) for text in ("B", "(C) 1363", "<answer>A</answer>", "E", "A dog")]
    ['B', 'C', 'A', '', '']
    """
    match = _LETTER.fullmatch(untagged(answer))
    return match[1] if match and match[1] in OPTION_LETTERS[:count] else ""


def gold_choice(answer: str, options: Sequence[str]) -> str:
    """The letter of a gold answer that is either an option's text or a letter; "" for neither.

    >>> gold_choice("Blue", ["red", "blue"]), gold_choice("A", ["red", "blue"])
    ('B', 'A')
    """
    texts = [" ".join(option.split()).casefold() for option in options]
    wanted = " ".join(untagged(answer).split()).casefold()
    if texts.count(wanted) == 1:
        return OPTION_LETTERS[texts.index(wanted)]
    return gold_letter(answer, len(options))


def untagged(answer: str) -> str:
    """The last `<answer>` of a text, or the whole text where there is none; stripped."""
    found = _TAGGED.findall(answer)
    return (found[-1] if found else answer).strip()
