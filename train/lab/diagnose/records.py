"""What is on record of a run: what its steps logged, what evaluations around it measured.

Read by `train/lab/diagnose/diagnose.py` for the report; nothing is played. Tests: `pytest
tests/lab/test_diagnostics.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from train.common.errors import ConfigError
from train.evaluation.bootstrap import Interval
from train.evaluation.compare import find_report
from train.evaluation.scores import EvalReport, mean, paired_difference
from train.lab.diagnose.advice import CHOICES
from train.lab.diagnose.drift import Moved, moved
from train.lab.diagnose.terms import PREFIX
from train.lab.diagnose.theory import Slope, convergence_slope

RECENT = 10
"""Last steps whose mean stands for the end of training."""


@dataclass(frozen=True)
class Transfer:
    """One task set before and after training; the first one given is what was trained on."""

    name: str
    before: Interval
    after: Interval
    change: Interval


@dataclass(frozen=True)
class Training:
    """What the log says.

    Attributes:
        steps: Logged.
        accuracy: Mean of the last `RECENT` steps; None where none is logged.
        flat: Groups without variance in the same steps.
        slope: From g_a . g_b, None where too few steps hold it.
        biased_slope: From the square of the norm of the update's gradient.
        advised: How often each choice was advised during training.
        moved: Drifts predicted in the first step beside what followed.
    """

    steps: int
    accuracy: float | None
    flat: float | None
    slope: Slope | None
    biased_slope: Slope | None
    advised: dict[str, int]
    moved: list[Moved]


def read_training(steps: Sequence[Mapping[str, Any]]) -> Training:
    """What the logged steps say of the whole run."""
    advised = dict.fromkeys(CHOICES, 0)
    for _, place in _logged(steps, f"{PREFIX}advice"):
        advised[CHOICES[int(place)]] += 1
    products = _logged(steps, f"{PREFIX}grad_product")
    norms = [(step, norm**2) for step, norm in _logged(steps, "grad_norm")]
    return Training(
        steps=len(steps),
        accuracy=_recent(steps, "accuracy"),
        flat=_recent(steps, "groups/zero_variance"),
        slope=convergence_slope(*_columns(products)),
        biased_slope=convergence_slope(*_columns(norms)),
        advised={choice: count for choice, count in advised.items() if count},
        moved=moved(steps),
    )


def _logged(steps: Sequence[Mapping[str, Any]], name: str) -> list[tuple[int, float]]:
    return [(step["step"], step[name]) for step in steps if step.get(name) is not None]


def _columns(pairs: Sequence[tuple[int, float]]) -> tuple[list[int], list[float]]:
    return [step for step, _ in pairs], [value for _, value in pairs]


def _recent(steps: Sequence[Mapping[str, Any]], name: str) -> float | None:
    values = [value for _, value in _logged(steps[-RECENT:], name)]
    return mean(values) if values else None


def read_transfers(before: str, after: str) -> list[Transfer]:
    """Evaluations before and after training, in pairs: `[NAME=]JSON,...` each.

    Raises:
        ConfigError: A file is missing, or the two lists do not belong together.
    """
    first, second = (_reports(listed) for listed in (before, after))
    if len(first) != len(second):
        raise ConfigError(
            f"--before has {len(first)} evaluations, --after {len(second)}: give the same task "
            "sets in the same order"
        )
    transfers = []
    for (name, old), (other, new) in zip(first, second, strict=True):
        label = name if name == other else f"{name} -> {other}"
        try:
            change = paired_difference(old, new)
        except ValueError as error:
            raise ConfigError(f"{label}: {error}") from error
        transfers.append(Transfer(label, old.accuracy(), new.accuracy(), change))
    return transfers


def _reports(listed: str) -> list[tuple[str, EvalReport]]:
    found = []
    for item in filter(None, listed.split(",")):
        name, equals, place = item.partition("=")
        path = find_report(Path(place if equals else name))
        try:
            report = EvalReport.load(path)
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{path} is no evaluation of `paravt eval`: {error}") from error
        found.append((name if equals else path.stem, report))
    return found
