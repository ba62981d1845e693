"""Bootstrap intervals over tasks: how sure a mean, or the difference of two means, is.

After the journey: `train.evaluate` measures, this says within what. Rows of one task are not
independent (the same question at several frame budgets), so whole tasks are resampled; where the
training was repeated, whole runs as well (`crossed`). Pure functions of their arguments; run the
examples with `python -m doctest train/bootstrap.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Interval:
    """A mean with its percentile interval.

    Attributes:
        mean: Mean over all rows.
        low: Lower end of the interval.
        high: Upper end of the interval.
        rows: Rows behind the mean.
        tasks: Tasks that were resampled.
    """

    mean: float
    low: float
    high: float
    rows: int
    tasks: int

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval lies on one side of zero."""
        return self.low > 0 or self.high < 0


def interval(
    values: Sequence[float],
    tasks: Sequence[str],
    *,
    resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap of a mean (Efron 1979), resampling tasks with replacement.

    Args:
        values: (N,) one value a row.
        tasks: (N,) the task that each row belongs to.
        resamples: Bootstrap resamples.
        confidence: Coverage, between 0 and 1.
        seed: Of the resampling.

    Raises:
        ValueError: No rows, or a value that is not finite.

    >>> interval([1.0, 1.0, 1.0], ["a", "b", "b"])
    Interval(mean=1.0, low=1.0, high=1.0, rows=3, tasks=2)
    """
    means_R, count = _resampled(values, tasks, resamples, np.random.default_rng(seed))
    low, high = ends(means_R, confidence)
    return Interval(float(np.mean(values)), low, high, len(values), count)


def macro_interval(
    groups: Mapping[str, tuple[Sequence[float], Sequence[str]]],
    *,
    resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Mean of the groups' means, each group counting the same; tasks are resampled within each.

    Args:
        groups: For each group (a question category) its values and their tasks, as for `interval`.
        resamples: Bootstrap resamples.
        confidence: Coverage, between 0 and 1.
        seed: Of the resampling.

    >>> macro_interval({"count": ([1.0, 1.0, 1.0], ["a", "b", "c"]), "order": ([0.0], ["d"])}).mean
    0.5
    """
    rng = np.random.default_rng(seed)
    drawn = [_resampled(values, tasks, resamples, rng) for values, tasks in groups.values()]
    if not drawn:
        raise ValueError("a bootstrap needs at least one group")
    low, high = ends(np.mean([means_R for means_R, _ in drawn], axis=0), confidence)
    mean = float(np.mean([np.mean(values) for values, _ in groups.values()]))
    rows = sum(len(values) for values, _ in groups.values())
    return Interval(mean, low, high, rows, sum(count for _, count in drawn))


def crossed(
    arms: Sequence[np.ndarray], *, resamples: int = 2000, seed: int = 0
) -> list[np.ndarray]:
    """Totals over resampled runs and tasks: what any ratio of sums is bootstrapped from.

    Every run answered the same tasks, so runs and tasks are both drawn with replacement and a cell
    counts as often as the product of its draws (the pigeonhole bootstrap: Owen 2007, Annals of
    Applied Statistics 1(2)). All arms share the draw of the tasks, which pairs them; each draws its
    runs on its own, as equal seeds of two arms have nothing but the number in common. One run alone
    is always drawn: then the totals vary with the tasks only.

    Args:
        arms: For each arm (S, T, C): of S runs and T tasks, the sums of C quantities.
        resamples: Bootstrap resamples (R).
        seed: Of the resampling.

    Returns:
        For each arm (R, C).

    >>> [totals.tolist() for totals in crossed([np.array([[[2.0, 1.0]]])], resamples=2)]
    [[[2.0, 1.0], [2.0, 1.0]]]
    """
    rng = np.random.default_rng(seed)
    tasks = arms[0].shape[1]
    tasks_RT = rng.multinomial(tasks, np.full(tasks, 1 / tasks), size=resamples)
    totals = []
    for sums_STC in arms:
        runs = len(sums_STC)
        runs_RS = rng.multinomial(runs, np.full(runs, 1 / runs), size=resamples)
        by_run_RSC = np.stack([tasks_RT @ sums_TC for sums_TC in sums_STC], axis=1)
        totals.append(np.einsum("rs,rsc->rc", runs_RS, by_run_RSC))
    return totals


def ends(values_R: np.ndarray, confidence: float = 0.95) -> tuple[float, float]:
    """The percentile interval of resampled values (R,)."""
    tail = (1 - confidence) / 2
    low, high = np.quantile(values_R, [tail, 1 - tail])
    return float(low), float(high)


def _resampled(
    values: Sequence[float], tasks: Sequence[str], resamples: int, rng: np.random.Generator
) -> tuple[np.ndarray, int]:
    """Means (R,) of resampled tasks, and how many tasks there are."""
    values_N = np.asarray(values, dtype=np.float64)
    if len(values_N) != len(tasks):
        raise ValueError(f"{len(values_N)} values for {len(tasks)} task names")
    if not len(values_N) or not np.isfinite(values_N).all():
        raise ValueError("a bootstrap needs at least one row, and finite values")
    _, task_N = np.unique(np.asarray(tasks, dtype=str), return_inverse=True)
    sums_T = np.bincount(task_N, weights=values_N)
    counts_T = np.bincount(task_N)
    drawn_RT = rng.integers(len(sums_T), size=(resamples, len(sums_T)))
    return sums_T[drawn_RT].sum(axis=1) / counts_T[drawn_RT].sum(axis=1), len(sums_T)
