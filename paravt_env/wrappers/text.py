"""Completion texts as actions: `env.step(text)`, for the single and the vector environment.

Between an agent that writes text and `LongVideoEnv`, which takes its structure. `LongVideoTextEnv`
and `make_text_vector` stand behind `ParaVT-LongVideo-Text-v0`. Run the tests with `pytest
tests/wrappers/test_wrappers.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector.utils import batch_space

from paravt_env.env import LongVideoEnv
from paravt_env.protocol import action_from_completion
from paravt_env.settings import EnvSettings
from paravt_env.spaces import Action, Observation, UnicodeText, batch_actions
from paravt_env.vector import LongVideoVectorEnv
from paravt_env.wrappers.unwrapped import simulation_of


class CompletionAction(
    gym.ActionWrapper[Observation, str, Action], gym.utils.RecordConstructorArgs
):
    """The action is a completion, the forced `<think>` prefix included."""

    def __init__(self, env: gym.Env[Observation, Action]) -> None:
        gym.utils.RecordConstructorArgs.__init__(self)
        gym.ActionWrapper.__init__(self, env)
        self._how = _how(simulation_of(env).settings)
        if env.action_space != simulation_of(env).action_space:
            raise ValueError("the action is not the environment's own: it may be a text already")
        self.action_space = UnicodeText()

    def action(self, action: str) -> Action:
        """Parse the text."""
        return action_from_completion(action, *self._how)


class VectorCompletionAction(gym.vector.VectorActionWrapper):
    """The action is a sequence with one completion a row; "" for a row that idles."""

    def __init__(self, env: LongVideoVectorEnv) -> None:
        super().__init__(env)
        self.single_action_space = UnicodeText()
        self.action_space = batch_space(self.single_action_space, env.num_envs)
        self._how = _how(simulation_of(env).settings)

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
        parsed = [action_from_completion(text, *self._how) for text in actions]
        return batch_actions(parsed, self._how[0])


def _how(settings: EnvSettings) -> tuple[int, bool, bool, bool]:
    """How completions become actions: most crops of a turn, lenient or not, density, code."""
    code = settings.tool == "code"
    return settings.max_crops, settings.lenient_calls, settings.crop_density, code


class LongVideoTextEnv(LongVideoEnv):
    """`LongVideoEnv` whose action is a completion: `gym.make("ParaVT-LongVideo-Text-v0")`."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.action_space = UnicodeText()  # type: ignore[assignment]

    def step(  # type: ignore[override]
        self, action: str
    ) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Play one turn, given the text that a model wrote."""
        return super().step(action_from_completion(action, *_how(self.simulation.settings)))


def make_text_vector(num_envs: int = 1, **settings: Any) -> VectorCompletionAction:
    """The vector environment of `ParaVT-LongVideo-Text-v0`: a sequence with one text a row."""
    return VectorCompletionAction(LongVideoVectorEnv(num_envs, **settings))
