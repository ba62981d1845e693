"""Other shapes of the environment: completion texts as actions, statistics of the reward terms.

Between an agent and `LongVideoEnv`. `CompletionAction`, and `LongVideoTextEnv` behind
`ParaVT-LongVideo-Text-v0`, make `env.step(text)` work; `RecordRewardTerms` is for users of
Gymnasium's `RecordEpisodeStatistics`. The wrappers for classic RL live in `arrays.py`, those that
write episodes to a folder in `recorders.py`; all of them can be imported from here. Run the tests
with `pytest tests/env/test_wrappers.py`.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector.utils import batch_space

from paravt_env.env import LongVideoEnv
from paravt_env.protocol import action_from_completion
from paravt_env.spaces import Action, Observation, UnicodeText, batch_actions
from paravt_env.vector import LongVideoVectorEnv
from paravt_env.wrappers.arrays import ArrayAction, ArrayCodec, ArrayObservation
from paravt_env.wrappers.recorders import RecordEpisodes, VectorRecordEpisodes

__all__ = [
    "ArrayAction",
    "ArrayCodec",
    "ArrayObservation",
    "CompletionAction",
    "LongVideoTextEnv",
    "RecordEpisodes",
    "RecordRewardTerms",
    "VectorCompletionAction",
    "VectorRecordEpisodes",
    "VectorRecordRewardTerms",
    "make_text_vector",
]


class CompletionAction(gym.ActionWrapper[Observation, str, Action]):
    """The action is a completion, the forced `<think>` prefix included."""

    def __init__(self, env: gym.Env[Observation, Action]) -> None:
        super().__init__(env)
        self._max_crops = _simulation(env).settings.max_crops
        if env.action_space != _simulation(env).action_space:
            raise ValueError("the action is not the environment's own: it may be a text already")
        self.action_space = UnicodeText()

    def action(self, action: str) -> Action:
        """Parse the text."""
        return action_from_completion(action, self._max_crops)


class VectorCompletionAction(gym.vector.VectorActionWrapper):
    """The action is a sequence with one completion a row; "" for a row that idles."""

    def __init__(self, env: LongVideoVectorEnv) -> None:
        super().__init__(env)
        self.single_action_space = UnicodeText()
        self.action_space = batch_space(self.single_action_space, env.num_envs)
        self._max_crops = _simulation(env).settings.max_crops

    def actions(self, actions: Sequence[str]) -> Action:
        """Parse every row's text.

        Raises:
            ValueError: Not one text a row; a row that idles takes "", never None.
        """
        listed = isinstance(actions, Sequence | np.ndarray) and not isinstance(actions, str)
        if not listed or len(actions) != self.num_envs:
            raise ValueError(
                f"the action is a sequence of {self.num_envs} texts, one a row; "
                'give "" to a row that idles'
            )
        return batch_actions(
            [action_from_completion(text, self._max_crops) for text in actions], self._max_crops
        )


class LongVideoTextEnv(LongVideoEnv):
    """`LongVideoEnv` whose action is a completion: `gym.make("ParaVT-LongVideo-Text-v0")`."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.action_space = UnicodeText()  # type: ignore[assignment]

    def step(  # type: ignore[override]
        self, action: str
    ) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Play one turn, given the text that a model wrote."""
        return super().step(action_from_completion(action, self.simulation.settings.max_crops))


def make_text_vector(num_envs: int = 1, **settings: Any) -> VectorCompletionAction:
    """The vector environment of `ParaVT-LongVideo-Text-v0`: a sequence with one text a row."""
    return VectorCompletionAction(LongVideoVectorEnv(num_envs, **settings))


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
    episodes that a judge could not score: they are in no term's queue.

    Args:
        env: The environment.
        buffer_length: Length of the queues.
        stats_key: Key of the statistics in `info`.
    """

    def __init__(self, env: gym.Env, buffer_length: int = 100, stats_key: str = "episode") -> None:
        super().__init__(env, buffer_length, stats_key)
        _simulation(env)
        self._terms = _TermQueues(buffer_length)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Step, and add the terms where the episode ended."""
        observation, reward, terminated, truncated, info = super().step(action)
        if terminated or truncated:
            info[self._stats_key] |= self._terms.add(info["reward_terms"])
        return observation, reward, terminated, truncated, info


class VectorRecordRewardTerms(_RewardTerms, gym.wrappers.vector.RecordEpisodeStatistics):
    """The same over a `LongVideoVectorEnv`: `infos["episode"]` holds an array (B,) for each term.

    An entry is NaN in rows that did not end in this step, and in those that ended without a score
    (a video that cannot be read, a judge that failed), which `unscored` counts.
    """

    def __init__(
        self, env: gym.vector.VectorEnv, buffer_length: int = 100, stats_key: str = "episode"
    ) -> None:
        super().__init__(env, buffer_length, stats_key)
        self._names = list(_simulation(env).preset.weights)
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


def _simulation(env: Any) -> Any:
    """The simulation under any wrappers.

    Raises:
        TypeError: There is none, as it is another environment.
    """
    if not isinstance(env.unwrapped, LongVideoEnv | LongVideoVectorEnv):
        raise TypeError(f"this wraps a LongVideoEnv, not a {type(env.unwrapped).__name__}")
    return env.unwrapped.simulation
