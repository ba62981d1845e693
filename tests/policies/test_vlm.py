"""The vision tower's attention: all frames in one call, with the numbers of a call for each."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from support.learning import SHAPE
from support.qwen25 import qwen25
from transformers import AutoConfig

from agents.model.mini import build_mini
from agents.model.vlm import FAMILIES, CheckpointError, VisionLanguageModel

CUDA = pytest.param(
    "cuda",
    marks=[
        pytest.mark.gpu,
        pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"),
    ],
)
LAYERS = SHAPE.vision_layers


@pytest.fixture(scope="module")
def mini(tmp_path_factory):
    return VisionLanguageModel.load(build_mini(tmp_path_factory.mktemp("mini"), ["a b"], SHAPE))


@pytest.fixture(scope="module")
def windowed(mini):
    """A Qwen2.5-VL: windows of 2 x 2 tokens in all layers but the last."""
    return qwen25(mini)


@pytest.fixture
def calls(monkeypatch):
    """Shapes of the queries of every attention call."""
    shapes, attend = [], F.scaled_dot_product_attention

    def spy(query, *args, **kwargs):
        shapes.append(tuple(query.shape))
        return attend(query, *args, **kwargs)

    monkeypatch.setattr(F, "scaled_dot_product_attention", spy)
    return shapes


def frames(*sizes):
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]


def encoded(vlm, images):
    """Features and the tower's gradients, in fp32."""
    vlm.model.zero_grad(set_to_none=True)
    features = torch.cat(vlm.encode_images(images))
    features.float().sin().sum().backward()
    gradients = {
        name: p.grad.float().clone()
        for name, p in vlm.model.model.visual.named_parameters()
        if p.grad is not None
    }
    return features.detach().float(), gradients


def as_transformers(vlm, images, monkeypatch):
    """The same by the attention of transformers itself."""
    with monkeypatch.context() as patch:
        for block in vlm.model.model.visual.blocks:
            patch.delattr(block.attn, "forward")
        return encoded(vlm, images)


def assert_near(found, expected, bound):
    assert float((found[0] - expected[0]).abs().max()) < bound
    assert found[1].keys() == expected[1].keys() and any("qkv" in name for name in found[1])
    for name, gradient in found[1].items():
        scale = max(1.0, float(expected[1][name].abs().max()))
        assert float((gradient - expected[1][name]).abs().max()) < bound * scale, name


def test_frames_of_one_size_are_one_call_a_layer(mini, calls, monkeypatch):
    images = frames(*[(32, 48)] * 5)
    found = encoded(mini, images)
    assert calls == [(5, SHAPE.vision_heads, 4 * 6, 16)] * LAYERS
    assert_near(found, as_transformers(mini, images, monkeypatch), 1e-6)
    assert len(calls) == LAYERS + 5 * LAYERS


@pytest.mark.parametrize(
    "sizes", [[(32, 48)], [(32, 48), (16, 16), (32, 48)], [(16, 64), (32, 32)]]
)
def test_frames_of_any_sizes_have_the_numbers_of_transformers(mini, calls, monkeypatch, sizes):
    images = frames(*sizes)
    found = encoded(mini, images)
    equal = len({height * width for height, width in sizes}) == 1
    assert len(calls) == LAYERS * (1 if equal else len(sizes))
    assert_near(found, as_transformers(mini, images, monkeypatch), 1e-6)


@pytest.mark.parametrize(
    ("size", "made"),
    [((64, 64), LAYERS), ((64, 48), 1 + 8 * (LAYERS - 1))],  # of 48 columns, one window is half
)
def test_windows_have_the_numbers_of_transformers(windowed, calls, monkeypatch, size, made):
    images = frames(size, size)
    found = encoded(windowed, images)
    assert len(calls) == made
    assert_near(found, as_transformers(windowed, images, monkeypatch), 1e-6)


@pytest.mark.parametrize("device", ["cpu", CUDA])
def test_in_bfloat16_one_call_is_as_near_as_one_for_each_frame(mini, tmp_path, monkeypatch, device):
    mini.save(tmp_path)
    low = VisionLanguageModel.load(tmp_path, "bfloat16", device)
    images = frames(*[(32, 48)] * 5)
    found, expected = encoded(low, images), as_transformers(low, images, monkeypatch)
    assert low.encode_images(images)[0].dtype == torch.bfloat16
    assert_near(found, expected, 0.05)


@pytest.mark.parametrize(
    "family",
    [
        *("qwen3_5", "internvl", "gemma3", "llava", "llava_onevision", "qwen2_vl"),
        *("qwen3_vl_moe", "smolvlm", "of_next_year"),
    ],
)
def test_other_families_are_refused_in_one_line_that_names_them(family, tmp_path):
    if family == "of_next_year":
        (tmp_path / "config.json").write_text('{"model_type": "of_next_year"}', encoding="utf-8")
    else:
        AutoConfig.for_model(family).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError) as refused:
        VisionLanguageModel.load(tmp_path, device="meta")
    said = str(refused.value)
    assert family in said and "\n" not in said and "Qwen3-VL" in said


def test_the_two_families_are_not_refused(mini, windowed):
    assert {mini.model.config.model_type, windowed.model.config.model_type} == {*FAMILIES}
