"""Staleness: by how many updates the policy has moved on since a token was drawn.

Between the credited batch and its update. Every token carries the version of the weights that drew
it (`Trajectory.version`; one conversation never mixes two). The version says what pi_prox, the
policy at the start of the update, has to do with what the sampler recorded: for a token of the
current version they are the same policy, for an older one they are not. A token from before the
bound, or from weights that do not exist yet, means that the run is broken, and nothing is updated.

Command: `pytest tests/learner/test_staleness.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from agents.base import Trajectory


class StalenessError(RuntimeError):
    """Rollouts of weights that this update must not use."""


def staleness(
    trajectories: Sequence[Trajectory], version: int | None = None, bound: int = 0
) -> np.ndarray:
    """Updates between the weights that drew each trajectory and the policy now, (N,) int64.

    Args:
        trajectories: What is about to be trained.
        version: Updates that the policy has seen; None takes the newest of the trajectories'.
        bound: The largest staleness that is allowed.

    Raises:
        StalenessError: A trajectory is older than the bound, or newer than the policy.

    >>> none = np.zeros(0)
    >>> drawn_by = [Trajectory(none, none, none, none, none, version=v) for v in (3, 2)]
    >>> staleness(drawn_by, version=4, bound=2).tolist()
    [1, 2]
    """
    drawn_N = np.array([one.version for one in trajectories], dtype=np.int64)
    if not len(drawn_N):
        return drawn_N
    now = int(drawn_N.max()) if version is None else version
    staleness_N = now - drawn_N
    if staleness_N.min() < 0:
        raise StalenessError(
            f"a rollout was drawn by version {drawn_N.max()} of the weights, and the policy is at "
            f"version {now}: the workers were told of weights that the learner does not have"
        )
    if staleness_N.max() > bound:
        raise StalenessError(
            f"a rollout was drawn by version {drawn_N.min()} of the weights, {staleness_N.max()} "
            f"updates before the policy's version {now}, and at most {bound} are allowed: tell the "
            "workers of every update, or play asynchronously with a larger run.staleness"
        )
    return staleness_N


def staleness_metrics(staleness_N: np.ndarray, tokens_N: np.ndarray) -> dict[str, float]:
    """Mean and largest staleness of the trained tokens.

    Args:
        staleness_N: Of each trajectory.
        tokens_N: How many trained tokens each has; there is at least one.

    >>> staleness_metrics(np.array([0, 2, 5]), np.array([3, 1, 0]))
    {'staleness/mean': 0.5, 'staleness/max': 2.0}
    """
    return {
        "staleness/mean": float(np.average(staleness_N, weights=tokens_N)),
        "staleness/max": float(staleness_N[tokens_N > 0].max()),
    }
