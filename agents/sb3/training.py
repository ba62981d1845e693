"""PPO of Stable-Baselines3 on the array wrappers: how the policy of `sb3_agent.py` is trained.

Environments that share one simulation, so that each frame is decoded once, then SB3's own PPO. Run
it with `python examples/sb3_ppo.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import numpy as np
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.policies import MultiInputActorCriticPolicy
from stable_baselines3.common.vec_env import DummyVecEnv, VecMonitor

from agents.sb3.agent import POLICY
from paravt_env.env import LongVideoEnv
from paravt_env.settings import EnvSettings
from paravt_env.wrappers.arrays import ArrayAction, ArrayCodec, ArrayObservation


@dataclass(frozen=True)
class SB3Config:
    """How PPO learns (arXiv 1707.06347); returns are undiscounted, episodes have few turns."""

    steps: int = 60_000
    """Turns that are played in all."""
    envs: int = 16
    """Environments that play side by side."""
    segments: int = 6
    """Equal parts of the video that a crop may be taken from."""
    options: int = 4
    """Answer letters."""
    horizon: int = 32
    """Turns of each environment between updates."""
    batch: int = 256
    """Turns of one gradient step."""
    epochs: int = 8
    """Passes over the turns of an update."""
    learning_rate: float = 2e-3
    """Of Adam; falls linearly to a tenth."""
    entropy: float = 0.01
    """Weight of the entropy bonus."""
    seed: int = 0
    """Of the weights, of sampling and of the environments."""


def training_envs(settings: EnvSettings, codec: ArrayCodec, config: SB3Config) -> DummyVecEnv:
    """Array environments that share one simulation, so that a frame is decoded once for all."""
    first = LongVideoEnv(**vars(settings))

    def maker(number: int) -> Callable[[], ArrayObservation]:
        shared = {**vars(settings), "tasks": first.simulation.tasks, "tasks_kwargs": None}
        env = LongVideoEnv(**shared) if number else first
        env.simulation = first.simulation
        return lambda: ArrayObservation(ArrayAction(env, config.segments, config.options), codec)

    return DummyVecEnv([maker(number) for number in range(config.envs)])


def predecode(envs: DummyVecEnv, segments: int) -> None:
    """Show every overview and every segment of every video once: later they are in memory."""
    env = envs.envs[0]
    simulation = cast(LongVideoEnv, env.unwrapped).simulation
    tasks = [simulation.tasks[i] for i in range(len(simulation.tasks))]
    for task_id in {task.video: task.id for task in tasks}.values():
        for segment in range(max(1, segments * bool(simulation.settings.max_turns))):
            env.reset(options={"task_id": task_id})
            env.step(np.array([1 + segment] + [0] * simulation.settings.max_crops))


def learn(
    settings: EnvSettings,
    codec: ArrayCodec,
    config: SB3Config,
    progress: Callable[[int, float], None] | None = None,
) -> PPO:
    """Train PPO on an environment's training split.

    Args:
        settings: The environment; `max_turns=0` trains the same network without crops.
        codec: Vocabulary of every split that will be played.
        config: How it learns.
        progress: Called after each update with the turns so far and the mean reward of the latest
            100 episodes.
    """
    envs = training_envs(settings, codec, config)
    try:
        predecode(envs, config.segments)
        model = PPO(
            MultiInputActorCriticPolicy,
            VecMonitor(envs),
            learning_rate=lambda left: config.learning_rate * max(left, 0.1),
            n_steps=config.horizon,
            batch_size=config.batch,
            n_epochs=config.epochs,
            gamma=1.0,
            gae_lambda=1.0,
            ent_coef=config.entropy,
            policy_kwargs=POLICY,
            seed=config.seed,
            device="cpu",
        )
        return model.learn(config.steps, callback=_Report(progress))
    finally:
        envs.close()


class _Report(BaseCallback):
    def __init__(self, progress: Callable[[int, float], None] | None) -> None:
        super().__init__()
        self.progress = progress

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        buffer = self.model.ep_info_buffer
        if self.progress is not None and buffer:
            mean = float(np.mean([episode["r"] for episode in buffer]))
            self.progress(self.num_timesteps, mean)
