"""Rollout selection: which of the groups that were played are worth an update, and why not.

Stands between playing and the advantages: collect -> select -> advantages -> update. The published
ways of selecting are settings (`SelectionConfig` in `train/config/run.py`):

- dynamic sampling (DAPO, arXiv 2503.14476): `drop_zero_variance` and several `rounds`;
- oversample, filter, rank (PyVision-RL, arXiv 2602.20739): `oversample` above 1, `max_tokens`,
  `drop_zero_variance`, `rank_by_std`;
- soft over-long penalty (DAPO): `over_long_limit` and `over_long_buffer`;
- difficulty by prior pass rate (LongVILA-R1, arXiv 2507.07966): `prior_rollouts`, once a run and
  before it plays (`train/rollout/difficulty.py`).

Single rollouts are left out first, so that a group's standard deviation counts only members that
are trained; from there on groups are kept or left out whole. Every group and rollout that was
played is counted as kept or under its reason.

Command: `pytest tests/rollout/test_selection.py`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from agents.algorithm.advantages import ZERO_VARIANCE
from train.config.selection import SelectionConfig
from train.rollout.play import Rollout

Group = list[Rollout]
OVER_LONG = "over_long"
"""The reward term that the over-long penalty adds."""
REASONS = (
    "groups_dropped/empty",
    "groups_dropped/zero_variance",
    "groups_dropped/surplus",
    "rollouts_dropped/error",
    "rollouts_dropped/stop_reason",
    "rollouts_dropped/over_long",
)
"""Why groups and, within groups, rollouts are left out; each is counted in every step."""


@dataclass(frozen=True)
class Selected:
    """What was played for one batch and what of it is trained."""

    played: list[Group]
    """Every group, whole: what accuracy and the like are measured on."""
    kept: list[Group]
    """The groups of the update, without the rollouts that were left out."""
    metrics: dict[str, float]
    """How many were played and kept, and how many were left out for which reason."""


class Selection:
    """Gathers the groups of one update: what was played goes in until nothing is missing.

    Args:
        settings: What is left out, and in which order the rest is kept.
        groups: Groups of one update; fewer are kept where too few were usable
            (`selection/groups_missing`).
    """

    def __init__(self, settings: SelectionConfig, groups: int) -> None:
        self.settings, self.groups = settings, groups
        self._played: list[Group] = []
        self._usable: list[Group] = []
        self._left_out: Counter[str] = Counter()
        self._rounds = 0

    @property
    def wanted(self) -> int:
        """Groups to play next; 0 when there is a batch, or the rounds are used up."""
        if self._rounds >= self.settings.rounds or len(self._usable) >= self.groups:
            return 0
        return math.ceil(self.settings.oversample * self.groups)

    def add(self, groups: Sequence[Group]) -> None:
        """Take what a round has played."""
        self._rounds += 1
        for group in groups:
            scored = [penalised(rollout, self.settings) for rollout in group]
            reasons = [rollout_reason(rollout, self.settings) for rollout in group]
            members = [r for r, reason in zip(scored, reasons, strict=True) if not reason]
            why = group_reason(members, self.settings)
            self._played.append(scored)
            self._left_out.update(f"rollouts_dropped/{reason}" for reason in reasons if reason)
            if why:
                self._left_out.update([f"groups_dropped/{why}"])
            else:
                self._usable.append(members)

    def selected(self) -> Selected:
        """The groups of the update, and the counts of all that was played."""
        usable = list(self._usable)
        if self.settings.rank_by_std:
            usable.sort(key=reward_std, reverse=True)
        kept = usable[: self.groups]
        left_out = self._left_out + Counter({"groups_dropped/surplus": len(usable) - len(kept)})
        counts = {
            "rounds": self._rounds,
            "groups_played": len(self._played),
            "groups_kept": len(kept),
            "groups_missing": self.groups - len(kept),
            "rollouts_played": sum(map(len, self._played)),
            "rollouts_kept": sum(map(len, kept)),
            **{reason: left_out[reason] for reason in REASONS},
        }
        metrics = {f"selection/{name}": float(n) for name, n in counts.items()}
        return Selected(self._played, kept, metrics)


def rollout_reason(rollout: Rollout, settings: SelectionConfig) -> str:
    """Why a rollout is left out of its group, "" where it is kept."""
    if rollout.error:
        return "error"
    if rollout.stop_reason not in settings.stop_reasons:
        return "stop_reason"
    too_long = settings.max_tokens and any(
        len(one) > settings.max_tokens for one in rollout.trajectories if one.kind == "main"
    )
    return "over_long" if too_long else ""


def group_reason(members: Sequence[Rollout], settings: SelectionConfig) -> str:
    """Why a group is left out, judged by the members that are left; "" where it may be kept."""
    if not members:
        return "empty"
    flat = reward_std(members) <= ZERO_VARIANCE
    return "zero_variance" if flat and settings.drop_zero_variance else ""


def reward_std(members: Sequence[Rollout]) -> float:
    """Population standard deviation of the rewards; 0 of nothing."""
    return float(np.std([rollout.reward for rollout in members])) if members else 0.0


def reward_weights(settings: SelectionConfig) -> dict[str, float]:
    """Weights of the reward terms that selection adds."""
    return {OVER_LONG: settings.over_long_weight} if settings.over_long_limit else {}


def over_long_penalty(length: int, limit: int, buffer: int) -> float:
    """0 up to `limit - buffer` tokens, then falling linearly to -1 at `limit` (DAPO).

    >>> [over_long_penalty(length, limit=10, buffer=4) for length in (6, 7, 9, 10, 11)]
    [0.0, -0.25, -0.75, -1.0, -1.0]
    """
    if length <= limit - buffer:
        return 0.0
    return max(-1.0, (limit - buffer - length) / buffer) if buffer else -1.0


def penalised(rollout: Rollout, settings: SelectionConfig) -> Rollout:
    """The rollout with the over-long penalty in its reward and its terms, if there is one."""
    if not settings.over_long_limit or not rollout.terms:
        return rollout
    length = sum(int(one.loss_mask.sum()) for one in rollout.trajectories if one.kind == "main")
    penalty = over_long_penalty(length, settings.over_long_limit, settings.over_long_buffer)
    reward = rollout.reward + settings.over_long_weight * penalty
    terms = {**rollout.terms, OVER_LONG: penalty, "total": reward}
    return replace(rollout, reward=reward, terms=terms)
