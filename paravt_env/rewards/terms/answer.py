"""The answer term, R_acc in [0, 1]: is the answer that counted right?

First term of the reward and the measure of accuracy. Formulae: arXiv 2605.20342 (normalised exact
match; mcq: option; grounding: temporal IoU; open: token F1 or exact match); what differs from the
released reward is listed in `docs/rewards.md`. Tests: `pytest tests/rewards`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from paravt_env.common.names import known_name
from paravt_env.rewards.terms.base import ScorerError, number
from paravt_env.rewards.terms.choice import named_options
from paravt_env.rewards.terms.folding import CJK, folded
from paravt_env.rewards.transcript import Transcript
from paravt_env.span import parse_span, temporal_iou
from paravt_env.task import Task, TaskError

Scorer = Callable[[Task, str], float]
"""Task and answer -> value of the answer term in [0, 1]; an LLM judge, for example."""

OPEN_METRICS = ("f1", "exact", "judge", "published_f1")
_ARTICLES = frozenset({"a", "an", "the"})
_THOUSANDS = re.compile(r"(?<=[0-9]),(?=[0-9]{3}(?![0-9]))")
_OPERATOR = re.compile(r"[<>=\u2260\u2264\u2265]+|[%\u2030$\u20ac\u00a3\u00a5\u20a9\u20b9\u00b0]")
_UNIT = re.compile(r"(?<!\w)((?>[0-9]+(?:\.[0-9]+)?|\.[0-9]+))(?=[^\W\d_])")
_LETTER_OF_CJK = re.compile(f"([{CJK}])")
_PUNCTUATION = re.compile(
    r"(?!(?<=\d)[.,:/-]\d)"  # inside a number, a fraction, a time
    r"(?!(?<![\w.)\]])[-+]?\.?[0-9])"  # the sign or the point that a number starts with
    r"(?!(?<=\w)[+#]+(?!\w))(?!(?<=\+)\+(?!\w))"  # c++, c#, a+
    r"(?!(?<=\b[^\W\d_])-(?!\w))(?!(?<=\b[^\W\d_]{2})-(?!\w))"  # a-, ab-
    r"[^\w\s<>=\u2260\u2264\u2265%\u2030$\u20ac\u00a3\u00a5\u20a9\u20b9\u00b0]"
)
_NUMBER = re.compile(r"([-+]?)([0-9]*)(?:\.([0-9]+))?")
_ALTERNATIVES = re.compile(
    r"\bor\b|\beither\b|(?<=[^\W\d_]) ?[/|] ?(?=[^\W\d_])|\u6216|\ub610\ub294"
)


@dataclass(frozen=True)
class Answer:
    """Value of the answer that counted, in [0, 1]; 0 without one.

    Attributes:
        open_metric: How open answers are compared without a scorer: `f1` of tokens, at most the
            share of the answer's tokens that are right; `published_f1`, that of the released
            reward; `exact` match; or `judge`, which means that a scorer must be there.
        scorer: Supplies the value in place of the built-in comparison.
    """

    open_metric: str = "f1"
    scorer: Scorer | None = None

    def __post_init__(self) -> None:
        """Check the names."""
        known_name("open_metric", self.open_metric, OPEN_METRICS)
        if self.scorer is not None and not callable(self.scorer):
            raise ValueError(
                "scorer must be callable, scorer(task, answer) -> float, or lead to such a "
                f"function, file.py:name or package.module:name; it is {self.scorer!r}"
            )

    def __call__(self, transcript: Transcript) -> float:
        """R_acc.

        Raises:
            ScorerError: The scorer raised, that or anything else; nothing stands in for it.
            ValueError: It returned something else than a number in [0, 1], or an open answer is to
                be judged and there is no judge.
        """
        task, text = transcript.task, transcript.answer
        if not text:
            return 0.0
        if self.scorer is not None:
            try:
                given = self.scorer(task, text)
            except ScorerError:
                raise
            except Exception as error:
                raise ScorerError(
                    f"task {task.id!r}: the scorer raised {type(error).__name__}: {error}"
                ) from error
            value = number(given)
            if not 0.0 <= value <= 1.0:
                raise ValueError(f"the answer scorer must return a number in [0, 1], not {given!r}")
            return value
        if task.kind == "open" and self.open_metric == "judge":
            raise ValueError(
                "the task is open and this reward has its answers judged: give "
                'reward={..., "judge": {"url": ..., "model": ...}}, or open_metric="f1"'
            )
        if task.kind == "open" and self.open_metric == "published_f1":
            return published_f1(text, task.answer)
        return score_answer(task, text, self.open_metric == "exact")

    def overlap(self, transcript: Transcript) -> float | None:
        """Where the value is an overlap of tokens, the share of the gold answer that it says.

        0 where it says anything beside, as an answer that names alternatives does.
        """
        task, text = transcript.task, transcript.answer
        if task.kind != "open" or self.scorer is not None or not self.open_metric.endswith("f1"):
            return None
        predicted, gold = tokens(text), tokens(task.answer)
        beside = Counter(predicted) - Counter(gold)
        return 0.0 if beside or not gold else len(predicted) / len(gold)


def score_answer(task: Task, text: str, exact: bool = False) -> float:
    """Compare `text` with the gold answer, by the task's kind.

    Raises:
        TaskError: The gold answer of a grounding task is no span.

    >>> score_answer(Task("t", "v", "When?", "grounding", answer="10-20"), "15.0 - 25.0")
    0.3333333333333333
    """
    if task.kind == "mcq":
        return float(named_options(text, task.options) == {task.answer})
    if task.kind == "grounding":
        gold = parse_span(task.answer)
        if gold is None:
            raise TaskError(f"task {task.id!r}: gold answer {task.answer!r} is not start-end")
        return temporal_iou(parse_span(text), gold)
    predicted, gold_tokens = tokens(text), tokens(task.answer)
    if predicted == gold_tokens:
        return float(bool(predicted))
    if exact or lists_alternatives(text, task.answer):
        return 0.0
    return token_overlap(predicted, gold_tokens)


def tokens(text: str) -> list[str]:
    """Normalised tokens (as SQuAD): lower case, no punctuation, no articles.

    What carries meaning stays: the sign of a number and its point, a colon, slash or hyphen between
    digits ("1.5" is not "15"), comparisons, currencies and per cent, the signs of "a+", "a-",
    "c++" and "c#". Numbers have one form ("0.50" is "0.5", "3.0" is "3", ".5" is "0.5") and stand
    apart from their unit; Chinese, Japanese and Korean letters are a token each. A text of articles
    only keeps them ("the" is not "a").

    >>> tokens("The U.S. won, 1.5 to 12,000!")
    ['us', 'won', '1.5', 'to', '12000']
    >>> tokens("x>-5.0km"), tokens("A- in C++")
    (['x', '>', '-5', 'km'], ['a-', 'in', 'c++'])
    """
    line = _THOUSANDS.sub("", folded(text).casefold())
    line = _PUNCTUATION.sub("", _OPERATOR.sub(lambda sign: f" {sign[0]} ", line))
    line = _LETTER_OF_CJK.sub(r" \1 ", _UNIT.sub(r"\1 ", line))
    words = [_number(word) for word in line.split()]
    return [word for word in words if word not in _ARTICLES] or words


def _number(word: str) -> str:
    """One form of a number: no plus, no zeros at the end of a fraction, one before its point."""
    match = _NUMBER.fullmatch(word)
    if match is None or not (match[2] or match[3]):
        return word
    fraction = (match[3] or "").rstrip("0")
    whole = match[2] or "0"
    return f"{'-' * (match[1] == '-')}{whole}{'.' * bool(fraction)}{fraction}"


def lists_alternatives(text: str, gold: str) -> bool:
    """Whether an answer offers alternatives ("red or blue", "yes/no") that the gold one does not.

    >>> lists_alternatives("red or blue", "red"), lists_alternatives("red or blue", "blue or red")
    (True, False)
    """
    found = (_ALTERNATIVES.search(folded(one).casefold()) for one in (text, gold))
    return next(found) is not None and next(found) is None


def token_overlap(predicted: list[str], gold: list[str]) -> float:
    """`token_f1`, at most the precision: naming n words is worth no more than n guesses' mean.

    Otherwise F1 would pay for naming the commonest answers at once: two of which one is right earn
    2/3 there. It is F1 itself for all answers that are no longer than the gold one.

    >>> token_overlap(["yes", "no"], ["yes"]), token_overlap(["car"], ["red", "car"])
    (0.5, 0.6666666666666666)
    """
    common = sum((Counter(predicted) & Counter(gold)).values())
    return min(token_f1(predicted, gold), common / len(predicted)) if common else 0.0


def token_f1(predicted: list[str], gold: list[str]) -> float:
    """F1 of two multisets of tokens; 0 where nothing is common.

    >>> token_f1(["red", "red", "car"], ["red", "car", "park"])
    0.6666666666666666
    """
    common = sum((Counter(predicted) & Counter(gold)).values())
    return 2 * common / (len(predicted) + len(gold)) if common else 0.0


def published_f1(text: str, gold: str) -> float:
    """The token F1 of ParaVT's released reward, to the digit.

    Articles go before punctuation, all punctuation goes, a repeated word is one in the overlap and
    several in the lengths, and two texts that are equal then, if both are empty, are right.

    >>> published_f1("red red", "red car"), published_f1("-5", "5"), published_f1("the", "A")
    (0.5, 1.0, 1.0)
    """
    words, gold_words = (
        re.sub(r"[^\w\s]", "", re.sub(r"\b(?:a|an|the)\b", " ", one.lower())).split()
        for one in (text, gold)
    )
    if words == gold_words:
        return 1.0
    common = len(set(words) & set(gold_words))
    return 2 * common / (len(words) + len(gold_words)) if common else 0.0
