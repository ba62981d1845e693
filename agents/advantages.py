"""Advantages: how good each rollout was beside the others that started from the same place.

Stands between the rewards of a group and the loss. Every function here is pure: rewards of N
rollouts and the group of each go in, N advantages come out. A group whose rewards are all equal
teaches nothing: its advantages are exactly 0, also after the batch normalisation, and
`zero_variance` counts it. Adding an estimator is one function and one entry in `ADVANTAGES`.

Shapes: `_N` rollouts, `_C` tokens of one branch. Command: `pytest tests/test_advantages.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

Credit = Literal["trajectory", "token"]
Advantage = Callable[[np.ndarray, np.ndarray], np.ndarray]

ZERO_VARIANCE = 1e-6
"""Rewards of a group whose standard deviation is below this are taken as equal."""


def _per_group(
    rewards_N: np.ndarray, groups_N: np.ndarray, rule: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """Apply `rule` to the rewards of each group that has variance; the others stay 0."""
    rewards_N, groups_N = np.asarray(rewards_N, dtype=np.float64), np.asarray(groups_N)
    if rewards_N.shape != groups_N.shape or rewards_N.ndim != 1:
        raise ValueError(f"rewards {rewards_N.shape} and groups {groups_N.shape} must both be (N,)")
    if not np.isfinite(rewards_N).all():
        raise ValueError("a reward is not finite")
    advantages_N = np.zeros_like(rewards_N)
    for group in np.unique(groups_N):
        members = groups_N == group
        if rewards_N[members].std() > ZERO_VARIANCE:
            advantages_N[members] = rule(rewards_N[members])
    return advantages_N


def grpo(rewards_N: np.ndarray, groups_N: np.ndarray) -> np.ndarray:
    """(R - mean) / std within the group, population std (GRPO, arXiv 2402.03300).

    >>> grpo(np.array([0.0, 1.0, 5.0, 5.0]), np.array([0, 0, 1, 1])).tolist()
    [-1.0, 1.0, 0.0, 0.0]
    """
    return _per_group(rewards_N, groups_N, lambda r: (r - r.mean()) / r.std())


def centered(rewards_N: np.ndarray, groups_N: np.ndarray) -> np.ndarray:
    """R - mean within the group (Dr.GRPO, arXiv 2503.20783; PyVision-RL, arXiv 2602.20739).

    >>> centered(np.array([0.0, 1.0, 2.0]), np.array([0, 0, 0])).tolist()
    [-1.0, 0.0, 1.0]
    """
    return _per_group(rewards_N, groups_N, lambda r: r - r.mean())


def leave_one_out(rewards_N: np.ndarray, groups_N: np.ndarray) -> np.ndarray:
    """R minus the mean of the other members (RLOO, arXiv 2402.14740).

    >>> leave_one_out(np.array([0.0, 1.0, 2.0]), np.array([0, 0, 0])).tolist()
    [-1.5, 0.0, 1.5]
    """
    return _per_group(rewards_N, groups_N, lambda r: r - (r.sum() - r) / (len(r) - 1))


ADVANTAGES: dict[str, Advantage] = {
    "grpo": grpo,
    "centered": centered,
    "leave_one_out": leave_one_out,
}


def zero_variance(rewards_N: np.ndarray, groups_N: np.ndarray) -> np.ndarray:
    """Whether each rollout's group has rewards that are all equal, as booleans (N,).

    >>> zero_variance(np.array([0.0, 1.0, 5.0, 5.0]), np.array([0, 0, 1, 1])).tolist()
    [False, False, True, True]
    """
    rewards_N, groups_N = np.asarray(rewards_N, dtype=np.float64), np.asarray(groups_N)
    return np.array([rewards_N[groups_N == g].std() <= ZERO_VARIANCE for g in groups_N], dtype=bool)


def token_credit(
    advantage: float, format_advantage: float, format_weight: float, structural_C: np.ndarray
) -> np.ndarray:
    """Per-token advantages (C,) whose format part lands on the structural tokens only.

    A_t = A(answer and tool terms) + w_fmt * A(format term) * [t is a structural token] (ParaVT,
    arXiv 2605.20342: the format reward "only at the structural-token positions").

    >>> token_credit(1.0, -1.0, 0.5, np.array([True, False])).tolist()
    [0.5, 1.0]
    """
    return advantage + format_weight * format_advantage * np.asarray(structural_C, dtype=np.float64)


def normalise_batch(
    advantages: Sequence[np.ndarray], masks: Sequence[np.ndarray]
) -> list[np.ndarray]:
    """Normalise per-token advantages over every trained token of the batch: (A - mean) / std.

    The second normalisation of ParaVT. Long rollouts weigh more in its mean, so it is not the
    identity after `grpo`. A sequence whose advantages are all 0 (a group without variance) stays 0
    and enters no statistic.

    Args:
        advantages: One (C_i,) array a trajectory.
        masks: One (C_i,) boolean array a trajectory, true where a token is trained.
    """
    live = [bool(np.any(a[m] != 0)) for a, m in zip(advantages, masks, strict=True)]
    trained = [a[m] for a, m, on in zip(advantages, masks, live, strict=True) if on]
    if not trained:
        return list(advantages)
    tokens = np.concatenate(trained)
    mean, std = tokens.mean(), tokens.std()
    if std <= ZERO_VARIANCE:
        return list(advantages)
    return [(a - mean) / std if on else a for a, on in zip(advantages, live, strict=True)]
