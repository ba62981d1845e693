"""AdamW by hand: betas and decay arrive, and decay moves the matrices of layers alone."""

import numpy as np
import pytest
import torch
from support.learning import ONE_TURN, SHAPE, config, make_batch

from agents.model.mini import build_mini
from agents.model.vlm import VisionLanguageModel
from train.common.errors import ConfigError
from train.config.learner import OptimizerConfig
from train.config.sft import SFTConfig, StageConfig
from train.learner.learner import Learner
from train.learner.moments import optimizer_groups, optimizer_tensors, restore_optimizer
from train.learner.optimizer import adamw, schedule, spared
from train.sft.stage import likelihood_learner


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    words = ["where does the red circle blink"] * 4
    return build_mini(tmp_path_factory.mktemp("mini"), words, SHAPE)


@pytest.fixture
def vlm(checkpoint):
    return VisionLanguageModel.load(checkpoint)


def by_hand(values, gradients, rate, betas, decay, epsilon=1e-8):
    """AdamW (arXiv 1711.05101, algorithm 2) in float64, one parameter."""
    value, first, second = float(values), 0.0, 0.0
    for t, gradient in enumerate(gradients, 1):
        first = betas[0] * first + (1 - betas[0]) * gradient
        second = betas[1] * second + (1 - betas[1]) * gradient**2
        step = first / (1 - betas[0] ** t) / ((second / (1 - betas[1] ** t)) ** 0.5 + epsilon)
        value -= rate * decay * value + rate * step
    return value


def test_two_steps_are_those_of_adamw_with_the_configured_betas_and_decay():
    weight = torch.nn.Parameter(torch.tensor([[0.5]], dtype=torch.float64))
    scale = torch.nn.Parameter(torch.tensor([0.5], dtype=torch.float64))
    settings = OptimizerConfig(learning_rate=0.1, adam_betas=(0.6, 0.7), weight_decay=0.3)
    optimizer = adamw({"weight": weight, "scale": scale}, {"scale"}, settings)
    gradients = [1.0, -0.25]
    for gradient in gradients:
        weight.grad = torch.full_like(weight, gradient)
        scale.grad = torch.full_like(scale, gradient)
        optimizer.step()
    assert weight.item() == pytest.approx(by_hand(0.5, gradients, 0.1, (0.6, 0.7), 0.3), rel=1e-9)
    assert scale.item() == pytest.approx(by_hand(0.5, gradients, 0.1, (0.6, 0.7), 0.0), rel=1e-9)


def test_the_learner_hands_its_settings_on(vlm):
    given = {"learning_rate": 2e-3, "adam_betas": (0.5, 0.75), "weight_decay": 0.125}
    for group in Learner(vlm, config(**given)).optimizer.param_groups:
        assert (group["lr"], group["betas"]) == (2e-3, (0.5, 0.75))
        assert group["weight_decay"] in (0.125, 0.0)


def test_norms_biases_and_embeddings_do_not_decay(vlm):
    """With gradients of 0, decay alone moves a weight."""
    before = {name: p.detach().clone() for name, p in vlm.model.named_parameters()}
    learner = Learner(vlm, config(weight_decay=0.5, learning_rate=0.1))
    for p in learner.parameters:
        p.grad = torch.zeros_like(p)
    learner.optimizer.step()
    moved, still = {}, {}
    for name, p in vlm.model.named_parameters():
        (still if torch.equal(p, before[name]) else moved)[name] = p
    for name, p in moved.items():
        np.testing.assert_allclose(p.detach(), before[name] * 0.95, rtol=1e-6)
    zeros = {name for name, p in before.items() if not p.any()}
    assert still.keys() - zeros == spared(vlm.model) - zeros
    assert not any(word in name for name in moved for word in ("norm", "bias", "embed_tokens"))
    assert any("q_proj" in name for name in moved) and any("pos_embed" in name for name in still)


def test_without_decay_or_with_all_of_it_there_is_one_group_in_the_models_order(vlm):
    names = [name for name, _ in vlm.model.named_parameters()]
    for settings in ({"weight_decay": 0.0}, {"weight_decay": 0.1, "decay_all": True}):
        (group,) = Learner(vlm, config(**settings)).optimizer.param_groups
        assert len(group["params"]) == len(names)
        assert all(a is b for a, b in zip(group["params"], vlm.model.parameters(), strict=True))


def test_the_cold_start_hands_its_decay_on(vlm):
    for decay_all, groups in ((True, [0.25]), (False, [0.25, 0.0])):
        settings = SFTConfig(weight_decay=0.25, decay_all=decay_all)
        stage = StageConfig(steps=1, rollouts=1, conversations=1, freeze_vision=False)
        found = likelihood_learner(vlm, settings, stage).optimizer.param_groups
        assert [group["weight_decay"] for group in found] == groups


def test_moments_of_two_groups_survive_a_checkpoint_and_others_are_refused(vlm, checkpoint):
    learner = Learner(vlm, config(weight_decay=0.1))
    learner.update(make_batch(vlm, ONE_TURN))
    saved = optimizer_tensors(learner.optimizer), optimizer_groups(learner.optimizer)
    other = VisionLanguageModel.load(checkpoint)
    again = Learner(other, config(weight_decay=0.1))
    restore_optimizer(again.optimizer, *saved)
    names = dict(vlm.model.named_parameters())
    for name, p in other.model.named_parameters():
        state = learner.optimizer.state[names[name]]
        if state:
            assert torch.equal(again.optimizer.state[p]["exp_avg"], state["exp_avg"])
    whole = Learner(other, config(weight_decay=0.1, decay_all=True))
    with pytest.raises(ConfigError, match=r"optimizer\.decay_all"):
        restore_optimizer(whole.optimizer, *saved)


def rates(steps, run=0, **settings):
    """Learning rates of the first steps of an optimizer whose peak is 1."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    falls = schedule(optimizer, OptimizerConfig(**settings), run)
    found = []
    for _ in range(steps):
        found.append(falls.get_last_lr()[0])
        optimizer.step()
        falls.step()
    return found


def test_the_rate_rises_to_its_value_in_the_step_after_the_warm_up():
    assert rates(5, warmup_steps=3) == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert rates(3, warmup_steps=0) == [1.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"decay": "linear"}, [0.5, 1.0, 0.75, 0.5, 0.25, 0.0, 0.0]),
        ({"decay": "linear", "decay_to": 0.2}, [0.5, 1.0, 0.8, 0.6, 0.4, 0.2, 0.2]),
        ({"decay": "cosine"}, [0.5, 1.0, 0.8535534, 0.5, 0.1464466, 0.0, 0.0]),
        ({"decay": "cosine", "decay_to": 0.5}, [0.5, 1.0, 0.9267767, 0.75, 0.5732233, 0.5, 0.5]),
        ({"decay": "linear", "decay_steps": 3}, [0.5, 1.0, 0.5, 0.0, 0.0, 0.0, 0.0]),
    ],
)
def test_the_rate_falls_from_the_warm_up_to_the_last_step_of_the_run(settings, expected):
    assert rates(7, run=5, warmup_steps=1, **settings) == pytest.approx(expected, abs=1e-7)


def test_the_learner_takes_the_rate_of_each_of_its_steps(vlm):
    learner = Learner(vlm, config(learning_rate=4e-3, decay="linear", steps=4))
    batch = make_batch(vlm, ONE_TURN)
    taken = [learner.update(batch)["learning_rate"] for _ in range(5)]
    assert taken == pytest.approx([4e-3, 3e-3, 2e-3, 1e-3, 0.0])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"decay": "cosin"}, "nearest|did you mean|cosine"),
        ({"decay_to": 1.5}, r"decay_to is a share, between 0 and 1: 1\.5"),
        ({"decay_steps": -1}, "decay_steps"),
        ({"decay_steps": 5, "warmup_steps": 5}, "decay_steps = 5: the warm-up alone takes 5"),
    ],
)
def test_a_decay_that_means_nothing_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        OptimizerConfig(**wrong)


def test_a_decay_that_ends_with_the_warm_up_is_refused():
    with pytest.raises(ValueError, match="over 5 optimizer steps, of which the warm-up takes 5"):
        config(decay="linear", warmup_steps=5, steps=5)
