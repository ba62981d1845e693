"""What the arms of a study are to reach, judged by what was measured: a line each, yes or no.

Reads the results of `train.lab.study.results` beside the goals of `train.lab.study.settings`; the
lines stand below the table of `train.lab.study.report`. Tests: `pytest tests/lab/test_study.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from train.lab.study.results import Result, as_number, as_points
from train.lab.study.settings import Goal, GoalMeasure, StudyConfig
from train.lab.study.statistics import (
    Estimate,
    Value,
    Where,
    average,
    calls,
    compliance,
    difference,
    everywhere,
    score,
)
from train.report.page import LOW_BUDGET, of_low_budget

MEASURES: Mapping[GoalMeasure, tuple[str, Value, Where]] = {
    "greedy_accuracy": ("accuracy (greedy)", score, everywhere),
    "accuracy": ("accuracy (sampled)", score, everywhere),
    "f": ("f (sampled)", compliance, everywhere),
    "calls": ("κ (sampled)", calls, everywhere),
    "low_calls": (f"κ at K ≤ {LOW_BUDGET} (sampled)", calls, of_low_budget),
}
"""What goals are about: how it is written, a row's value, and which rows count."""


def goals(study: StudyConfig, found: Sequence[Result]) -> str:
    """What the study's arms are to reach, measured: one line each, with yes or no."""
    if not study.goals:
        return ""
    by_arm = {r.arm: r for r in found if r.sampled}
    return "\nGoals\n\n" + "".join(f"- {_goal(goal, by_arm)}\n" for goal in study.goals)


def _goal(goal: Goal, by_arm: Mapping[str, Result]) -> str:
    """What is asked of an arm and what was measured; or which arm has not been run."""
    said, value, where = MEASURES[goal.measure]
    claim = f"{goal.title}: " if goal.title else ""
    if goal.most is not None:
        asked = f"{said} of {goal.arm}, at most {goal.most:g}"
    elif goal.least:
        asked = f"{said} of {goal.arm}, at least {goal.least:g} times {goal.beside}"
    else:
        above = "above zero" if goal.rises else "not above zero"
        asked = f"{said} of {goal.arm} minus {goal.beside}, interval {above}"
    missing = [name for name in dict.fromkeys((goal.arm, goal.beside)) if name not in by_arm]
    if missing:
        return f"{claim}{asked}: not measured, run {', '.join(missing)}"
    kind = "greedy" if goal.measure == "greedy_accuracy" else "sampled"
    ours, theirs = (getattr(by_arm[name], kind) for name in (goal.arm, goal.beside))
    if goal.most is not None:
        own = average(ours, value, where)
        if own is None:
            return f"{claim}{asked}: not measured"
        return f"{claim}{asked}: {own.mean:.3f}: {_yes(own.mean <= goal.most)}"
    if goal.least:
        means = average(ours, value, where), average(theirs, value, where)
        return f"{claim}{asked}: {_judged(*means, goal.least)}"
    gap = difference(ours, theirs, value, where)
    if gap is None:
        return f"{claim}{asked}: not measured"
    written = as_points(gap) if value is score else as_number(gap, "+.2f")
    return f"{claim}{asked}: {written}: {_yes((gap.low > 0) == goal.rises)}"


def _judged(ours: Estimate | None, theirs: Estimate | None, least: float) -> str:
    """Whether the first mean is above zero, and at least a multiple of the second."""
    if ours is None or theirs is None:
        return "not measured"
    times = f" = {ours.mean / theirs.mean:.2f}" if theirs.mean else ""
    reached = ours.mean > 0 and ours.mean >= least * theirs.mean
    return f"{ours.mean:.3f} / {theirs.mean:.3f}{times}: {_yes(reached)}"


def _yes(reached: bool) -> str:
    return "yes" if reached else "no"
