"""TA-MDP diagnostics: what each reward term does to the advantages of its group.

Beside the journey, between the rewards of a group and its advantages: nothing here changes a run.
Pure functions of numbers; `train/lab/diagnose/gradients.py` adds the gradients,
`train/lab/diagnose/advice.py` what both advise; `train/lab/diagnose/diagnose.py` is the command.
What is exact and what is a rule of thumb says `docs/diagnostics.md`. The quantities are motivated
by "Rethinking RFT in LVLM" (arXiv 2604.19857) and derived here.

Shapes: `_N` rollouts, `_K` reward terms, `_G` members of one group. Command: `paravt diagnose RUN`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import TypeVar

import numpy as np

from agents.algorithm.advantages import ZERO_VARIANCE, Scores, decomposed, grpo

PREFIX = "diagnostics/"
K = TypeVar("K")
Pair = tuple[str, str]
DISTINCT = 1e-6
"""Advantages that differ by less are one."""


@dataclass(frozen=True)
class GroupTerms:
    """One group, term by term.

    Attributes:
        weights_K: w_k.
        stds_K: sigma_k, population standard deviation of each unweighted term.
        std: sigma, of the summed reward.
        shares_K: Cov(w_k r_k, R) / sigma^2, which sum to 1; NaN where the reward is flat.
        advantages_KG: A_k, each term standardised on its own; 0 where it is flat.
        joint_G: A, the standardised sum (`grpo`).
        decomposed_G: A_dec = sum_k w_k A_k (`decomposed`).
    """

    weights_K: np.ndarray
    stds_K: np.ndarray
    std: float
    shares_K: np.ndarray
    advantages_KG: np.ndarray
    joint_G: np.ndarray
    decomposed_G: np.ndarray

    @property
    def live(self) -> bool:
        """Whether the summed reward varies."""
        return self.std > ZERO_VARIANCE

    @property
    def live_K(self) -> np.ndarray:
        """Which terms vary, as booleans (K,)."""
        return self.stds_K > ZERO_VARIANCE

    @property
    def coefficients_K(self) -> np.ndarray:
        """c_k = w_k sigma_k / sigma, with A = sum_k c_k A_k; 0 where the reward is flat."""
        return self.weights_K * self.stds_K / self.std if self.live else np.zeros_like(self.stds_K)

    @property
    def identity_error(self) -> float:
        """Largest |A - A_dec - sum_k (c_k - w_k) A_k|: 0 but for rounding."""
        gap_G = (self.coefficients_K - self.weights_K) @ self.advantages_KG
        return float(np.abs(self.joint_G - self.decomposed_G - gap_G).max())

    @property
    def gap(self) -> float:
        """sum_k |c_k - w_k| over the terms that vary: bounds the mean of |A - A_dec|."""
        return float(np.abs(self.coefficients_K - self.weights_K)[self.live_K].sum())


@dataclass(frozen=True)
class Terms:
    """What the reward terms of a batch do, as means over its groups.

    Attributes:
        groups: Groups with a scored rollout.
        rollouts: Their scored rollouts.
        shares: Of each term in the joint signal, over the groups whose reward varies.
        scales: c_k / w_k = sigma_k / sigma, over the groups in which the term varies too.
        correlations: Of two terms within a group, over the groups in which both vary.
        flat: Share of the groups whose summed reward does not vary.
        flat_terms: The same for each term.
        distinct_joint: Different advantages in a group, of the standardised sum.
        distinct_decomposed: The same with terms standardised one by one.
        identity_error: Largest `GroupTerms.identity_error`.
        gap: Mean of `GroupTerms.gap`.
    """

    groups: int
    rollouts: int
    shares: dict[str, float]
    scales: dict[str, float]
    correlations: dict[Pair, float]
    flat: float
    flat_terms: dict[str, float]
    distinct_joint: float
    distinct_decomposed: float
    identity_error: float
    gap: float

    def metrics(self) -> dict[str, float]:
        """Everything under its name in the log; what no group could say is absent."""
        return {
            **{f"{PREFIX}share/{name}": value for name, value in self.shares.items()},
            **{f"{PREFIX}scale/{name}": value for name, value in self.scales.items()},
            **{f"{PREFIX}correlation/{a}~{b}": v for (a, b), v in self.correlations.items()},
            f"{PREFIX}zero_variance/all": self.flat,
            **{f"{PREFIX}zero_variance/{name}": v for name, v in self.flat_terms.items()},
            f"{PREFIX}distinct/joint": self.distinct_joint,
            f"{PREFIX}distinct/decomposed": self.distinct_decomposed,
            f"{PREFIX}identity_error": self.identity_error,
            f"{PREFIX}gap": self.gap,
        }


def term_names(weights: Mapping[str, float]) -> list[str]:
    """The terms that are part of the reward."""
    return [name for name, weight in weights.items() if weight]


def group_terms(scores: Scores) -> list[GroupTerms]:
    """Every group of a batch, term by term; terms in the order of `term_names`.

    Raises:
        ValueError: The rewards hold something that is no weighted term.
    """
    names = term_names(scores.weights)
    alone = [scores.split(name)[1] for name in names]
    weights_K = np.array([scores.weights[name] for name in names], dtype=np.float64)
    joint_N, decomposed_N = grpo(scores), decomposed(scores)
    advantages_KN = np.array([grpo(one) for one in alone]).reshape(len(names), len(joint_N))
    terms_KN = np.array([one.rewards for one in alone]).reshape(len(names), len(joint_N))
    found = []
    for group in np.unique(scores.groups):
        members = scores.groups == group
        rewards_G, terms_KG = scores.rewards[members], terms_KN[:, members]
        std = float(rewards_G.std())
        centred_KG = weights_K[:, None] * (terms_KG - terms_KG.mean(axis=1, keepdims=True))
        covariances_K = (centred_KG * (rewards_G - rewards_G.mean())).mean(axis=1)
        flat = std <= ZERO_VARIANCE
        found.append(
            GroupTerms(
                weights_K=weights_K,
                stds_K=terms_KG.std(axis=1),
                std=std,
                shares_K=np.full(len(names), np.nan) if flat else covariances_K / std**2,
                advantages_KG=advantages_KN[:, members],
                joint_G=joint_N[members],
                decomposed_G=decomposed_N[members],
            )
        )
    return found


def measure_terms(scores: Scores) -> Terms:
    """Means over the groups of a batch.

    Raises:
        ValueError: No rollouts, or rewards that are not the sum of their terms.
    """
    groups, names = group_terms(scores), term_names(scores.weights)
    if not groups:
        raise ValueError("no scored rollouts to diagnose")
    live = [group for group in groups if group.live]
    shares, scales, correlations = {}, {}, {}
    for k, name in enumerate(names):
        shares[name] = _mean(group.shares_K[k] for group in live)
        both = [group for group in live if group.live_K[k]]
        scales[name] = _mean(group.stds_K[k] / group.std for group in both)
    for (j, a), (k, b) in combinations(enumerate(names), 2):
        both = [group for group in groups if group.live_K[j] and group.live_K[k]]
        correlations[a, b] = _mean(
            float(np.mean(group.advantages_KG[j] * group.advantages_KG[k])) for group in both
        )
    return Terms(
        groups=len(groups),
        rollouts=len(scores.rewards),
        shares=_known(shares),
        scales=_known(scales),
        correlations=_known(correlations),
        flat=1 - len(live) / len(groups),
        flat_terms={
            name: _mean(float(not group.live_K[k]) for group in groups)
            for k, name in enumerate(names)
        },
        distinct_joint=_mean(float(distinct(group.joint_G)) for group in groups),
        distinct_decomposed=_mean(float(distinct(group.decomposed_G)) for group in groups),
        identity_error=max(group.identity_error for group in groups),
        gap=_mean(group.gap for group in groups),
    )


def distinct(advantages_G: np.ndarray) -> int:
    """How many different advantages there are.

    >>> distinct(np.array([0.5, -1.0, 0.5 + 1e-12]))
    2
    """
    return 1 + int((np.diff(np.sort(advantages_G)) > DISTINCT).sum())


def _mean(values: Iterable[float]) -> float:
    """Mean, or NaN of nothing."""
    listed = list(values)
    return math.fsum(listed) / len(listed) if listed else math.nan


def _known(values: Mapping[K, float]) -> dict[K, float]:
    return {key: value for key, value in values.items() if not math.isnan(value)}
