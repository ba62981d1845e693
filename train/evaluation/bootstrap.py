"""Bootstrap intervals over videos: how sure a mean, or the difference of two means, is.

After the journey: `train.evaluation.evaluate` measures, this says within what. Rows of one video
are not independent (one question at several frame budgets, several questions of a hard video), so
whole videos are resampled (`video_clusters`); where the training was repeated, whole runs as well
(`crossed`). Pure functions of their arguments; run the examples with `python -m doctest
train/evaluation/bootstrap.py`.
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
        clusters: Videos that were resampled, or tasks, where all are of one video.
    """

    mean: float
    low: float
    high: float
    rows: int
    clusters: int

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval lies on one side of zero."""
        return self.low > 0 or self.high < 0


def video_clusters(tasks: Sequence[str], videos: Sequence[str]) -> list[str]:
    """What is resampled as a whole: for each row the first task, by name, of its task's video.

    With one question a video that is the row's own task. So it is where all rows are of one video:
    an interval then says how sure the mean over the questions of this video is, and nothing of
    other videos.

    Args:
        tasks: (N,) the task that each row belongs to.
        videos: (N,) its video.

    >>> video_clusters(["b", "a", "c", "b"], ["v", "v", "w", "v"])
    ['a', 'a', 'c', 'a']
    """
    video_of = dict(zip(tasks, videos, strict=True))
    first: dict[str, str] = {}
    for task in sorted(video_of):
        first.setdefault(video_of[task], task)
    return [first[video_of[task]] for task in tasks] if len(first) > 1 else list(tasks)


def interval(
    values: Sequence[float],
    clusters: Sequence[str],
    *,
    resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap of a mean (Efron 1979), resampling clusters with replacement.

    Whole clusters are sampled, and a mean is over their rows (Davison and Hinkley 1997, Bootstrap
    Methods and their Application, section 3.8).

    Args:
        values: (N,) one value a row.
        clusters: (N,) what each row is resampled with, from `video_clusters`.
        resamples: Bootstrap resamples.
        confidence: Coverage, between 0 and 1.
        seed: Of the resampling.

    Raises:
        ValueError: No rows, or a value that is not finite.

    >>> interval([1.0, 1.0, 1.0], ["a", "b", "b"])
    Interval(mean=1.0, low=1.0, high=1.0, rows=3, clusters=2)
    """
    means_R, count = _resampled(values, clusters, resamples, np.random.default_rng(seed))
    low, high = ends(means_R, confidence)
    return Interval(float(np.mean(values)), low, high, len(values), count)


def macro_interval(
    groups: Mapping[str, tuple[Sequence[float], Sequence[str]]],
    *,
    resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Mean of the groups' means, each group counting the same; clusters are resampled within each.

    Where a cluster has rows in several groups, all clusters are sampled at once, so that these rows
    stay together; a group that a resample leaves without rows is not in its mean.

    Args:
        groups: For each group (a question category) its values and their clusters, as for
            `interval`.
        resamples: Bootstrap resamples.
        confidence: Coverage, between 0 and 1.
        seed: Of the resampling.

    >>> macro_interval({"count": ([1.0, 1.0, 1.0], ["a", "b", "c"]), "order": ([0.0], ["d"])}).mean
    0.5
    """
    if not groups:
        raise ValueError("a bootstrap needs at least one group")
    rng = np.random.default_rng(seed)
    members = [set(clusters) for _, clusters in groups.values()]
    count = len(set().union(*members))
    if count == sum(map(len, members)):
        means_GR = [_resampled(values, clusters, resamples, rng)[0]
                 for values, clusters in groups.values()]  # fmt: skip
        means_R = np.mean(means_GR, axis=0)
    else:
        means_R = _resampled_together(groups, resamples, rng)
    low, high = ends(means_R, confidence)
    mean = float(np.mean([np.mean(values) for values, _ in groups.values()]))
    rows = sum(len(values) for values, _ in groups.values())
    return Interval(mean, low, high, rows, count)


def crossed(
    arms: Sequence[np.ndarray], *, resamples: int = 2000, seed: int = 0
) -> list[np.ndarray]:
    """Totals over resampled runs and clusters: what any ratio of sums is bootstrapped from.

    Every run answered the same tasks, so runs and clusters of tasks (`video_clusters`) are both
    sampled with replacement and a cell counts as often as the product of its draws (the pigeonhole
    bootstrap: Owen 2007, Annals of Applied Statistics 1(2)). All arms share the draw of the
    clusters, which pairs them; each draws its runs on its own, as equal seeds of two arms have
    nothing but the number in common. One run alone is always sampled: then the totals vary with the
    clusters only.

    Args:
        arms: For each arm (S, V, C): of S runs and V clusters, the sums of C quantities.
        resamples: Bootstrap resamples (R).
        seed: Of the resampling.

    Returns:
        For each arm (R, C).

    >>> [totals.tolist() for totals in crossed([np.array([[[2.0, 1.0]]])], resamples=2)]
    [[[2.0, 1.0], [2.0, 1.0]]]
    """
    rng = np.random.default_rng(seed)
    counts_RV = _counts(arms[0].shape[1], resamples, rng)
    totals = []
    for sums_SVC in arms:
        runs_RS = _counts(len(sums_SVC), resamples, rng)
        by_run_RSC = np.stack([counts_RV @ sums_VC for sums_VC in sums_SVC], axis=1)
        totals.append(np.einsum("rs,rsc->rc", runs_RS, by_run_RSC))
    return totals


def ends(values_R: np.ndarray, confidence: float = 0.95) -> tuple[float, float]:
    """The percentile interval of resampled values (R,)."""
    tail = (1 - confidence) / 2
    low, high = np.quantile(values_R, [tail, 1 - tail])
    return float(low), float(high)


def _resampled(
    values: Sequence[float], clusters: Sequence[str], resamples: int, rng: np.random.Generator
) -> tuple[np.ndarray, int]:
    """Means (R,) of resampled clusters, and how many clusters there are."""
    values_N, cluster_N = _checked(values, clusters)
    sums_V = np.bincount(cluster_N, weights=values_N)
    counts_V = np.bincount(cluster_N)
    sampled_RV = rng.integers(len(sums_V), size=(resamples, len(sums_V)))
    return sums_V[sampled_RV].sum(axis=1) / counts_V[sampled_RV].sum(axis=1), len(sums_V)


def _resampled_together(
    groups: Mapping[str, tuple[Sequence[float], Sequence[str]]],
    resamples: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Means (R,) of the groups' means, where every draw of a cluster has its rows in all groups."""
    values = [value for values, _ in groups.values() for value in values]
    clusters = [cluster for _, clusters in groups.values() for cluster in clusters]
    values_N, cluster_N = _checked(values, clusters)
    group_N = np.repeat(np.arange(len(groups)), [len(values) for values, _ in groups.values()])
    sums_VG, counts_VG = np.zeros((2, cluster_N.max() + 1, len(groups)))
    np.add.at(sums_VG, (cluster_N, group_N), values_N)
    np.add.at(counts_VG, (cluster_N, group_N), 1.0)
    counts_RV = _counts(len(sums_VG), resamples, rng)
    with np.errstate(invalid="ignore"):  # 0 / 0: a group that no sampled cluster has rows in
        means_RG = (counts_RV @ sums_VG) / (counts_RV @ counts_VG)
    return np.nanmean(means_RG, axis=1)


def _counts(count: int, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """How often each of `count` things is sampled in each resample: (R, count)."""
    return rng.multinomial(count, np.full(count, 1 / count), size=resamples)


def _checked(values: Sequence[float], clusters: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Values (N,) and the number of each row's cluster (N,), in the order of the names."""
    values_N = np.asarray(values, dtype=np.float64)
    if len(values_N) != len(clusters):
        raise ValueError(f"{len(values_N)} values for {len(clusters)} names of clusters")
    if not len(values_N) or not np.isfinite(values_N).all():
        raise ValueError("a bootstrap needs at least one row, and finite values")
    _, cluster_N = np.unique(np.asarray(clusters, dtype=str), return_inverse=True)
    return values_N, cluster_N
