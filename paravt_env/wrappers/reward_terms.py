"""Statistics of the reward terms beside those of the return, for the single and the vector one.

In the place of Gymnasium's `RecordEpisodeStatistics`, at the end of the journey: what
`info["reward_terms"]` said of each finished episode is kept by term. Run the tests with `pytest
tests/wrappers/test_wrappers.py`.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np

from paravt_env.wrappers.unwrapped import simulation_of


class _TermQueues:
    """The latest values of each reward term, and how many episodes had none."""

    def __init__(self, length: int) -> None:
        self.length = length
        self.queues: dict[str, deque[float]] = {}
        self.unscored = 0

    def add(self, terms: Mapping[str, Any]) -> dict[str, float]:
        """Keep the terms of one finished episode (none, or NaN: unscored); returns them."""
        values = {name: float(value) for name, value in terms.items() if name != "total"}
        if not values or any(math.isnan(value) for value in values.values()):
            self.unscored += 1
            return values
        for name, value in values.items():
            self.queues.setdefault(name, deque(maxlen=self.length)).append(value)
        return values


class _RewardTerms:
    """What both wrappers tell of the terms that they kept."""

    _terms: _TermQueues

    @property
    def term_queues(self) -> dict[str, deque[float]]:
        """The latest values of each term."""
        return self._terms.queues

    @property
    def unscored(self) -> int:
        """Episodes without a score."""
        return self._terms.unscored


class RecordRewardTerms(_RewardTerms, gym.wrappers.RecordEpisodeStatistics):
    """Gymnasium's `RecordEpisodeStatistics` with every reward term beside the return.

    Use it in its place. At the end of an episode `info["episode"]` holds, besides `r`, `l` and `t`,
    the unweighted value of each term that the reward uses; their weighted sum is `r`. `term_queues`
    keeps the latest values by term, as `return_queue` does for returns. `unscored` counts
    episodes without a score, which a judge could not give or a wrapper (`TimeLimit`) cut short:
    they are in no term's queue, and the latter have no term in `info["episode"]`.

    Args:
        env: The environment.
        buffer_length: Length of the queues.
        stats_key: Key of the statistics in `info`.
    """

    def __init__(self, env: gym.Env, buffer_length: int = 100, stats_key: str = "episode") -> None:
        super().__init__(env, buffer_length, stats_key)
        simulation_of(env)
        self._terms = _TermQueues(buffer_length)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Step, and add the terms where the episode ended."""
        observation, reward, terminated, truncated, info = super().step(action)
        if terminated or truncated:
            info[self._stats_key] |= self._terms.add(info.get("reward_terms", {}))
        return observation, reward, terminated, truncated, info


class VectorRecordRewardTerms(_RewardTerms, gym.wrappers.vector.RecordEpisodeStatistics):
    """The same over a `LongVideoVectorEnv`: `infos["episode"]` holds an array (B,) for each term.

    An entry is NaN in rows that did not end in this step, and in those that ended without a score,
    which `unscored` counts: a video that cannot be read, a judge that failed, `max_episode_steps`.
    """

    def __init__(
        self, env: gym.vector.VectorEnv, buffer_length: int = 100, stats_key: str = "episode"
    ) -> None:
        super().__init__(env, buffer_length, stats_key)
        self._names = list(simulation_of(env).preset.weights)
        self._terms = _TermQueues(buffer_length)

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Step, and add the terms of the rows that ended."""
        observations, rewards, terminated, truncated, infos = super().step(actions)
        ended = np.flatnonzero(terminated | truncated)
        if len(ended):
            statistics = infos[self._stats_key]
            statistics |= {name: np.full(self.num_envs, np.nan) for name in self._names}
            for row in ended.tolist():
                scored = infos.get("_reward_terms", np.zeros(self.num_envs, bool))[row]
                terms = {name: infos["reward_terms"][name][row] for name in self._names if scored}
                for name, value in self._terms.add(terms).items():
                    statistics[name][row] = value
        return observations, rewards, terminated, truncated, infos
