"""`LongVideoVectorEnv`: many rows of one simulation, each bit by bit as a single environment.

What a batch adds: the overviews of all rows that reset and the crops of all rows of a step go to
one decode pool, and rows that ask for the same frames (a group) share one decode. Make one with
`gym.make_vec("paravt_env:ParaVT-LongVideo-v0", num_envs=8)`; run its tests with `pytest
tests/env/test_vector.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space

from paravt_env.common.names import known_name
from paravt_env.episode.episode import Episode
from paravt_env.episode.reset_options import RESET_OPTIONS, per_row, rows_of, seeds_of
from paravt_env.episode.simulation import Failure, Simulation, redrawn
from paravt_env.rewards import Transcript
from paravt_env.settings import make_settings
from paravt_env.show.render import RENDER_MODES, render_row
from paravt_env.spaces import Action, Observation, check_batch, unbatch, with_density
from paravt_env.task import Task, TaskSet


class LongVideoVectorEnv(gym.vector.VectorEnv[Observation, Action, np.ndarray]):
    """`LongVideoEnv` in `num_envs` rows, without automatic resets.

    Spaces, turns and rewards are those of `LongVideoEnv`, batched by Gymnasium's rules (text
    becomes a tuple of strings). `terminated` or `truncated` of a row is true once; then the row
    idles (zero observation, reward 0, its action is ignored, no info) until a reset that includes
    it. Before its first reset every row idles.

    A row whose video cannot be read does not raise: it is finished by its reset, which gives
    `info["stop_reason"]` `video_error` and `info["error"]`. Its next step returns `truncated` once,
    with reward 0 and without `reward_terms`, so that a loop that waits for every row ends; it is
    counted and never scored. With `on_video_error="redraw"` such a row draws another task.

    Each row has its own generator, as in a single environment. A group shares its start through
    equal seeds (`reset(seed=[7] * 8)`) or through options.

    Args:
        num_envs: Rows (B).
        tasks: As for `LongVideoEnv`.
        render_mode: As for `LongVideoEnv`; `render` gives a tuple with one entry a row.
        max_episode_steps: Rows that have taken as many turns are truncated, unscored, as the
            wrapper `TimeLimit` does of a single environment. The environment ends every episode by
            itself: see `max_turns`.
        **settings: As for `LongVideoEnv`.
    """

    metadata = {  # noqa: RUF012
        "render_modes": list(RENDER_MODES),
        "render_fps": 1,
        "autoreset_mode": AutoresetMode.DISABLED,
    }

    def __init__(
        self,
        num_envs: int = 1,
        tasks: str | TaskSet = "synthetic",
        *,
        render_mode: str | None = None,
        max_episode_steps: int | None = None,
        **settings: Any,
    ) -> None:
        if max_episode_steps is not None and max_episode_steps < 1:
            raise ValueError(f"max_episode_steps must be at least 1, not {max_episode_steps!r}")
        self.max_episode_steps = max_episode_steps
        if isinstance(num_envs, bool) or not isinstance(num_envs, int) or num_envs < 1:
            raise ValueError(f"num_envs must be a whole number of at least 1, not {num_envs!r}")
        self.simulation = Simulation(make_settings({"tasks": tasks, **settings}))
        self.num_envs = num_envs
        self.single_observation_space = self.simulation.observation_space
        self.single_action_space = self.simulation.action_space
        if render_mode is not None:
            known_name("render_mode", render_mode, RENDER_MODES)
        self.render_mode = render_mode
        self._generators: list[np.random.Generator | None] = [None] * num_envs
        self._rows: list[Episode | Failure | None] = [None] * num_envs
        self._idle = np.ones(num_envs, bool)
        self._failed = np.zeros(num_envs, bool)  # failed resets that no step has reported yet

    @property  # type: ignore[misc]
    def np_random(self) -> tuple[np.random.Generator, ...]:  # type: ignore[override]
        """The generator of each row; one that was never seeded is made from fresh entropy."""
        return tuple(self._generator(row) for row in range(self.num_envs))

    # Made when they are asked for: bounds of every pixel of all rows take longer than a reset.
    @cached_property
    def observation_space(self) -> gym.Space[Any]:  # type: ignore[override]
        """`single_observation_space` of all rows."""
        return batch_space(self.single_observation_space, self.num_envs)

    @cached_property
    def action_space(self) -> gym.Space[Any]:  # type: ignore[override]
        """`single_action_space` of all rows."""
        return batch_space(self.single_action_space, self.num_envs)

    @property
    def idle(self) -> np.ndarray:
        """Bool (B,): rows that are finished, or were never reset."""
        return self._idle.copy()

    def task_of(self, row: int) -> Task:
        """The task of a row; privileged (it holds the gold answer)."""
        state = self._started(row)
        return state.start.task if isinstance(state, Failure) else state.task

    def transcript_of(self, row: int) -> Transcript:
        """What was said and executed in the latest episode of a row; a failed reset has none."""
        state = self._started(row)
        if isinstance(state, Failure):
            raise state.error
        return state.transcript

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Observation, dict[str, Any]]:
        """Start an episode in every row, or in the rows of a mask.

        Args:
            seed: One seed a row (None continues the row's generator), or s for s, s + 1, ...
            options: `reset_mask` bool (B,); `task_id` and `frame_budget`, one for all rows or a
                sequence with one (or None) for each.

        Returns:
            The observation of all rows (rows outside the mask show what they showed before;
            finished ones show zeros) and the info of the rows that started.

        Raises:
            ValueError: An option that does not exist, or one of the wrong length, type or range; no
                row has started then.
        """
        options = dict(options or {})
        for name in options:
            known_name("reset option", name, ("reset_mask", *RESET_OPTIONS))
        mask = rows_of(options.get("reset_mask"), self.num_envs)
        seeds = seeds_of(seed, self.num_envs)
        tasks, budgets = (per_row(name, options.get(name), self.num_envs) for name in RESET_OPTIONS)
        chosen = np.flatnonzero(mask).tolist()
        generators = {
            row: self._generator(row) if seeds[row] is None else seeding.np_random(seeds[row])[0]
            for row in chosen
        }
        begun = self.simulation.begin(
            [generators[row] for row in chosen],
            [tasks[row] for row in chosen],
            [budgets[row] for row in chosen],
        )
        infos: dict[str, Any] = {}
        for row, (state, passed) in zip(chosen, begun, strict=True):
            self._generators[row] = generators[row]
            self._rows[row] = state
            self._idle[row] = isinstance(state, Failure)
            infos = self._add_info(infos, state.info() | redrawn(passed), row)
        self._failed[mask] = self._idle[mask]
        return self._observe(np.flatnonzero(~self._idle)), infos

    def step(
        self, actions: Action
    ) -> tuple[Observation, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Play one turn of every row that runs; see `spaces.batch_actions` for building the action.

        Returns:
            Observation, reward float64 (B,), terminated bool (B,), truncated bool (B,), and the
            info of the rows that ran.

        Raises:
            ValueError: The action of a running row is of the wrong shape or contradicts its
                completion; no row has moved.
        """
        running = np.flatnonzero(~self._idle).tolist()
        check_batch(actions, self.num_envs)
        space = self.single_action_space
        given = with_density(actions, self.simulation.action_space, self.num_envs)
        steps = self.simulation.step(
            {row: self._episode(row) for row in running},
            {row: unbatch(given, row, space) for row in running},
        )
        rewards = np.zeros(self.num_envs)
        terminated = np.zeros(self.num_envs, bool)
        truncated = self._failed.copy()
        infos: dict[str, Any] = {}
        for row, step in steps.items():
            rewards[row], terminated[row], truncated[row] = (
                step.reward,
                step.terminated,
                step.truncated or self._over_limit(row),
            )
            infos = self._add_info(infos, step.info, row)
        for row in np.flatnonzero(self._failed).tolist():
            infos = self._add_info(infos, self._started(row).info(), row)
        self._failed[:] = False
        observation = self._observe(running)
        self._idle |= terminated | truncated
        return observation, rewards, terminated, truncated, infos

    def _over_limit(self, row: int) -> bool:
        """Whether a row has taken the turns of `max_episode_steps`."""
        limit = self.max_episode_steps
        return limit is not None and self._episode(row).turn >= limit

    def render(self) -> tuple[Any, ...] | None:
        """Each row's observation as an image or as text; an idle row shows zeros."""
        if self.render_mode is None:
            return None
        batch = self._observe(np.flatnonzero(~self._idle))
        space = self.single_observation_space
        return tuple(
            render_row(self.render_mode, unbatch(batch, row, space)) for row in range(self.num_envs)
        )

    def close_extras(self, **kwargs: Any) -> None:
        """Stop the decoding threads."""
        self.simulation.close()

    def _observe(self, rows: Sequence[int] | np.ndarray) -> Observation:
        shown = set(map(int, rows))
        return self.simulation.observe(
            [self._episode(row) if row in shown else None for row in range(self.num_envs)]
        )

    def _generator(self, row: int) -> np.random.Generator:
        generator = self._generators[row]
        if generator is None:
            generator = self._generators[row] = seeding.np_random()[0]
        return generator

    def _started(self, row: int) -> Episode | Failure:
        state = self._rows[row]
        if state is None:
            raise RuntimeError(f"row {row} has no episode: reset it first")
        return state

    def _episode(self, row: int) -> Episode:
        state = self._started(row)
        assert isinstance(state, Episode)
        return state
