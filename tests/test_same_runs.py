"""The same draws and the same weights, whatever room the code has moved to.

Two training steps, two SFT steps and an evaluation of ParaVT-Mini on the synthetic world, against
`digests.json`. Tokens are compared exactly. Floats are sums over a tensor or a sequence and are
compared to 2e-4: the same code on an AVX2 and on an AVX-512 processor differs by up to 4e-5.
Where a change is meant to change the numbers: `PARAVT_WRITE_DIGESTS=1 pytest` on this file.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from train.config.env import EnvConfig
from train.config.recipe import load
from train.config.run import TrainConfig
from train.config.sft import SFTConfig, StageConfig
from train.evaluation.agents import evaluated_agent
from train.evaluation.measure import measure
from train.learner.learner import Learner
from train.loop.launch import train
from train.sft.sft import run as sft

KEPT = Path(__file__).with_name("digests.json")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """The synthetic world with one video a split."""
    return {"videos": 1, "root": str(tmp_path_factory.mktemp("world"))}


@pytest.fixture
def seen(monkeypatch):
    """Every sample that the learner computes, in order."""
    samples = []
    accumulate = Learner.accumulate

    def recorded(self, given, meter):
        samples.extend(given)
        return accumulate(self, given, meter)

    monkeypatch.setattr(Learner, "accumulate", recorded)
    return samples


def of_samples(samples):
    """Digest of the tokens, and what was computed for them."""
    tokens = hashlib.sha256()
    for sample in samples:
        one = sample.trajectory
        for array in (one.prompt_ids, one.branch_ids, one.loss_mask, one.roles):
            tokens.update(np.ascontiguousarray(array, dtype=np.int64).tobytes())
        for image in (*one.prompt_images, *one.branch_images):
            tokens.update(np.ascontiguousarray(image).tobytes())
    return {
        "samples": len(samples),
        "tokens": tokens.hexdigest(),
        "advantages": [float(np.sum(s.advantages, dtype=np.float64)) for s in samples],
        "logprobs": [float(np.sum(s.trajectory.logprobs, dtype=np.float64)) for s in samples],
    }


def of_weights(folder):
    """Sum and norm of every tensor of a checkpoint."""
    tensors = load_file(Path(folder) / "model.safetensors")
    return {
        name: [t.double().sum().item(), t.double().norm().item()] for name, t in tensors.items()
    }


def check(name, found):
    kept = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    if os.environ.get("PARAVT_WRITE_DIGESTS"):
        KEPT.write_text(json.dumps(kept | {name: found}, indent=1) + "\n")
        return
    want = kept[name]
    exact = {key: value for key, value in want.items() if isinstance(value, int | str)}
    assert {key: found[key] for key in exact} == exact
    for key in want.keys() - exact.keys():
        compare(found[key], want[key])


def compare(found, want):
    if isinstance(want, dict):
        assert found.keys() == want.keys()
        for key in want:
            compare(found[key], want[key])
    else:
        np.testing.assert_allclose(found, want, rtol=1e-5, atol=2e-4)


def settings(tmp_path, world) -> TrainConfig:
    torch.set_num_threads(1)
    return load(
        TrainConfig,
        "paragrpo_mini",
        {
            "env.tasks_kwargs": dict(world),
            "algorithm.groups": "2",
            "algorithm.group_size": "4",
            "algorithm.minibatches": "2",
            "run.steps": "2",
            "run.eval_every": "0",
            "run.checkpoint_every": "0",
            "run.folder": str(tmp_path),
            "run.wandb": "disabled",
            "evaluation.tasks": "8",
            "evaluation.num_envs": "8",
            "evaluation.split": "val",
        },
    )


def test_two_training_steps(tmp_path, world, seen):
    model = train(settings(tmp_path, world))
    check("train", of_samples(seen) | {"weights": of_weights(model)})


def test_two_sft_steps(tmp_path, world, seen):
    torch.set_num_threads(1)
    config = SFTConfig(
        env=EnvConfig(tasks_kwargs=world, split="val", frame_size=(64, 64), frame_budget=6),
        output=str(tmp_path / "model"),
        stages=(StageConfig(steps=2, rollouts=8, conversations=3, readings=2, frames=2),),
        frames_per_video=8,
        learning_rate=1e-4,
    )
    config.agent.checkpoint, config.agent.prompt_style = "paravt_mini", "compact"
    config.run = replace(config.run, folder=str(tmp_path), wandb="disabled")
    sft(config)
    check("sft", of_samples(seen) | {"weights": of_weights(tmp_path / "model")})


def test_an_evaluation(tmp_path, world):
    config = settings(tmp_path, world)
    report = measure(config, evaluated_agent(config), tmp_path / "report.json")
    said = hashlib.sha256()
    for row in report.rows:
        said.update(json.dumps([row.task_id, row.frame_budget, row.answer]).encode())
        said.update(json.dumps(row.turns).encode())
    found = {
        "rows": len(report.rows),
        "said": said.hexdigest(),
        "rewards": [row.reward for row in report.rows],
        "scores": [row.score for row in report.rows],
    }
    check("evaluation", found)
