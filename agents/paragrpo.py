"""PARA-GRPO, the reinforcement learning of parallel tool calls, on one page (arXiv 2605.20342).

Once a step: collect groups of rollouts that share their start (question, video, frame budget K),
turn their rewards into advantages, and update the policy on the packed groups. What sets PARA-GRPO
apart from GRPO is two mechanisms and a reward, each a setting: exploration anchoring
(`forced_prefix` of the agent and `credit` below), frame-budget gating (`frame_budget` of the
environment) and the tool term of the reward preset. Vanilla GRPO is this file with an empty prefix,
trajectory credit and one fixed budget.

Playing and learning are injected, so that this file is the algorithm and nothing else. Train with
`python agents/paragrpo.py --config train/recipes/demo.yaml`, or `paravt train`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Generic, Protocol, TypeVar

import numpy as np

from agents.advantages import (
    ADVANTAGES,
    Credit,
    normalise_batch,
    token_credit,
    zero_variance,
)
from agents.base import Trajectory
from agents.losses import AGGREGATIONS, LOSSES
from paravt_env.protocol import Role

FORMAT_TERM = "format_anchor"


@dataclass
class PARAGRPOConfig:
    """Settings of the algorithm; the defaults are ParaVT's published ones."""

    groups: int = 7
    """Groups (starts) collected for one update."""
    group_size: int = 8
    """Rollouts that share one start."""
    advantage: str = "grpo"
    """Name in `ADVANTAGES`: grpo, centered or leave_one_out."""
    batch_normalise: bool = True
    """Normalise the advantages once more, over the trained tokens of the batch."""
    credit: Credit = "trajectory"
    """trajectory: one advantage a rollout; token: the format term's only on structural tokens."""
    train_subagents: bool = True
    """Train the readings of the crops too, with the advantage of their main rollout."""
    loss: str = "decoupled"
    """Name in `LOSSES`: clipped, decoupled or likelihood (supervised)."""
    clip_low: float = 0.2
    """The ratio is clipped below at 1 - clip_low."""
    clip_high: float = 0.2
    """The ratio is clipped above at 1 + clip_high."""
    behaviour_cap: float = 5.0
    """decoupled: tokens whose pi_prox / pi_behave is above this are dropped."""
    aggregation: str = "token_mean"
    """Name in `AGGREGATIONS`: token_mean, sequence_mean or dr_grpo."""
    length_limit: int = 2048
    """dr_grpo: the constant number of tokens that a sequence's sum is divided by."""
    kl_coefficient: float = 0.01
    """Weight of the k3 divergence from the frozen starting policy; 0 loads no second copy."""
    learning_rate: float = 2e-6
    """Adam's step size after the warm-up; constant."""
    warmup_steps: int = 0
    """Optimizer steps over which the learning rate rises linearly."""
    adam_betas: tuple[float, float] = (0.9, 0.999)
    """Decay rates of Adam's first and second moments."""
    weight_decay: float = 0.01
    """Decoupled weight decay (AdamW)."""
    max_grad_norm: float = 1.0
    """Gradients are clipped to this global norm."""
    epochs: int = 1
    """Passes over one batch of rollouts."""
    minibatches: int = 1
    """Optimizer steps in one pass; groups are kept whole."""
    freeze_vision: bool = False
    """Leave the vision tower as it is."""
    micro_batch_tokens: int = 16384
    """Padded tokens of one forward and backward pass."""
    logit_chunk: int = 4096
    """Tokens whose vocabulary logits exist at the same time."""
    attention: str = "auto"
    """How packed trees attend: auto, split, dense or flex (`train/tree_attention.py`)."""

    def __post_init__(self) -> None:
        """Check names and ranges; a mistake is an error that says what is allowed."""
        tables: dict[str, Mapping[str, object]] = {
            "advantage": ADVANTAGES,
            "loss": LOSSES,
            "aggregation": AGGREGATIONS,
            "credit": dict.fromkeys(("trajectory", "token")),
            "attention": dict.fromkeys(("auto", "split", "dense", "flex")),
        }
        for field, table in tables.items():
            if getattr(self, field) not in table:
                raise ValueError(
                    f"algorithm.{field}={getattr(self, field)!r}: choose from {', '.join(table)}"
                )
        for field in (
            "groups",
            "epochs",
            "minibatches",
            "micro_batch_tokens",
            "logit_chunk",
            "length_limit",
        ):
            if getattr(self, field) < 1:
                raise ValueError(
                    f"algorithm.{field} must be at least 1, not {getattr(self, field)}"
                )
        if self.group_size < 2:
            raise ValueError(
                "algorithm.group_size must be at least 2: a group compares its members"
            )
        if self.minibatches > self.groups:
            raise ValueError("algorithm.minibatches cannot exceed algorithm.groups")
        if not 0 < self.clip_low < 1 or self.clip_high <= 0:
            raise ValueError(
                "algorithm.clip_low must be in (0, 1) and algorithm.clip_high positive"
            )
        for field in ("learning_rate", "max_grad_norm", "behaviour_cap"):
            if getattr(self, field) <= 0:
                raise ValueError(f"algorithm.{field} must be positive, not {getattr(self, field)}")
        for field in ("kl_coefficient", "weight_decay", "warmup_steps"):
            if getattr(self, field) < 0:
                raise ValueError(f"algorithm.{field} must not be negative: {getattr(self, field)}")

    @property
    def updates_per_batch(self) -> int:
        """Optimizer steps taken on one batch of rollouts."""
        return self.epochs * self.minibatches


class ScoredRollout(Protocol):
    """What the algorithm needs of a rollout (`train/rollout.py` has the rest)."""

    @property
    def reward(self) -> float:
        """The weighted sum of the terms."""

    @property
    def terms(self) -> Mapping[str, float]:
        """Unweighted value of each reward term."""

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
        reward_weights: The environment's weight of every reward term, by name.
        collect: Plays and returns groups of rollouts with one start each.
        update: Takes the credited batch, changes the weights and returns metrics.
    """

    def __init__(
        self,
        config: PARAGRPOConfig,
        reward_weights: Mapping[str, float],
        collect: Callable[[], Sequence[Sequence[R]]],
        update: Callable[[Batch], dict[str, float]],
    ) -> None:
        if config.credit == "token" and FORMAT_TERM not in reward_weights:
            raise ValueError(f"credit=token needs the reward term {FORMAT_TERM!r} in the preset")
        self.config = config
        self.reward_weights = reward_weights
        self.collect = collect
        self.update = update

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
        """
        config = self.config
        members = [(g, r) for g, group in enumerate(groups) for r in group if r.trajectories]
        groups_N = np.array([g for g, _ in members], dtype=np.int64)
        rewards_N = np.array([r.reward for _, r in members], dtype=np.float64)
        estimate = ADVANTAGES[config.advantage]
        if config.credit == "token":
            format_weight = self.reward_weights[FORMAT_TERM]
            format_N = np.array([r.terms[FORMAT_TERM] for _, r in members], dtype=np.float64)
            format_advantages_N = estimate(format_N, groups_N)
            main_advantages_N = estimate(rewards_N - format_weight * format_N, groups_N)
        else:
            format_weight = 0.0
            format_advantages_N = np.zeros_like(rewards_N)
            main_advantages_N = estimate(rewards_N, groups_N)

        batch = Batch([], [], [])
        for n, (group, rollout) in enumerate(members):
            for trajectory in rollout.trajectories:
                if trajectory.kind == "subagent" and not config.train_subagents:
                    continue
                batch.trajectories.append(trajectory)
                batch.groups.append(group)
                batch.advantages.append(
                    token_credit(
                        main_advantages_N[n],
                        format_advantages_N[n],
                        format_weight,
                        trajectory.roles == Role.tag,
                    )
                )
        advantages = batch.advantages
        if config.batch_normalise:
            advantages = normalise_batch(advantages, [t.loss_mask for t in batch.trajectories])
        batch.advantages[:] = [a.astype(np.float32) for a in advantages]
        live = {int(g) for g in groups_N}
        flat = zero_variance(rewards_N, groups_N)
        metrics = {
            "groups/collected": float(len(groups)),
            "groups/unreadable": float(len(groups) - len(live)),
            "groups/zero_variance": len({int(g) for g in groups_N[flat]}) / max(len(live), 1),
        }
        return batch, metrics


if __name__ == "__main__":
    import sys

    from train.cli import main

    sys.exit(main(["train", *sys.argv[1:]]))
