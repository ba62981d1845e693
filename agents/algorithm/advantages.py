"""Advantages: how good each rollout was beside the others that started from the same place.

Stands between the rewards of a group and the loss. Every estimator is a pure function of `Scores`:
N rollouts with the group of each go in, N advantages come out. A group whose (reshaped) rewards are
all equal teaches nothing: its advantages are exactly 0, also after the normalisation over the
batch, and the caller counts it. Adding an estimator is one function, and one entry in
`ADVANTAGES` or a door (`algorithm.advantage: "mine.py:advantage"`).

Shapes: `_N` rollouts, `_C` tokens of one branch. Command: `pytest
tests/algorithm/test_advantages.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from paravt_env.common.doors import chosen
from paravt_env.rewards.terms.tool_gain import ToolGain

Credit = Literal["trajectory", "token"]

ANSWER_TERM, FORMAT_TERM, TOOL_TERM = "answer", "format_anchor", "tool_gain"
"""Names of the reward terms that an estimator or the token credit singles out."""
ZERO_VARIANCE = 1e-6
"""Rewards of a group whose standard deviation is below this are taken as equal."""


@dataclass(frozen=True)
class Scores:
    """What an estimator may look at.

    Attributes:
        rewards: (N,) float64, the summed reward of each rollout.
        groups: (N,) int, which rollouts started from the same place.
        terms: Unweighted value (N,) of each reward term.
        weights: Weight of each term in the sum; a term without one weighs nothing.
        called: (N,) bool, whether one of the rollout's calls ran; a call that failed saw nothing.
        right_from: gated: the answer value from which an answer is right.
        shrinkage: counterfactual: how many pairs of a calling and a skipping rollout it takes until
            half of the difference between them is believed.
    """

    rewards: np.ndarray
    groups: np.ndarray
    terms: Mapping[str, np.ndarray] = field(default_factory=dict)
    weights: Mapping[str, float] = field(default_factory=dict)
    called: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=bool))
    right_from: float = ToolGain.success_threshold
    shrinkage: float = 1.0

    def __post_init__(self) -> None:
        """Refuse shapes that do not belong together and numbers that are none."""
        object.__setattr__(self, "rewards", np.asarray(self.rewards, dtype=np.float64))
        object.__setattr__(self, "groups", np.asarray(self.groups))
        shape = self.rewards.shape
        if shape != self.groups.shape or len(shape) != 1:
            raise ValueError(f"rewards {shape} and groups {self.groups.shape} must both be (N,)")
        for name, values_N in {"reward": self.rewards, **self.terms}.items():
            if np.shape(values_N) != shape:
                raise ValueError(f"{name} has shape {np.shape(values_N)}, the rewards {shape}")
            if not np.isfinite(values_N).all():
                raise ValueError(f"a {name} is not finite")

    def part(self, term: str) -> np.ndarray:
        """What a term adds to each reward, (N,); zeros where it has no weight."""
        weight = self.weights.get(term, 0.0)
        return weight * np.asarray(self.terms[term]) if weight else np.zeros_like(self.rewards)

    def with_term(self, name: str, weight: float, values_N: np.ndarray) -> Scores:
        """The scores with one more weighted term in the rewards."""
        return replace(
            self,
            rewards=self.rewards + weight * values_N,
            terms={**self.terms, name: values_N},
            weights={**self.weights, name: weight},
        )

    def split(self, term: str) -> tuple[Scores, Scores]:
        """The scores without one term, and that term on its own, unweighted."""
        alone = np.asarray(self.terms[term], dtype=np.float64)
        rest = {name: weight for name, weight in self.weights.items() if name != term}
        return (
            replace(self, rewards=self.rewards - self.part(term), weights=rest),
            replace(self, rewards=alone, terms={term: alone}, weights={term: 1.0}),
        )


@dataclass(frozen=True)
class Advantage:
    """An estimator and what it needs; called like its function, (N,) advantages of `Scores`."""

    function: Callable[[Scores], np.ndarray]
    needs_term: str = ""
    """A reward term that the preset must hold with a weight: without it the estimator would be
    `grpo`, and so must not be asked for."""

    def __call__(self, scores: Scores) -> np.ndarray:
        """One advantage a rollout, (N,)."""
        return self.function(scores)


def _per_group(
    rewards_N: np.ndarray, groups_N: np.ndarray, rule: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """Apply `rule` to the rewards of each group that has variance; the others stay 0."""
    advantages_N = np.zeros_like(rewards_N)
    for group in np.unique(groups_N):
        members = groups_N == group
        if rewards_N[members].std() > ZERO_VARIANCE:
            advantages_N[members] = rule(rewards_N[members])
    return advantages_N


def _standardised(rewards_N: np.ndarray, groups_N: np.ndarray) -> np.ndarray:
    return _per_group(rewards_N, groups_N, lambda r: (r - r.mean()) / r.std())


def grpo(scores: Scores) -> np.ndarray:
    """(R - mean) / std within the group, population std (GRPO, arXiv 2402.03300).

    >>> grpo(Scores(np.array([0.0, 1.0, 5.0, 5.0]), np.array([0, 0, 1, 1]))).tolist()
    [-1.0, 1.0, 0.0, 0.0]
    """
    return _standardised(scores.rewards, scores.groups)


def centered(scores: Scores) -> np.ndarray:
    """R - mean within the group (Dr.GRPO, arXiv 2503.20783; PyVision-RL, arXiv 2602.20739).

    >>> centered(Scores(np.array([0.0, 1.0, 2.0]), np.array([0, 0, 0]))).tolist()
    [-1.0, 0.0, 1.0]
    """
    return _per_group(scores.rewards, scores.groups, lambda r: r - r.mean())


def leave_one_out(scores: Scores) -> np.ndarray:
    """R minus the mean of the other members (RLOO, arXiv 2402.14740).

    >>> leave_one_out(Scores(np.array([0.0, 1.0, 2.0]), np.array([0, 0, 0]))).tolist()
    [-1.5, 0.0, 1.5]
    """
    return _per_group(
        scores.rewards, scores.groups, lambda r: r - (r.sum() - r) / max(len(r) - 1, 1)
    )


def decomposed(scores: Scores) -> np.ndarray:
    """sum_k w_k (r_k - mean_k) / std_k: each term is normalised on its own (GDPO, 2601.05242).

    So no term drowns in the variance of another. The paper then normalises over the batch
    (`normalise_batch`). A term without variance in a group adds nothing there, and what rounding
    leaves where terms cancel is no advantage.

    Raises:
        ValueError: The rewards hold something that is no term, which would be lost.

    >>> one = np.array([0.0, 1.0]), np.array([4.0, 0.0])
    >>> terms, weights = dict(zip("ab", one)), {"a": 1.0, "b": 0.5}
    >>> decomposed(Scores(one[0] + 0.5 * one[1], np.array([0, 0]), terms, weights)).tolist()
    [-0.5, 0.5]
    """
    weighed = [name for name, weight in scores.weights.items() if weight]
    summed_N = sum((scores.part(name) for name in weighed), np.zeros_like(scores.rewards))
    if not np.allclose(summed_N, scores.rewards, rtol=1e-6, atol=1e-6):
        raise ValueError(
            f"the weighted terms {', '.join(weighed)} do not add up to the rewards: "
            "advantage=decomposed would lose the rest"
        )
    advantages_N = np.zeros_like(scores.rewards)
    for name in weighed:
        term_N = np.asarray(scores.terms[name], dtype=np.float64)
        advantages_N += scores.weights[name] * _standardised(term_N, scores.groups)
    return _per_group(advantages_N, scores.groups, lambda advantages: advantages)


def gated(scores: Scores) -> np.ndarray:
    """`grpo` of rewards whose tool term counts only where the answer is right.

    For terms that pull against each other: a call is then never worth more than the answer.
    """
    tool_N = scores.part(TOOL_TERM)
    if not tool_N.any():
        return grpo(scores)
    wrong_N = np.asarray(scores.terms[ANSWER_TERM]) < scores.right_from
    return _standardised(scores.rewards - tool_N * wrong_N, scores.groups)


def calling_gain(answers_G: np.ndarray, called_G: np.ndarray, shrinkage: float) -> float:
    """What calling was worth in one group: the calling rollouts' mean answer minus the others'.

    A difference of means from c and s rollouts has a variance proportional to 1 / m with m = c s /
    (c + s), so it is shrunk by m / (m + shrinkage). Without a rollout on either side nothing can be
    compared, and the gain is 0.

    >>> calling_gain(np.array([1.0, 1.0, 0.0, 1.0]), np.array([True, True, False, False]), 1.0)
    0.25
    """
    callers, skippers = answers_G[called_G], answers_G[~called_G]
    if not (len(callers) and len(skippers)):
        return 0.0
    pairs = len(callers) * len(skippers) / len(answers_G)
    return float((callers.mean() - skippers.mean()) * pairs / (pairs + shrinkage))


def counterfactual(scores: Scores) -> np.ndarray:
    """`grpo` of rewards whose tool term is replaced by what calling gained in the group.

    Each calling rollout is paid w_tool * `calling_gain` of its own group instead of its tool term:
    a group is its own experiment on the question "would skipping have done as well?". Calling is
    paid where it helps, costs where it harms, and is worth nothing where all or none called. Ours.
    """
    weight = scores.weights.get(TOOL_TERM, 0.0)
    if not weight:
        return grpo(scores)
    rewards_N = scores.rewards - scores.part(TOOL_TERM)
    answers_N = np.asarray(scores.terms[ANSWER_TERM], dtype=np.float64)
    for group in np.unique(scores.groups):
        members = scores.groups == group
        called_G = scores.called[members]
        gain = calling_gain(answers_N[members], called_G, scores.shrinkage)
        rewards_N[members] += weight * gain * called_G
    return _standardised(rewards_N, scores.groups)


ADVANTAGES: dict[str, Advantage] = {
    "grpo": Advantage(grpo),
    "centered": Advantage(centered),
    "leave_one_out": Advantage(leave_one_out),
    "decomposed": Advantage(decomposed),
    "gated": Advantage(gated, needs_term=TOOL_TERM),
    "counterfactual": Advantage(counterfactual, needs_term=TOOL_TERM),
}


def advantage_named(name: str) -> Advantage:
    """An entry of `ADVANTAGES`, or the function or `Advantage` behind a door.

    Raises:
        ValueError: There is none.
    """
    found = chosen("algorithm.advantage", name, ADVANTAGES)
    return found if isinstance(found, Advantage) else Advantage(found)


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
    advantages: Sequence[np.ndarray], masks: Sequence[np.ndarray], groups: Sequence[int]
) -> list[np.ndarray]:
    """Normalise per-token advantages over every trained token of the batch: (A - mean) / std.

    The second normalisation of ParaVT and GDPO. Long rollouts weigh more in its mean, so it is not
    the identity after `grpo`. A group without any advantage stays 0 and enters no statistic.

    Args:
        advantages: One (C_i,) array a trajectory.
        masks: One (C_i,) boolean array a trajectory, true where a token is trained.
        groups: The group of each trajectory.
    """
    moved = [bool(np.any(a[m] != 0)) for a, m in zip(advantages, masks, strict=True)]
    live_groups = {group for group, on in zip(groups, moved, strict=True) if on}
    live = [group in live_groups for group in groups]
    trained = [a[m] for a, m, on in zip(advantages, masks, live, strict=True) if on]
    if not trained:
        return list(advantages)
    tokens = np.concatenate(trained)
    mean, std = tokens.mean(), tokens.std()
    if std <= ZERO_VARIANCE:
        return list(advantages)
    return [(a - mean) / std if on else a for a, on in zip(advantages, live, strict=True)]
