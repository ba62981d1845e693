"""The settings of PARA-GRPO and of the methods that differ from it by settings alone.

The `algorithm` group of a recipe, and nothing else than the algorithm; `credit.py` beside it and
the learner read it. `paravt train paragrpo_mini --print-config` prints it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Literal

from agents.algorithm.advantages import ADVANTAGES, Credit
from agents.algorithm.losses import AGGREGATIONS, LOSSES
from paravt_env.common.doors import is_door

DOORS = ("advantage", "loss", "aggregation")
"""Fields that may name a function of the user's."""


@dataclass
class PARAGRPOConfig:
    """Settings of the algorithm; the defaults are ParaVT's published ones."""

    groups: int = 7
    """Groups (starts) collected for one update."""
    group_size: int = 8
    """Rollouts that share one start."""
    advantage: str = "grpo"
    """grpo, centered, leave_one_out, decomposed, gated, counterfactual, or `file.py:function`."""
    batch_normalise: bool = True
    """Normalise the advantages once more, over the trained tokens of the batch."""
    credit: Credit = "trajectory"
    """trajectory: one advantage a rollout; token: the format term's only on structural tokens."""
    right_from: float = 0.5
    """gated: the answer value from which an answer counts as right."""
    shrinkage: float = 1.0
    """counterfactual: pairs of calling and skipping rollouts until half of a gain is believed."""
    train_subagents: bool = True
    """Train the readings of the crops too, with the advantage of their main rollout."""
    loss: str = "decoupled"
    """clipped, gspo, cispo, decoupled, tis, likelihood (supervised), or `file.py:function`."""
    clip_low: float = 0.2
    """The ratio is clipped below at 1 - clip_low."""
    clip_high: float = 0.2
    """The ratio is clipped above at 1 + clip_high."""
    behaviour_cap: float = 5.0
    """pi_prox / pi_behave above this: decoupled drops the token, tis truncates its weight."""
    ratio_cap: float = 5.0
    """cispo: the largest weight of a token."""
    aggregation: str = "token_mean"
    """token_mean, sequence_mean, dr_grpo, or `file.py:function`."""
    length_limit: int = 2048
    """dr_grpo: the constant that a sequence's sum over its tokens, of all turns, is divided by."""
    kl_coefficient: float = 0.01
    """Weight of the divergence from the frozen starting policy; 0 loads no second copy."""
    kl_in: Literal["loss", "reward"] = "loss"
    """loss: k3, a term of every token; reward: k1, whose sum over a rollout is taken off its
    advantage, beside the mean of its group and after every normalisation."""
    epochs: int = 1
    """Passes over one batch of rollouts."""
    minibatches: int = 1
    """Optimizer steps in one pass; groups are kept whole. No ratio leaves 1 in the first step of a
    batch, so that nothing is clipped where there is no other."""

    def __post_init__(self) -> None:
        """Check names and ranges; a mistake is an error that says what is allowed."""
        tables: dict[str, Mapping[str, object]] = {
            "advantage": ADVANTAGES,
            "loss": LOSSES,
            "aggregation": AGGREGATIONS,
            "credit": dict.fromkeys(("trajectory", "token")),
            "kl_in": dict.fromkeys(("loss", "reward")),
        }
        for field, table in tables.items():
            door = field in DOORS and is_door(getattr(self, field))
            if not door and getattr(self, field) not in table:
                raise ValueError(
                    f"algorithm.{field}={getattr(self, field)!r}: choose from {', '.join(table)}"
                )
        for name in (one.name for one in fields(self)):
            value = getattr(self, name)
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"algorithm.{name} must be finite, not {value}")
        for field in (
            "groups",
            "epochs",
            "minibatches",
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
        for field in ("behaviour_cap", "ratio_cap", "right_from"):
            if getattr(self, field) <= 0:
                raise ValueError(f"algorithm.{field} must be positive, not {getattr(self, field)}")
        for field in ("kl_coefficient", "shrinkage"):
            if getattr(self, field) < 0:
                raise ValueError(f"algorithm.{field} must not be negative: {getattr(self, field)}")

        if self.right_from > 1:
            raise ValueError(
                f"algorithm.right_from must be at most 1, which a right answer is worth: "
                f"{self.right_from}"
            )

    @property
    def updates_per_batch(self) -> int:
        """Optimizer steps taken on one batch of rollouts."""
        return self.epochs * self.minibatches

    @property
    def kl_in_reward(self) -> bool:
        """Whether the divergence from the reference is taken off the reward."""
        return self.kl_in == "reward" and self.kl_coefficient > 0
