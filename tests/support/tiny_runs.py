"""Training runs of a few tokens: their settings, two clips, a random model, rewards that vary."""

import os
from dataclasses import replace
from pathlib import Path

import torch
from support.builders import SIZE, make_task, write_manifest

from agents.algorithm.config import PARAGRPOConfig
from agents.config import AgentConfig
from agents.model.mini import MiniConfig, build_mini
from train.config.env import EnvConfig
from train.config.learner import OptimizerConfig
from train.config.run import RunConfig, TrainConfig
from train.loop import launch
from train.rollout import play as rollout
from train.workers import lanes, rollout_workers

SHAPE = MiniConfig(
    hidden_size=48, layers=2, heads=4, intermediate_size=64, vision_hidden_size=32, vision_layers=1,
    vision_heads=2, vision_intermediate_size=48, patch_size=8, vocabulary=280,
)  # fmt: skip


def tiny_settings(folder: Path, clips: tuple[str, str], shape: MiniConfig) -> TrainConfig:
    """Settings in a folder, into which the clips are linked and a model of that shape is written.

    Args:
        folder: Empty.
        clips: Files that `conftest` made.
        shape: Of the random model.
    """
    first, second = clips
    tasks = [make_task(first), make_task(second, "shape", question="Which shape is it?")]
    for path in clips:
        os.link(path, folder / os.path.basename(path))
    model = build_mini(folder / "tiny", ["crop the video"] * 3, shape)
    return TrainConfig(
        env=EnvConfig(
            tasks=write_manifest(folder / "tasks.jsonl", tasks), frame_size=SIZE,
            max_turns=1, max_crops=2, frames_per_crop=2, frame_budget=1,
        ),
        agent=AgentConfig(
            checkpoint=str(model), prompt_style="compact", temperature=1.0, max_new_tokens=6,
            answer_tokens=4, subagent_tokens=4,
        ),
        algorithm=PARAGRPOConfig(kl_coefficient=0.01),
        optimizer=OptimizerConfig(learning_rate=1e-3),
        run=RunConfig(folder=str(folder / "runs"), wandb="disabled"),
    )  # fmt: skip


def with_run(config: TrainConfig, name: str, **run: object) -> TrainConfig:
    """The settings under another name, with some of the run's replaced."""
    return replace(config, run=replace(config.run, name=name, **run))


def varied(env, agent, starts, progress=None):
    """A random policy earns nothing; a reward made of its text gives every group a variance."""
    rollouts = rollout.play(env, agent, starts, progress)
    texts = ["".join(turn["completion"] for turn in one.turns) for one in rollouts]
    rewards = [float(sum(map(ord, text)) % 101) for text in texts]
    return [replace(one, reward=r) for one, r in zip(rollouts, rewards, strict=True)]


def process(config):
    """One process of a job: whom it plays with, and the policy that it is left with."""
    torch.set_num_threads(1)
    played = []

    def play(env, agent, *args):
        played.append(type(agent).__name__)
        return varied(env, agent, *args)

    rollout_workers.play = lanes.play = play
    return played, launch.train(config)
