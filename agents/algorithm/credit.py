"""Credit: from the rewards of groups to the advantage of every trained token.

The stretch between rollouts and the learner. Pure: no clock, no generator, no weights. Tests:
`pytest tests/algorithm/test_paragrpo.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Generic, Protocol, TypeVar

import numpy as np

from agents.algorithm.advantages import (
    ADVANTAGES,
    FORMAT_TERM,
    NEED_TOOL_TERM,
    TOOL_TERM,
    Scores,
    normalise_batch,
    token_credit,
    zero_variance,
)
from agents.algorithm.config import PARAGRPOConfig
from agents.base import Trajectory
from paravt_env.protocol import Role

KL_TERM = "kl"
"""The divergence from the reference where it is part of the reward (`kl_in=reward`)."""


class ScoredRollout(Protocol):
    """What the algorithm needs of a rollout (`train/rollout/play.py` has the rest)."""

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


R = TypeVar("R", bound=ScoredRollout)


@dataclass(frozen=True)
class Batch:
    """Trajectories with the advantage of every token; each list has one entry a trajectory."""

    trajectories: list[Trajectory]
    advantages: list[np.ndarray]
    """(C,) float32 each; only the tokens of the loss mask are used."""
    groups: list[int]


class PARAGRPO(Generic[R]):
    """The algorithm.

    Args:
        config: Its settings.
        reward_weights: The weight of every reward term, by name.
        collect: Plays, selects and returns groups of rollouts with one start each.
        update: Takes the credited batch, changes the weights and returns metrics.
        divergence: The divergence of each trajectory from the reference; for `kl_in=reward`.
    """

    def __init__(
        self,
        config: PARAGRPOConfig,
        reward_weights: Mapping[str, float],
        collect: Callable[[], Sequence[Sequence[R]]],
        update: Callable[[Batch], dict[str, float]],
        divergence: Callable[[Sequence[Trajectory]], np.ndarray] | None = None,
    ) -> None:
        if config.credit == "token" and FORMAT_TERM not in reward_weights:
            raise ValueError(f"credit=token needs the reward term {FORMAT_TERM!r} in the preset")
        if config.advantage in NEED_TOOL_TERM and not reward_weights.get(TOOL_TERM):
            raise ValueError(
                f"advantage={config.advantage} needs the reward term {TOOL_TERM!r} in the preset"
            )
        self.config = config
        self.reward_weights = reward_weights
        self.collect = collect
        self.update = update
        self.divergence = divergence

    def step(self) -> tuple[Sequence[Sequence[R]], dict[str, float]]:
        """One round of the method: collect groups, compute advantages, update."""
        started = perf_counter()
        groups = self.collect()
        collected = perf_counter()
        batch, metrics = self.credit(groups)
        metrics |= self.update(batch)
        metrics["time/collect"] = collected - started
        metrics["time/update"] = perf_counter() - collected
        return groups, metrics

    def credit(self, groups: Sequence[Sequence[ScoredRollout]]) -> tuple[Batch, dict[str, float]]:
        """Advantages for every token of every trajectory.

        Rollouts without trajectories (their video could not be read) belong to no group's
        statistics.

        Raises:
            ValueError: A reward, or a term of one, is not finite; the task is named.
        """
        config = self.config
        members = [(g, r) for g, group in enumerate(groups) for r in group if r.trajectories]
        scores, metrics = self._scores(members), self._counts(groups, members)
        if config.kl_in == "reward" and config.kl_coefficient:
            divergence_N = self._divergence([rollout for _, rollout in members])
            scores = scores.with_term(KL_TERM, -config.kl_coefficient, divergence_N)
            metrics["kl_of_rollout"] = float(divergence_N.mean()) if len(divergence_N) else 0.0
        estimate = ADVANTAGES[config.advantage]
        if config.credit == "token":
            main, form = scores.split(FORMAT_TERM)
            format_weight = self.reward_weights[FORMAT_TERM]
            main_N, format_N = estimate(main), estimate(form)
        else:
            format_weight = 0.0
            main_N, format_N = estimate(scores), np.zeros(len(members))

        batch = Batch([], [], [])
        for n, (group, rollout) in enumerate(members):
            for trajectory in self._trained(rollout):
                structural_C = trajectory.roles == Role.tag
                batch.trajectories.append(trajectory)
                batch.groups.append(group)
                batch.advantages.append(
                    token_credit(main_N[n], format_N[n], format_weight, structural_C)
                )
        advantages = batch.advantages
        if config.batch_normalise:
            masks = [trajectory.loss_mask for trajectory in batch.trajectories]
            advantages = normalise_batch(advantages, masks, batch.groups)
        batch.advantages[:] = [a.astype(np.float32) for a in advantages]
        return batch, metrics | self._shares(batch)

    def _scores(self, members: Sequence[tuple[int, ScoredRollout]]) -> Scores:
        config, rollouts = self.config, [rollout for _, rollout in members]
        for rollout in rollouts:
            values = {name: rollout.terms[name] for name in self.reward_weights}
            for name, value in {**values, "reward": rollout.reward}.items():
                if not math.isfinite(value):
                    raise ValueError(f"task {rollout.task_id!r}: its {name} is {value}")
        return Scores(
            rewards=np.array([rollout.reward for rollout in rollouts], dtype=np.float64),
            groups=np.array([group for group, _ in members], dtype=np.int64),
            terms={
                name: np.array([rollout.terms[name] for rollout in rollouts], dtype=np.float64)
                for name in self.reward_weights
            },
            weights=self.reward_weights,
            called=np.array([rollout.executed > 0 for rollout in rollouts], dtype=bool),
            right_from=config.right_from,
            shrinkage=config.shrinkage,
        )

    def _trained(self, rollout: ScoredRollout) -> list[Trajectory]:
        """The trajectories of a rollout that are trained."""
        kinds = ("main", "subagent") if self.config.train_subagents else ("main",)
        return [trajectory for trajectory in rollout.trajectories if trajectory.kind in kinds]

    def _divergence(self, rollouts: Sequence[ScoredRollout]) -> np.ndarray:
        """The divergence of each rollout, (N,): the sum over its trained trajectories."""
        if self.divergence is None:
            raise ValueError("kl_in=reward needs the divergence from a reference policy")
        trained = [(n, one) for n, rollout in enumerate(rollouts) for one in self._trained(rollout)]
        sums_N = np.zeros(len(rollouts))
        np.add.at(sums_N, [n for n, _ in trained], self.divergence([one for _, one in trained]))
        return sums_N

    def _counts(
        self,
        groups: Sequence[Sequence[ScoredRollout]],
        members: Sequence[tuple[int, ScoredRollout]],
    ) -> dict[str, float]:
        """How many groups there are, and which share of the readable ones has equal rewards."""
        groups_N = np.array([group for group, _ in members], dtype=np.int64)
        flat_N = zero_variance(np.array([rollout.reward for _, rollout in members]), groups_N)
        readable = len(set(groups_N.tolist()))
        return {
            "groups/collected": float(len(groups)),
            "groups/unreadable": float(len(groups) - readable),
            "groups/zero_variance": len(set(groups_N[flat_N].tolist())) / max(readable, 1),
        }

    def _shares(self, batch: Batch) -> dict[str, float]:
        """Groups without any advantage, and the shares of trained tokens that carry the format."""
        moved = {g for g, a in zip(batch.groups, batch.advantages, strict=True) if a.any()}
        readable = set(batch.groups)
        tokens = sum(int(one.loss_mask.sum()) for one in batch.trajectories)
        tags = sum(
            int((one.loss_mask & (one.roles == Role.tag)).sum()) for one in batch.trajectories
        )
        structural = tags / max(tokens, 1)
        return {
            "groups/no_advantage": len(readable - moved) / max(len(readable), 1),
            "tokens/structural": structural,
            "tokens/format_credit": structural if self.config.credit == "token" else 1.0,
        }
