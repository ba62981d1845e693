"""Credit: from the rewards of groups to the advantage of every trained token.

The stretch between rollouts and the learner. Pure: no clock, no generator, no weights. Tests:
`pytest tests/algorithm/test_paragrpo.py`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from agents.algorithm.advantages import (
    FORMAT_TERM,
    Scores,
    advantage_named,
    leave_one_out,
    normalise_batch,
    token_credit,
    zero_variance,
)
from agents.algorithm.config import PARAGRPOConfig
from agents.base import Trajectory

KL_TERM = "kl"
"""The divergence from the reference, in the log: no term of a reward may have its name."""


class ScoredRollout(Protocol):
    """What credit needs of a rollout (`train/rollout/play.py` has the rest)."""

    @property
    def task_id(self) -> str:
        """The task that was played."""

    @property
    def reward(self) -> float:
        """The weighted sum of the terms."""

    @property
    def terms(self) -> Mapping[str, float]:
        """Unweighted value of each reward term."""

    @property
    def executed(self) -> int:
        """Calls that ran."""

    @property
    def trajectories(self) -> tuple[Trajectory, ...]:
        """What is trained, main first; empty where the video could not be read."""


Groups = Sequence[Sequence[ScoredRollout]]
"""Rollouts of one start each: question, video, frame budget."""


@dataclass(frozen=True)
class Batch:
    """Trajectories with the advantage of every token; each list has one entry a trajectory."""

    trajectories: list[Trajectory]
    advantages: list[np.ndarray]
    """(C,) float32 each; only the tokens of the loss mask are used."""
    groups: list[int]


@dataclass(frozen=True)
class Credited:
    """What `credit` makes of a step's groups."""

    batch: Batch
    metrics: dict[str, float]
    """Groups without variance, and how many trained tokens carry the format."""


def check_credit(config: PARAGRPOConfig, reward_weights: Mapping[str, float]) -> None:
    """Refuse a method that needs a reward term which the preset does not have.

    Raises:
        ValueError: The term is named.
    """
    if config.credit == "token" and FORMAT_TERM not in reward_weights:
        raise ValueError(f"credit=token needs the reward term {FORMAT_TERM!r} in the preset")
    needed = advantage_named(config.advantage).needs_term
    if needed and not reward_weights.get(needed):
        raise ValueError(
            f"advantage={config.advantage} needs the reward term {needed!r} in the preset"
        )


def credit(
    groups: Groups,
    config: PARAGRPOConfig,
    reward_weights: Mapping[str, float],
    divergence: np.ndarray | None = None,
) -> Credited:
    """Advantages for every token of every trajectory.

    Rollouts without trajectories (their video could not be read) belong to no group's statistics.

    Args:
        groups: Rollouts of one start each.
        config: The method.
        reward_weights: The weight of every reward term, by name.
        divergence: For `kl_in=reward`: log pi - log pi_ref summed over the sampled tokens of each
            of `trained_trajectories(groups, config)`, in order.

    Raises:
        ValueError: A reward, or a term of one, is not finite (the task is named); or a divergence
            is needed and not given.
    """
    members = scored_members(groups)
    scores, metrics = _scores(members, config, reward_weights), _counts(groups, members)
    penalty_N = np.zeros(len(members))
    if config.kl_in_reward:
        divergence_N = _of_rollouts(members, config, divergence)
        penalty_N = config.kl_coefficient * kl_penalty(divergence_N, scores.groups)
        metrics["kl_of_rollout"] = float(divergence_N.mean()) if len(divergence_N) else 0.0
    estimate = advantage_named(config.advantage)
    if config.credit == "token":
        main, form = scores.split(FORMAT_TERM)
        format_weight = reward_weights[FORMAT_TERM]
        main_N, format_N = estimate(main), estimate(form)
    else:
        format_weight = 0.0
        main_N, format_N = estimate(scores), np.zeros(len(members))
    batch = Batch([], [], [])
    owners = []
    for n, (group, rollout) in enumerate(members):
        for trajectory in _trained(rollout, config):
            owners.append(n)
            structural_C = trajectory.structural
            batch.trajectories.append(trajectory)
            batch.groups.append(group)
            batch.advantages.append(
                token_credit(main_N[n], format_N[n], format_weight, structural_C)
            )
    advantages = batch.advantages
    if config.batch_normalise:
        masks = [trajectory.loss_mask for trajectory in batch.trajectories]
        advantages = normalise_batch(advantages, masks, batch.groups)
    batch.advantages[:] = [
        (a - penalty_N[n]).astype(np.float32) for n, a in zip(owners, advantages, strict=True)
    ]
    return Credited(batch, metrics | _shares(batch, config))


def scored_members(groups: Groups) -> list[tuple[int, ScoredRollout]]:
    """The rollouts that could be scored, each with the number of its group."""
    return [
        (g, rollout) for g, group in enumerate(groups) for rollout in group if rollout.trajectories
    ]


def trained_trajectories(groups: Groups, config: PARAGRPOConfig) -> list[Trajectory]:
    """The trajectories that `credit` will put into its batch, in order."""
    return [one for _, rollout in scored_members(groups) for one in _trained(rollout, config)]


def _trained(rollout: ScoredRollout, config: PARAGRPOConfig) -> list[Trajectory]:
    """The trajectories of a rollout that are trained."""
    kinds = ("main", "subagent") if config.train_subagents else ("main",)
    return [trajectory for trajectory in rollout.trajectories if trajectory.kind in kinds]


def _scores(
    members: Sequence[tuple[int, ScoredRollout]],
    config: PARAGRPOConfig,
    reward_weights: Mapping[str, float],
) -> Scores:
    rollouts = [rollout for _, rollout in members]
    for rollout in rollouts:
        values = {name: rollout.terms[name] for name in reward_weights}
        for name, value in {**values, "reward": rollout.reward}.items():
            if not math.isfinite(value):
                raise ValueError(f"task {rollout.task_id!r}: its {name} is {value}")
    return Scores(
        rewards=np.array([rollout.reward for rollout in rollouts], dtype=np.float64),
        groups=np.array([group for group, _ in members], dtype=np.int64),
        terms={
            name: np.array([rollout.terms[name] for rollout in rollouts], dtype=np.float64)
            for name in reward_weights
        },
        weights=reward_weights,
        called=np.array([rollout.executed > 0 for rollout in rollouts], dtype=bool),
        right_from=config.right_from,
        shrinkage=config.shrinkage,
    )


def _of_rollouts(
    members: Sequence[tuple[int, ScoredRollout]],
    config: PARAGRPOConfig,
    divergence: np.ndarray | None,
) -> np.ndarray:
    """Log pi - log pi_ref of each rollout, (N,): the sum over its trained trajectories."""
    if divergence is None:
        raise ValueError("kl_in=reward needs the divergence from a reference policy")
    owners = [n for n, (_, rollout) in enumerate(members) for _ in _trained(rollout, config)]
    sums_N = np.zeros(len(members))
    np.add.at(sums_N, owners, divergence)
    return sums_N


def kl_penalty(divergence_N: np.ndarray, groups_N: np.ndarray) -> np.ndarray:
    """What is taken off each rollout's advantage for its divergence, (N,), before its weight.

    grad KL(pi || pi_ref) = E[(log pi(y) - log pi_ref(y)) grad log pi(y)] over rollouts y, and a
    baseline that does not depend on y (the mean of the others, as in RLOO, arXiv 2402.14740) leaves
    the expectation as it is. So its gradient is exact where all tokens weigh alike, which holds for
    the aggregations `token_mean` and `dr_grpo`. It is never divided by a standard deviation: that
    would make the weight of the divergence depend on the rewards' spread.

    >>> kl_penalty(np.array([3.0, 1.0, 2.0]), np.array([0, 0, 1])).tolist()
    [2.0, -2.0, 0.0]
    """
    return leave_one_out(Scores(divergence_N, groups_N))


def _counts(groups: Groups, members: Sequence[tuple[int, ScoredRollout]]) -> dict[str, float]:
    """How many groups there are, and which share of the readable ones has equal rewards."""
    groups_N = np.array([group for group, _ in members], dtype=np.int64)
    flat_N = zero_variance(np.array([rollout.reward for _, rollout in members]), groups_N)
    readable = len(set(groups_N.tolist()))
    return {
        "groups/collected": float(len(groups)),
        "groups/unreadable": float(len(groups) - readable),
        "groups/zero_variance": len(set(groups_N[flat_N].tolist())) / max(readable, 1),
    }


def _shares(batch: Batch, config: PARAGRPOConfig) -> dict[str, float]:
    """Groups without any advantage, and the shares of trained tokens that carry the format."""
    moved = {g for g, a in zip(batch.groups, batch.advantages, strict=True) if a.any()}
    readable = set(batch.groups)
    tokens = sum(int(one.loss_mask.sum()) for one in batch.trajectories)
    tags = sum(int((one.loss_mask & one.structural).sum()) for one in batch.trajectories)
    structural = tags / max(tokens, 1)
    return {
        "groups/no_advantage": len(readable - moved) / max(len(readable), 1),
        "tokens/structural": structural,
        "tokens/format_credit": structural if config.credit == "token" else 1.0,
    }
