"""Two textbook figures of a whole run: how fast its gradients vanish, and the PAC-Bayes bound.

Pure functions of logged numbers and of a distance between weights; `train/lab/diagnose/diagnose.py`
and `train/lab/diagnose/probe.py` call them. What they prove says `docs/diagnostics.md`. Tests:
`pytest tests/lab/test_diagnostics.py`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

FEWEST_POINTS = 10
"""Steps that a slope needs at least."""
FEWEST_SAMPLES = 8
"""Samples that the PAC-Bayes bound needs at least."""


@dataclass(frozen=True)
class Slope:
    """Of log running-mean ||g||^2 over log T.

    Attributes:
        slope: By least squares.
        points: Steps behind it.
        left_out: Steps whose running mean is not positive, as that of a noisy estimate may be.
    """

    slope: float
    points: int
    left_out: int


def convergence_slope(steps: Sequence[int], squares: Sequence[float]) -> Slope | None:
    """How fast gradients vanish; -1/2 is the classical rate of SGD (Ghadimi and Lan, 2013).

    Args:
        steps: (T,) step of each value, from 0, ascending.
        squares: (T,) estimates of ||g||^2: g_a . g_b of two half-batches has no bias, while the
            square of a batch's own norm holds its noise.

    Returns:
        None with fewer than `FEWEST_POINTS` positive running means.
    """
    values_T = np.asarray(squares, dtype=np.float64)
    running_T = np.cumsum(values_T) / np.arange(1, len(values_T) + 1)
    usable_T = running_T > 0
    if usable_T.sum() < FEWEST_POINTS:
        return None
    log_T = np.log(np.asarray(steps, dtype=np.float64)[usable_T] + 1)
    slope = np.polyfit(log_T, np.log(running_T[usable_T]), 1)[0]
    return Slope(float(slope), int(usable_T.sum()), int((~usable_T).sum()))


def gaussian_divergence(distance_square: float, noise: float) -> float:
    """KL(Q || P) of N(theta, s^2 I) and N(theta_0, s^2 I): ||theta - theta_0||^2 / (2 s^2).

    >>> gaussian_divergence(4.0, 0.5)
    8.0
    """
    if not noise > 0:
        raise ValueError(f"the noise must be positive, not {noise}: a point has an infinite KL")
    return distance_square / (2 * noise**2)


def pac_bayes(divergence: float, samples: int, delta: float = 0.05) -> float:
    """sqrt((KL(Q || P) + ln(2 sqrt(n) / delta)) / 2n): bounds E_train - E_test of Q.

    With probability 1 - delta over n independent samples, for rewards in [0, 1] and a prior P
    chosen before seeing them (Maurer, cs/0411099, for n >= 8). From 1 on it says nothing.

    Raises:
        ValueError: An argument is out of range; there is no figure for n < 8.

    >>> round(pac_bayes(0.0, 100), 6)
    0.173082
    """
    if samples < FEWEST_SAMPLES or not 0 < delta < 1 or divergence < 0:
        raise ValueError(
            f"divergence {divergence} >= 0, samples {samples} >= {FEWEST_SAMPLES} and delta "
            f"{delta} in (0, 1) are needed"
        )
    return math.sqrt((divergence + math.log(2 * math.sqrt(samples) / delta)) / (2 * samples))
