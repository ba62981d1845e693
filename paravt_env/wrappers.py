"""Other shapes of the environment: completion texts as actions, and only arrays for classic RL.

Between an agent and `LongVideoEnv`. `CompletionAction` (and `VectorCompletionAction`) make
`env.step(text)` work; `ArrayObservation(ArrayAction(env))` is what libraries such as
Stable-Baselines3 accept. Run the tests with `pytest tests/test_wrappers.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.vector.utils import batch_space

from paravt_env.env import LongVideoEnv
from paravt_env.protocol import action_from_completion
from paravt_env.spaces import Action, Observation, UnicodeText, batch_actions, empty_action
from paravt_env.task import OPTION_LETTERS
from paravt_env.vector import LongVideoVectorEnv


class CompletionAction(gym.ActionWrapper[Observation, str, Action]):
    """The action is a completion, the forced `<think>` prefix included."""

    def __init__(self, env: gym.Env[Observation, Action]) -> None:
        super().__init__(env)
        self.action_space = UnicodeText()
        self._max_crops = _simulation(env).settings.max_crops

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
        """Parse every row's text."""
        return batch_actions(
            [action_from_completion(text, self._max_crops) if text else None for text in actions],
            self._max_crops,
        )


class ArrayAction(gym.ActionWrapper[Observation, np.ndarray, Action]):
    """A `MultiDiscrete` action: P choices of a segment of the video, then the letter of the answer.

    The video is cut into `segments` equal parts; entry i < P is 0 for no call, else 1 + the part to
    crop (its middle, where the part is longer than a crop may be). The last entry is 0 for no
    answer, else 1 + the option. For mcq task sets.

    Args:
        env: The environment.
        segments: Parts that the video is cut into.
        options: Answer letters, ten at most.
    """

    def __init__(
        self,
        env: gym.Env[Observation, Action],
        segments: int = 32,
        options: int = len(OPTION_LETTERS),
    ) -> None:
        super().__init__(env)
        if segments < 1 or not 1 <= options <= len(OPTION_LETTERS):
            raise ValueError(
                f"segments must be at least 1 and options 1 to {len(OPTION_LETTERS)}, "
                f"not {segments} and {options}"
            )
        self._settings = _simulation(env).settings
        self.segments = segments
        self.action_space = spaces.MultiDiscrete(
            [segments + 1] * self._settings.max_crops + [options + 1]
        )
        self._duration = 0.0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Reset, and remember how long the video is."""
        observation, info = self.env.reset(seed=seed, options=options)
        self._duration = float(observation["video"]["duration"])
        return observation, info

    def action(self, action: np.ndarray) -> Action:
        """Segments to windows in seconds, the last entry to a letter."""
        *parts, letter = (int(entry) for entry in action)
        full = empty_action(self._settings.max_crops)
        length = self._duration / self.segments
        half = min(length, self._settings.max_crop_seconds) / 2
        for row, part in enumerate(part for part in parts if part):
            middle = (part - 0.5) * length
            full["crops"][row] = middle - half, middle + half
            full["crop_mask"][row] = 1
        full["answer"] = OPTION_LETTERS[letter - 1] if letter else ""
        return full


class ArrayObservation(gym.ObservationWrapper[dict[str, np.ndarray], Any, Observation]):
    """A flat `Dict` of arrays: no text; the question is its family and its options, one-hot.

    Adds `family` (one of the task set's question families) and `options` (10 * V,), for each letter
    one of the V option texts of the task set; drops `question` and `feedback`; `video` becomes four
    arrays of shape (1,). What the question says beyond its family is lost: this is for classic RL
    baselines, not for reading.

    Frames are stacked along the height, uint8 (F * H, W, 3), because image libraries take one
    picture.
    """

    def __init__(self, env: gym.Env[Observation, Any]) -> None:
        super().__init__(env)
        tasks = [_simulation(env).tasks[i] for i in range(len(_simulation(env).tasks))]
        self.families = tuple(sorted({task.family for task in tasks}))
        self.option_texts = tuple(sorted({text for task in tasks for text in task.options}))
        inner = _simulation(env).observation_space
        count, height, width, _ = inner["frames"].shape
        self._vocabulary = max(1, len(self.option_texts))
        self.observation_space = spaces.Dict(  # type: ignore[assignment]
            {
                "frames": spaces.Box(0, 255, (count * height, width, 3), np.uint8),
                "family": spaces.Box(0, 1, (len(self.families),), np.int8),
                "options": spaces.Box(0, 1, (len(OPTION_LETTERS) * self._vocabulary,), np.int8),
                **{
                    key: inner[key]
                    for key in ("timestamps", "window", "crop_status", "turn", "must_answer")
                },
                **{
                    key: spaces.Box(0, np.inf, (1,), np.float32)
                    for key in ("duration", "fps", "width", "height")
                },
            }
        )

    def observation(self, observation: Observation) -> dict[str, np.ndarray]:
        """Arrays only."""
        task = _long_video(self.env).task
        family = np.zeros(len(self.families), np.int8)
        family[self.families.index(task.family)] = 1
        options = np.zeros((len(OPTION_LETTERS), self._vocabulary), np.int8)
        for row, text in enumerate(task.options):
            options[row, self.option_texts.index(text)] = 1
        kept = {
            key: observation[key]
            for key in ("timestamps", "window", "crop_status", "turn", "must_answer")
        }
        numbers = {
            key: np.array([value], np.float32) for key, value in observation["video"].items()
        }
        frames = observation["frames"]
        return {
            "frames": frames.reshape(-1, *frames.shape[2:]),
            "family": family,
            "options": options.ravel(),
            **kept,
            **numbers,
        }


def _simulation(env: Any) -> Any:
    """The simulation under any wrappers."""
    return env.unwrapped.simulation


def _long_video(env: gym.Env) -> LongVideoEnv:
    unwrapped = env.unwrapped
    if not isinstance(unwrapped, LongVideoEnv):
        raise TypeError(f"ArrayObservation wraps a LongVideoEnv, not {type(unwrapped).__name__}")
    return unwrapped
