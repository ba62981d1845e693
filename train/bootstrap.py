"""Bootstrap intervals over tasks: how sure a mean, or the difference of two means, is.

After the journey: `train.evaluate` measures, this says within what. Rows of one task are not
independent (the same question at several frame budgets), so whole tasks are resampled. Pure
functions of their arguments; run the example with `python -m doctest train/bootstrap.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
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
    values_N = np.asarray(values, dtype=np.float64)
    if len(values_N) != len(tasks):
        raise ValueError(f"{len(values_N)} values for {len(tasks)} task names")
    if not len(values_N) or not np.isfinite(values_N).all():
        raise ValueError("a bootstrap needs at least one row, and finite values")
    _, task_N = np.unique(np.asarray(tasks, dtype=str), return_inverse=True)
    sums_T = np.bincount(task_N, weights=values_N)
    counts_T = np.bincount(task_N)
    drawn_RT = np.random.default_rng(seed).integers(len(sums_T), size=(resamples, len(sums_T)))
    means_R = sums_T[drawn_RT].sum(axis=1) / counts_T[drawn_RT].sum(axis=1)
    tail = (1 - confidence) / 2
    low, high = np.quantile(means_R, [tail, 1 - tail])
    return Interval(float(values_N.mean()), float(low), float(high), len(values_N), len(sums_T))
