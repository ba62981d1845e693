"""The example in one file takes the steps of the trainer."""

import importlib.util
from pathlib import Path

import pytest
import torch

from train.common.metrics_file import read_metrics
from train.config.recipe import load
from train.config.run import TrainConfig
from train.loop.launch import train

EXAMPLE = Path(__file__).parents[2] / "examples" / "grpo_in_one_file.py"


@pytest.fixture
def example():
    spec = importlib.util.spec_from_file_location("grpo_in_one_file", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_its_two_losses_are_those_of_the_trainer(example, tmp_path, capsys):
    torch.set_num_threads(1)
    world = {"videos": 1, "root": str(tmp_path / "world")}
    found = example.run(steps=2, groups=2, size=4, **world)
    assert "step 1: loss" in capsys.readouterr().out
    changes = {
        "env.tasks_kwargs": world,
        "algorithm.groups": "2",
        "algorithm.group_size": "4",
        "run.steps": "2",
        "run.eval_every": "0",
        "run.folder": str(tmp_path),
        "run.wandb": "disabled",
    }
    config = load(TrainConfig, "paragrpo_mini", changes)
    train(config)
    expected = [step["loss"] for step in read_metrics(config.run.path)]
    assert any(expected) and found == pytest.approx(expected, rel=1e-4, abs=1e-7)


def test_it_is_at_most_150_lines():
    assert len(EXAMPLE.read_text(encoding="utf-8").splitlines()) <= 150
