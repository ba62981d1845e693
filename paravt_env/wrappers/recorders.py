"""Wrappers that record every episode to a folder, for the single and the vector environment.

They go below `ArrayObservation`, where observations are still those of `LongVideoEnv`; what the
folder holds is said in `show/recording.py`. Run the tests with `pytest
tests/show/test_recording.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np

from paravt_env.env import LongVideoEnv
from paravt_env.episode.overview import TaskVideoError
from paravt_env.rewards import Turn
from paravt_env.show.recording import EpisodeWriter
from paravt_env.spaces import Observation, unbatch
from paravt_env.vector import LongVideoVectorEnv


class RecordEpisodes(gym.Wrapper, gym.utils.RecordConstructorArgs):
    """Records the episodes of a `LongVideoEnv`.

    Args:
        env: The environment; observations must still be its own.
        folder: Where to write.
        image: See `EpisodeWriter`.
    """

    def __init__(self, env: gym.Env, folder: str, image: str = "png") -> None:
        gym.utils.RecordConstructorArgs.__init__(self, folder=str(folder), image=image)
        gym.Wrapper.__init__(self, env)
        _check(env, LongVideoEnv, env.observation_space)
        self.writer = EpisodeWriter(folder, image)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start an episode; one whose video cannot be read is recorded before it is raised."""
        try:
            observation, info = self.env.reset(seed=seed, options=options)
        except TaskVideoError as error:
            task = self._env.simulation.tasks.by_id(error.task_id)
            failed = {"frame_budget": None, "stop_reason": "video_error", "error": str(error)}
            self.writer.start(0, task, failed, None)
            raise
        self.writer.start(0, self._env.task, info, observation)
        return observation, info

    def step(self, action: Any) -> tuple[Observation, Any, bool, bool, dict[str, Any]]:
        """Play a turn and record it."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        said = self._env.transcript.turns[-1]
        result = observation, float(reward), terminated or truncated
        self.writer.turn(0, said, _answer(said, action, info), result, info)
        return observation, reward, terminated, truncated, info

    def close(self) -> None:
        """Write what is unfinished and close the environment."""
        self.writer.close()
        super().close()

    @property
    def _env(self) -> LongVideoEnv:
        return self.env.unwrapped  # type: ignore[return-value]


class VectorRecordEpisodes(gym.vector.VectorWrapper):
    """Records the episodes of every row of a `LongVideoVectorEnv`.

    Args:
        env: The vector environment; observations must still be its own.
        folder: Where to write.
        image: See `EpisodeWriter`.
    """

    def __init__(self, env: gym.vector.VectorEnv, folder: str, image: str = "png") -> None:
        super().__init__(env)
        _check(env, LongVideoVectorEnv, env.single_observation_space)
        self.writer = EpisodeWriter(folder, image)

    def reset(
        self, *, seed: Any = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start an episode in every row, or in those of the mask."""
        observations, infos = self.env.reset(seed=seed, options=options)
        for row in np.flatnonzero(infos["_task_id"]).tolist():
            info = unbatch(infos, row)
            shown = None if "error" in info else self._shown(observations, row)
            self.writer.start(row, self._env.task_of(row), info, shown)
        return observations, infos

    def step(self, actions: Any) -> tuple[Observation, Any, Any, Any, dict[str, Any]]:
        """Play a turn of every running row and record it."""
        running = np.flatnonzero(~self._env.idle).tolist()
        observations, rewards, terminated, truncated, infos = self.env.step(actions)
        for row in running:
            info = unbatch(infos, row)
            said = self._env.transcript_of(row).turns[-1]
            answers = {"answer": actions["answer"][row]} if isinstance(actions, Mapping) else None
            ended = bool(terminated[row] or truncated[row])
            result = self._shown(observations, row), float(rewards[row]), ended
            self.writer.turn(row, said, _answer(said, answers, info), result, info)
        return observations, rewards, terminated, truncated, infos

    def close(self, **kwargs: Any) -> None:
        """Write what is unfinished and close the environment."""
        self.writer.close()
        super().close(**kwargs)

    @property
    def _env(self) -> LongVideoVectorEnv:
        return self.env.unwrapped  # type: ignore[return-value]

    def _shown(self, observations: Observation, row: int) -> Observation:
        return unbatch(observations, row, self._env.single_observation_space)


def _check(env: Any, kind: type, space: gym.Space) -> None:
    if not issubclass(type(env.unwrapped), kind):
        raise TypeError(f"this records a {kind.__name__}, not a {type(env.unwrapped).__name__}")
    if space != env.unwrapped.simulation.observation_space:
        raise ValueError(
            "this records the observations of the environment itself: put it under wrappers that "
            "change them, as in ArrayObservation(RecordEpisodes(env, folder))"
        )


def _answer(said: Turn, action: Any, info: Mapping[str, Any]) -> str:
    if said.parsed is not None:
        return said.parsed.answer
    return str(action["answer"] if isinstance(action, Mapping) else info.get("answer", ""))
