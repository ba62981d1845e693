"""The answer term, R_acc in [0, 1]: is the answer that counted right?

First term of the reward and the measure of accuracy. Formulae: arXiv 2605.20342 (normalised exact
match; mcq: option; grounding: temporal IoU; open: token F1 or exact match). Tests:
`pytest tests/rewards/test_rewards.py`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from paravt_env.common.names import known_name
from paravt_env.rewards.terms.base import ScorerError, number
from paravt_env.rewards.terms.choice import named_options
from paravt_env.rewards.transcript import Transcript
from paravt_env.span import parse_span, temporal_iou
from paravt_env.task import Task, TaskError

Scorer = Callable[[Task, str], float]
"""Task and answer -> value of the answer term in [0, 1]; an LLM judge, for example."""

OPEN_METRICS = ("f1", "exact", "judge")
_PUNCTUATION = re.compile(r"(?!(?<=\d)[.:/-]\d)[^\w\s]")
_ARTICLES = frozenset({"a", "an", "the"})


@dataclass(frozen=True)
class Answer:
    """Value of the answer that counted, in [0, 1]; 0 without one.

    Attributes:
        open_metric: How open answers are compared without a scorer: `f1` of tokens, `exact` match,
            or `judge`, which means that a scorer must be there.
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
        return score_answer(task, text, self.open_metric == "exact")


def score_answer(task: Task, text: str, exact: bool = False) -> float:
    """Compare `text` with the gold answer, by the task's kind.

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
    return float(predicted == gold_tokens) if exact else token_f1(predicted, gold_tokens)


def tokens(text: str) -> list[str]:
    """Normalised tokens (as SQuAD): lower case, no punctuation, no articles.

    Two differences: a point, colon, slash or hyphen between digits stays ("1.5" is not "15"), and a
    text of articles only keeps them ("the" is not "a").

    >>> tokens("The U.S. won, 1.5 to 12,000!")
    ['us', 'won', '1.5', 'to', '12000']
    """
    words = _PUNCTUATION.sub("", text.casefold()).split()
    return [word for word in words if word not in _ARTICLES] or words


def token_f1(predicted: list[str], gold: list[str]) -> float:
    """F1 of two multisets of tokens; 0 where nothing is common.

    >>> token_f1(["red", "red", "car"], ["red", "car", "park"])
    0.6666666666666666
    """
    common = sum((Counter(predicted) & Counter(gold)).values())
    return 2 * common / (len(predicted) + len(gold)) if common else 0.0
