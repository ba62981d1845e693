"""The `selection` group of a recipe: what is trained of what was played.

Read by `train/rollout/selection.py` and `train/rollout/difficulty.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

from paravt_env.common.names import known_name
from paravt_env.episode.episode import StopReason
from train.config.checks import at_least

SCORED = tuple(map(str, (StopReason.answered, StopReason.unanswered, StopReason.turn_limit)))
"""Stop reasons of episodes that have a reward."""


@dataclass
class SelectionConfig:
    """What is trained of what was played (`train/rollout/selection.py`).

    The defaults train everything that could be scored.
    """

    oversample: float = 1.0
    """Groups played at a time, as a multiple of `algorithm.groups`."""
    rounds: int = 1
    """Times that groups are played for one batch, at most: again while groups are missing."""
    drop_zero_variance: bool = False
    """Leave out groups whose rewards are all equal."""
    rank_by_std: bool = False
    """Keep the groups with the largest standard deviation of the reward, not the first ones."""
    max_tokens: int = 0
    """Leave out rollouts whose main conversation has more tokens; 0 keeps all."""
    stop_reasons: tuple[str, ...] = SCORED
    """Leave out rollouts that ended in another way."""
    over_long_limit: int = 0
    """Sampled tokens of a rollout from which the over-long penalty is 1; 0 for no penalty."""
    over_long_buffer: int = 0
    """Tokens before that limit over which the penalty rises from 0."""
    over_long_weight: float = 1.0
    """Weight of the penalty in the reward."""
    prior_rollouts: int = 0
    """Rollouts of each task before training; tasks always or never solved are left out; 0: none."""
    prior_file: str = ""
    """JSON of measured pass rates (task id -> share), instead of measuring them."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        at_least(self, 1, "oversample", "rounds")
        at_least(self, 0, "max_tokens", "over_long_limit", "over_long_buffer", "over_long_weight")
        at_least(self, 0, "prior_rollouts")
        if self.over_long_buffer > self.over_long_limit:
            raise ValueError(
                f"SelectionConfig.over_long_buffer = {self.over_long_buffer} cannot exceed "
                f"over_long_limit = {self.over_long_limit}"
            )
        if self.rounds > 1 and not self.drop_zero_variance:
            raise ValueError("SelectionConfig.rounds > 1 needs drop_zero_variance=true")
        if not self.stop_reasons:
            raise ValueError("SelectionConfig.stop_reasons = (): no rollout would be kept")
        for reason in self.stop_reasons:
            known_name("SelectionConfig.stop_reasons", reason, SCORED)
