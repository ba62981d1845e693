"""What the learner is handed: ranges of the optimizer, the packing and the temperature."""

from dataclasses import fields

import pytest

from train.common.errors import ConfigError
from train.config.learner import LearnerConfig, OptimizerConfig, PackingConfig
from train.config.recipe import load
from train.config.run import TrainConfig


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"max_grad_norm": -1.0}, "max_grad_norm"),
        ({"weight_decay": -0.1}, "weight_decay"),
        ({"warmup_steps": -1}, "warmup_steps"),
        ({"adam_betas": (0.9, 1.0)}, r"adam_betas must be in \[0, 1\)"),
        ({"adam_betas": (-0.1, 0.9)}, "adam_betas"),
        ({"adam_betas": (float("nan"), 0.9)}, "adam_betas"),
    ],
)
def test_an_optimizer_out_of_range_is_an_error(settings, message):
    with pytest.raises(ValueError, match=message):
        OptimizerConfig(**settings)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize(
    "name", [one.name for one in fields(OptimizerConfig) if isinstance(one.default, float)]
)
def test_numbers_of_the_optimizer_that_are_not_finite_are_errors(name, value):
    with pytest.raises(ValueError, match=name):
        OptimizerConfig(**{name: value})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"attention": "flash"}, "packing.attention 'flash' is not one of auto"),
        ({"micro_batch_tokens": 0}, "micro_batch_tokens"),
        ({"logit_chunk": 0}, "logit_chunk"),
    ],
)
def test_packing_out_of_range_is_an_error(settings, message):
    with pytest.raises(ValueError, match=message):
        PackingConfig(**settings)


def test_greedy_rollouts_cannot_be_trained_on():
    with pytest.raises(ValueError, match="greedy"):
        LearnerConfig(temperature=0.0)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("optimizer.learning_rate", "optimizer.learning_rate"),
        ("optimizer.freeze_vision", "optimizer.freeze_vision"),
        ("packing.micro_batch_tokens", "packing.micro_batch_tokens"),
    ],
)
def test_a_key_of_an_older_recipe_says_where_it_went(old, new):
    with pytest.raises(ConfigError, match=f"{old} is {new} now"):
        load(TrainConfig, "paragrpo_mini", {old: "1"})
