"""`paravt train` through an engine: the trainer's own loop, synchronous and asynchronous."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from support.engines import settings, training

from train.common.metrics_file import read_metrics
from train.loop.launch import train
from train.rollout import play as rollout
from train.workers import lanes, rollout_workers

pytest.importorskip("vllm", reason="needs the vllm extra: make test-engines")


@pytest.fixture(autouse=True)
def _varied_rewards(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A random policy earns nothing; a reward made of its text gives every group a variance."""

    def play(env, agent, starts, progress=None):
        rollouts = rollout.play(env, agent, starts, progress)
        texts = ["".join(turn["completion"] for turn in one.turns) for one in rollouts]
        rewards = [float(sum(map(ord, text)) % 101) for text in texts]
        return [replace(one, reward=r) for one, r in zip(rollouts, rewards, strict=True)]

    for module in (rollout_workers, lanes):
        monkeypatch.setattr(module, "play", play)
    yield


@pytest.mark.parametrize("asynchronous_run", [False, True])
def test_training_through_vllm(
    folder: Path, clip: str, tmp_path: Path, asynchronous_run: bool
) -> None:
    lanes = 2 if asynchronous_run else 1
    config = training(
        settings(folder), clip, tmp_path, steps=4, asynchronous=asynchronous_run, lanes=lanes
    )
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


@pytest.mark.parametrize(
    ("loss", "counted"),
    [
        ("clipped", "clip_fraction"),
        ("tis", "behaviour_truncated"),
        ("decoupled", "behaviour_dropped"),
    ],
)
def test_training_through_vllm_in_bf16(
    folder: Path, clip: str, tmp_path: Path, loss: str, counted: str
) -> None:
    """Two roundings of one policy: near, not equal, and each loss says what it did about it."""
    config = training(settings(folder, dtype="bfloat16"), clip, tmp_path, steps=2)
    config.algorithm = replace(config.algorithm, loss=loss)
    train(config)
    for step in read_metrics(config.run.path):
        assert 1e-4 < step["behaviour_mismatch_max"] < 0.5
        assert step["grad_norm"] > 0 and 0 <= step[counted] <= 0.1
        if loss != "clipped":
            assert step["behaviour_weight"] == pytest.approx(1, abs=0.05)
