"""Image features are computed once while the vision tower stays as it is, and no longer."""

import pytest
import torch
from support.learning import ONE_TURN, SHAPE, config, make_batch

from agents.config import AgentConfig
from agents.model.agent import TransformersAgent
from agents.model.mini import build_mini
from agents.model.vlm import VisionLanguageModel
from train.learner.learner import Learner


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return build_mini(tmp_path_factory.mktemp("mini"), ["where is it"] * 4, SHAPE)


@pytest.fixture
def vlm(folder):
    return VisionLanguageModel.load(folder)


def images(batch):
    return [image for one in batch.trajectories for image in one.prompt_images]


def test_a_frozen_tower_encodes_a_frame_once_for_rollouts_and_updates(vlm):
    batch = make_batch(vlm, ONE_TURN)
    learner = Learner(vlm, config(freeze_vision=True))
    with torch.inference_mode():  # as the sampler does
        vlm.features.encode(images(batch))
    assert vlm.features.encoded == 4
    for _ in range(2):
        learner.update(batch)
        vlm.features.weights_changed()
    assert vlm.features.encoded == 4 and vlm.features.reused > 0


def test_a_tower_that_is_trained_is_asked_again_after_each_update(vlm):
    batch = make_batch(vlm, ONE_TURN)
    learner = Learner(vlm, config())
    before = vlm.features.encode(images(batch))
    learner.update(batch)
    after = vlm.features.encode(images(batch))  # nobody said that the weights have changed
    assert vlm.features.encoded == 8
    assert not torch.equal(torch.cat(before), torch.cat(after))
    assert torch.equal(torch.cat(after), torch.cat(vlm.encode_images(images(batch))))


def test_weights_that_are_loaded_or_replaced_are_noticed_too(vlm, folder):
    batch = make_batch(vlm, ONE_TURN)
    vlm.model.requires_grad_(False)
    vlm.features.encode(images(batch))
    state = {name: 1.1 * value for name, value in vlm.model.state_dict().items()}
    vlm.model.load_state_dict(state)
    fresh = vlm.features.encode(images(batch))
    assert torch.equal(torch.cat(fresh), torch.cat(vlm.encode_images(images(batch))))
    weight = vlm.model.model.visual.blocks[0].mlp.linear_fc1
    weight.weight = torch.nn.Parameter(2 * weight.weight.detach(), requires_grad=False)
    fresh = vlm.features.encode(images(batch))
    assert torch.equal(torch.cat(fresh), torch.cat(vlm.encode_images(images(batch))))
    assert vlm.features.encoded == 12


def test_the_cache_is_bounded_in_bytes(vlm):
    shown = images(make_batch(vlm, ONE_TURN))
    size = vlm.encode_images(shown[:1])[0].nbytes
    vlm.features.limit = 2 * size
    vlm.features.encode(shown[:2])
    vlm.features.encode(shown[-2:])
    assert vlm.features.held == 2 * size
    vlm.features.encode(shown[:2])
    assert vlm.features.encoded == 6
    vlm.features.clear()
    vlm.features.limit = size - 1
    first, again = (vlm.features.encode(shown[:1])[0] for _ in range(2))
    assert torch.equal(first, again)
    assert vlm.features.encoded == 8 and vlm.features.held == 0


def test_what_is_kept_holds_no_other_image_of_its_batch(vlm):
    shown = images(make_batch(vlm, ONE_TURN))
    vlm.features.encode(shown[:2])
    kept = vlm.features._features.values()
    assert [one.untyped_storage().nbytes() for one in kept] == [one.nbytes for one in kept]
    assert vlm.features.held == sum(one.nbytes for one in kept)


def test_the_bound_is_a_setting_of_the_agent(vlm):
    settings = AgentConfig(prompt_style="compact", feature_cache_gib=0.5)
    TransformersAgent(vlm, settings)
    assert vlm.features.limit == 2**29
    with pytest.raises(ValueError, match=r"agent.feature_cache_gib must not be negative: -1"):
        AgentConfig(feature_cache_gib=-1)
