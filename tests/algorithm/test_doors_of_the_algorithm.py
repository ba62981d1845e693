"""An advantage, a loss and an aggregation of a user's own, from a temporary folder."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from support.learning import ONE_TURN, SHAPE, config, make_batch

from agents.algorithm.advantages import Scores, advantage_named
from agents.algorithm.config import PARAGRPOConfig
from agents.algorithm.credit import check_credit
from agents.algorithm.losses import aggregation_named, loss_named
from agents.model.mini import build_mini
from agents.model.vlm import VisionLanguageModel
from train.common.errors import ConfigError
from train.config.recipe import load
from train.config.run import TrainConfig
from train.learner.learner import Learner

MINE = '''
import numpy as np
from agents.algorithm.advantages import Advantage
from agents.algorithm.losses import Loss, LossOutputs

def best(scores):
    """1 for the best of the batch, else 0."""
    return (scores.rewards == scores.rewards.max()).astype(float)

careful = Advantage(best, needs_term="calm")

def reinforce(inputs):
    return LossOutputs(-inputs.advantages * inputs.logprobs, {"mine": inputs.logprobs.detach() * 0})

weighed = Loss(reinforce, own_proximal=True)

def first(lengths_N, limit):
    """The first sequence alone counts."""
    weights_N = np.zeros(len(lengths_N))
    weights_N[0] = 1 / lengths_N[0]
    return weights_N
'''


@pytest.fixture
def mine(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(MINE)
    return path


def test_an_advantage_of_the_users_own(mine):
    scores = Scores(np.array([0.0, 2.0, 1.0]), np.zeros(3, int))
    assert advantage_named(f"{mine}:best")(scores).tolist() == [0.0, 1.0, 0.0]
    config = PARAGRPOConfig(advantage=f"{mine}:careful")
    with pytest.raises(ValueError, match="needs the reward term 'calm'"):
        check_credit(config, {"answer": 1.0})
    check_credit(config, {"answer": 1.0, "calm": 0.5})


def test_a_loss_and_an_aggregation_of_the_users_own_make_the_update(mine, tmp_path):
    vlm = VisionLanguageModel.load(build_mini(tmp_path / "mini", ["a red circle"] * 4, SHAPE))
    batch = make_batch(vlm, ONE_TURN)
    batch.advantages[0][:] = 0  # the only sequence that counts has no advantage
    before = [p.detach().clone() for p in vlm.model.parameters()]
    settings = config(loss=f"{mine}:reinforce", aggregation=f"{mine}:first", weight_decay=0.0)
    metrics = Learner(vlm, settings).update(batch)
    assert metrics["mine"] == 0 and metrics["loss"] == 0 and metrics["grad_norm"] == 0
    assert all(map(torch.equal, before, vlm.model.parameters()))
    learner = Learner(
        vlm, replace(settings, algorithm=replace(settings.algorithm, aggregation="token_mean"))
    )
    assert learner.update(batch)["grad_norm"] > 0
    assert (
        loss_named(f"{mine}:weighed").own_proximal
        and not loss_named(f"{mine}:reinforce").own_proximal
    )
    assert aggregation_named(f"{mine}:first")(np.array([4, 2]), 0).tolist() == [0.25, 0.0]


def test_a_recipe_and_the_command_line_take_them(mine):
    config = load(TrainConfig, "paragrpo_mini", [f"--algorithm.loss={mine}:reinforce"])
    assert config.algorithm.loss == f"{mine}:reinforce"
    with pytest.raises(ConfigError, match="choose from"):
        load(TrainConfig, "paragrpo_mini", ["--algorithm.loss=reinforce"])


@pytest.mark.parametrize("find", [advantage_named, loss_named, aggregation_named])
def test_a_door_to_nothing_is_said(mine, find):
    with pytest.raises(ValueError, match="there is no 'absent'"):
        find(f"{mine}:absent")
