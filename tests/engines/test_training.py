"""`paravt train` through an engine: the trainer's own loop, synchronous and asynchronous."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from builders import make_task, write_manifest
from helpers import settings

from agents.paragrpo import PARAGRPOConfig
from train import asynchronous, players, rollout
from train.config import EnvConfig, RunConfig, TrainConfig
from train.launch import train
from train.metrics import read_metrics

pytest.importorskip("vllm", reason="needs the vllm extra: make test-engines")


@pytest.fixture(autouse=True)
def _varied_rewards(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A random policy earns nothing; a reward made of its text gives every group a variance."""

    def play(env, agent, starts, progress=None):
        rollouts = rollout.play(env, agent, starts, progress)
        texts = ["".join(turn["completion"] for turn in one.turns) for one in rollouts]
        rewards = [float(sum(map(ord, text)) % 101) for text in texts]
        return [replace(one, reward=r) for one, r in zip(rollouts, rewards, strict=True)]

    for module in (players, asynchronous):
        monkeypatch.setattr(module, "play", play)
    yield


@pytest.mark.parametrize("asynchronous_run", [False, True])
def test_training_through_vllm(
    folder: Path, clip: str, tmp_path: Path, asynchronous_run: bool
) -> None:
    os.link(clip, tmp_path / Path(clip).name)
    config = TrainConfig(
        env=EnvConfig(
            tasks=write_manifest(tmp_path / "tasks.jsonl", [make_task(clip)]),
            frame_size=(64, 64), max_turns=1, max_crops=2, frames_per_crop=2, frame_budget=2,
        ),
        agent=settings(folder),
        algorithm=PARAGRPOConfig(
            groups=2, group_size=4, loss="tis", kl_coefficient=0.0, learning_rate=1e-3
        ),
        run=RunConfig(
            folder=str(tmp_path), steps=4, wandb="disabled", checkpoint_every=0,
            asynchronous=asynchronous_run, lanes=2 if asynchronous_run else 1,
        ),
    )  # fmt: skip
    saved = train(config)
    steps = read_metrics(config.run.path)
    assert (saved / "model.safetensors").exists()
    ages = [0.0, 1.0, 1.0, 1.0] if asynchronous_run else [0.0] * 4
    assert [step["staleness/max"] for step in steps] == ages
    for counter in ("tokens_sampled", "frames_encoded_sampling"):
        assert sum(step[counter] for step in steps) > 0
    for step, age in zip(steps, ages, strict=True):
        assert step["grad_norm"] > 0
        assert (step["behaviour_mismatch_max"] < 1e-4) == (age == 0)
