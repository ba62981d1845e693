"""Every number that a run logs has a sentence in the glossary, and every sentence is one."""

import re

import pytest
import torch
from support.tiny_runs import SHAPE, tiny_settings, varied, with_run

from train.common.glossary import SECTIONS, meaning
from train.common.metrics_file import read_metrics
from train.lab.diagnose.observer import observers_of
from train.loop.launch import train
from train.workers import lanes, rollout_workers


@pytest.fixture
def settings(clip, other_clip, tmp_path):
    torch.set_num_threads(1)
    world = tiny_settings(tmp_path, (clip, other_clip), SHAPE)
    world.algorithm.groups, world.algorithm.group_size = 2, 3
    return world


@pytest.mark.parametrize(
    "change",
    [
        {"diagnostics.every": 1},
        {"algorithm.loss": "decoupled", "run.asynchronous": True, "algorithm.minibatches": 2},
        {"algorithm.loss": "tis", "algorithm.kl_in": "reward", "algorithm.credit": "token"},
        {"selection.drop_zero_variance": True, "selection.rounds": 2, "selection.oversample": 2},
    ],
    ids=lambda change: next(iter(change)),
)
def test_every_logged_metric_is_in_the_glossary(settings, change, monkeypatch):
    if "diagnostics.every" not in change:  # there terms have to add up to the reward
        monkeypatch.setattr(rollout_workers, "play", varied)
        monkeypatch.setattr(lanes, "play", varied)
    for name, value in change.items():
        group, field = name.split(".")
        setattr(getattr(settings, group), field, value)
    config = with_run(settings, "run", steps=2, asynchronous="run.asynchronous" in change)
    train(config, observers_of(config))
    steps = read_metrics(config.run.path)
    logged = {name for step in steps for name in step} - {"step"}
    assert len(steps) == 2 and {"reward", "loss", "time/step"} <= logged and len(logged) > 40
    assert [name for name in sorted(logged) if meaning(name) is None] == []


def test_a_sentence_ends_like_one_and_belongs_to_one_name():
    names = [name for section in SECTIONS.values() for name in section]
    assert len(names) == len(set(names))
    for section in SECTIONS.values():
        assert all(re.fullmatch(r"[A-Z0-9].*[.]", said) for said in section.values())


@pytest.mark.parametrize(
    ("name", "start"),
    [
        ("reward", "Mean reward"),
        ("reward/answer", "Mean unweighted"),
        ("accuracy/K=16", "The same for rollouts with K"),
        ("calls/set=films", "Crop calls per rollout on this set"),
        ("stop/judge_error", "Share of rollouts"),
        ("diagnostics/correlation/answer~tool_gain", "Correlation"),
    ],
)
def test_a_name_finds_its_sentence(name, start):
    assert meaning(name).startswith(start)


@pytest.mark.parametrize(
    "name", ["rewards", "reward/", "accuracy/K=", "accuracy/K=x", "calls/set=", "kl/x"]
)
def test_a_name_that_is_not_logged_has_none(name):
    assert meaning(name) is None
