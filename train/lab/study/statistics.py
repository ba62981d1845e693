"""How sure the numbers of a study are: means, differences and gaps over the seeds and the videos.

Between the reports that `train.lab.study.cells` left and the table. A study says something about a
way of training, and every seed is one draw of it: an interval that resamples videos alone would
call three lucky seeds a finding. So whole runs and whole videos, each with all its tasks, are both
resampled (`bootstrap.crossed`).

Three seeds are few: a percentile interval over them is still too narrow (its variance between the
seeds is 2/3 of the unbiased one), which is why each estimate keeps its seeds' own values, to be
printed beside it. Tests: `pytest tests/lab/test_study.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from train.evaluation.bootstrap import Interval, crossed, ends, video_clusters
from train.evaluation.row import EvalRow
from train.evaluation.scores import EvalReport
from train.loop.metrics import necessity_gap, necessity_sums

Value = Callable[[EvalRow], float]
Where = Callable[[EvalRow], bool]
Columns = Callable[[EvalRow], Sequence[float]]
"""What a row adds to the sums (C,) that a statistic is made of."""


@dataclass(frozen=True)
class Estimate(Interval):
    """A number with its interval, and what each seed says alone.

    Attributes:
        seeds: The number of each seed; of a difference, of each pair of seeds.
    """

    seeds: tuple[float, ...] = ()

    @property
    def spread(self) -> tuple[float, float] | None:
        """Smallest and largest of the seeds; None of one: its interval is over videos alone."""
        return (min(self.seeds), max(self.seeds)) if len(self.seeds) > 1 else None


def score(row: EvalRow) -> float:
    """Value of the answer."""
    return row.score


def compliance(row: EvalRow) -> float:
    """1 where the form was kept."""
    return float(row.compliant)


def calls(row: EvalRow) -> float:
    """Calls attempted."""
    return float(row.calls)


def everywhere(row: EvalRow) -> bool:
    """All rows."""
    return True


def average(
    reports: Sequence[EvalReport], value: Value, where: Where = everywhere
) -> Estimate | None:
    """Mean of `value` over the rows of all seeds; None where there are no rows."""
    return _estimate([reports], _counted(value), where, lambda totals: _ratio(totals[0]))


def difference(
    ours: Sequence[EvalReport],
    theirs: Sequence[EvalReport],
    value: Value,
    where: Where = everywhere,
) -> Estimate | None:
    """Mean of one arm minus that of another, paired by task; None where one has no rows.

    Raises:
        ValueError: The arms were evaluated on different tasks or at different frame budgets.
    """

    def apart(totals: Sequence[np.ndarray]) -> np.ndarray:
        return _ratio(totals[0]) - _ratio(totals[1])

    return _estimate([ours, theirs], _counted(value), where, apart)


def tool_gap(reports: Sequence[EvalReport], budget: int) -> Estimate | None:
    """TNG(K) of the rows of all seeds at one frame budget; None where one side is empty.

    Resamples in which one side is empty do not count.
    """

    def columns(row: EvalRow) -> Sequence[float]:
        return necessity_sums(row.calls, row.score, row.error)

    def where(row: EvalRow) -> bool:
        return row.frame_budget == budget

    return _estimate([reports], columns, where, lambda totals: necessity_gap(totals[0]))


def _estimate(
    arms: Sequence[Sequence[EvalReport]],
    columns: Columns,
    where: Where,
    statistic: Callable[[Sequence[np.ndarray]], np.ndarray],
) -> Estimate | None:
    """A statistic of each arm's totals (..., C): of all rows, of resamples, of single seeds."""
    chosen = [[[row for row in one.rows if where(row)] for one in reports] for reports in arms]
    asked = [{(row.task_id, row.frame_budget) for one in arm for row in one} for arm in chosen]
    if not all(asked):
        return None
    if any(keys != asked[0] for keys in asked):
        raise ValueError("the arms were evaluated on different tasks: run them with one setting")
    clusters = _clusters(chosen[0][0])
    tables = [_sums(arm, columns, clusters) for arm in chosen]
    mean = float(statistic([table.sum(axis=(0, 1)) for table in tables]))
    if math.isnan(mean):
        return None
    drawn_R = statistic(crossed(tables))
    low, high = ends(drawn_R[~np.isnan(drawn_R)])
    by_seed = [table.sum(axis=1) for table in tables]  # (S, C) each
    first = by_seed[0] if len(by_seed) == 1 else by_seed[0][:, None]  # all pairs of seeds
    seeds = statistic([first, *by_seed[1:]]).ravel()
    rows = sum(len(one) for arm in chosen for one in arm)
    return Estimate(
        mean, low, high, rows, tables[0].shape[1], tuple(seeds[~np.isnan(seeds)].tolist())
    )


def _clusters(rows: Sequence[EvalRow]) -> dict[str, int]:
    """The number of the cluster that each task belongs to."""
    tasks = [row.task_id for row in rows]
    names = video_clusters(tasks, [row.video for row in rows])
    number = {name: index for index, name in enumerate(sorted(set(names)))}
    return {task: number[name] for task, name in zip(tasks, names, strict=True)}


def _sums(
    arm: Sequence[Sequence[EvalRow]], columns: Columns, clusters: Mapping[str, int]
) -> np.ndarray:
    """(S, V, C): the columns' sums over the rows of each seed and cluster of tasks."""
    rows = [(seed, row) for seed, one in enumerate(arm) for row in one]
    values_NC = np.array([columns(row) for _, row in rows], dtype=np.float64)
    if not np.isfinite(values_NC).all():
        raise ValueError("a bootstrap needs finite values")
    sums_SVC = np.zeros((len(arm), max(clusters.values()) + 1, values_NC.shape[1]))
    at = [seed for seed, _ in rows], [clusters[row.task_id] for _, row in rows]
    np.add.at(sums_SVC, at, values_NC)
    return sums_SVC


def _counted(value: Value) -> Columns:
    return lambda row: (value(row), 1.0)


def _ratio(totals: np.ndarray) -> np.ndarray:
    """The first column over the second, NaN where that is empty: (..., 2) to (...)."""
    with np.errstate(invalid="ignore"):
        return totals[..., 0] / totals[..., 1]
