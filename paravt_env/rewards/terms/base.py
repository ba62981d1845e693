"""What a reward term is, and what becomes of one that fails.

Between a finished transcript and the sum of its terms. The built-in terms have the form of a term
of your own (`docs/rewards.md`): a dataclass whose fields are its options and whose call gives its
value. Tests: `pytest tests/rewards tests/env/test_plugins.py`.
"""

from __future__ import annotations

import math
from typing import Any, Protocol

from paravt_env.rewards.transcript import Transcript
from paravt_env.task import TaskError


class Term(Protocol):
    """A dataclass: its fields are the options, checked in `__post_init__`; a call is the value.

    The call is a pure function of the transcript. Of every term but `answer`, the transcript's
    `correct` is the value of the answer.
    """

    def __call__(self, transcript: Transcript) -> float:
        """The unweighted value, finite."""


class ScorerError(RuntimeError):
    """A scorer could not score an answer: the episode is masked out and counted, never guessed."""


class TermError(ValueError):
    """A term raised, or gave something else than a finite number; says which, and the task."""


def term_value(name: str, term: Term, transcript: Transcript) -> float:
    """The value of a term.

    Raises:
        ScorerError: As it came, or the task cannot be scored: the episode is masked out.
        TermError: The term raised anything else, or its value is no finite number.
    """
    where = f"task {transcript.task.id!r}: reward term {name!r}"
    try:
        value = term(transcript)
    except ScorerError:
        raise
    except TaskError as error:  # the record's error, not the term's
        raise ScorerError(str(error)) from error
    except Exception as error:
        raise TermError(f"{where} raised {type(error).__name__}: {error}") from error
    found = number(value)
    if not math.isfinite(found):
        raise TermError(f"{where} must give a finite number, not {value!r}")
    return found


def number(value: Any) -> float:
    """`value` as a float; NaN where it is none.

    >>> number(True), number("1"), number(None)
    (1.0, nan, nan)
    """
    if isinstance(value, str | bytes):
        return math.nan
    try:
        return float(value)
    except (TypeError, ValueError, ArithmeticError, RuntimeError):
        return math.nan


def check_switch(name: str, value: Any) -> None:
    """Refuse an option that is neither true nor false."""
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be true or false, not {value!r}")
