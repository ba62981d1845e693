"""The learner on a CUDA GPU: its attention against the dense mask; skipped without one."""

from dataclasses import replace

import pytest
import torch
from test_learner import MANY_TURNS, SHAPE, TEMPERATURE, config, make_batch, relative_difference

from agents.mini import build_mini
from agents.vlm import VisionLanguageModel
from train.learner import Learner
from train.meter import Meter
from train.trajectory import Sample

cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    shape = replace(SHAPE, hidden_size=64, heads=4)  # heads of 16: the least that FlexAttention has
    return build_mini(tmp_path_factory.mktemp("mini"), ["where is it"] * 4, shape)


def gradients(folder, device, attention, batch, dtype="float32"):
    vlm = VisionLanguageModel.load(folder, dtype, device)
    learner = Learner(vlm, config(attention=attention), TEMPERATURE)
    samples = [Sample(t, a) for t, a in zip(batch.trajectories, batch.advantages, strict=True)]
    learner.accumulate(samples, Meter())
    named = learner.weights.parameters.items()
    return {name: p.grad.float().cpu() for name, p in named if p.grad is not None}


def batch_of(folder, turns):
    return make_batch(VisionLanguageModel.load(folder), turns, frames=True, subagents=True)


@pytest.mark.gpu
@cuda
def test_flex_attention_has_the_gradients_of_the_dense_mask(folder):
    batch = batch_of(folder, MANY_TURNS)
    flex, dense = (gradients(folder, "cuda", mode, batch) for mode in ("flex", "dense"))
    assert relative_difference(flex, dense) < 1e-3
    assert relative_difference(flex, gradients(folder, "cpu", "split", batch)) < 1e-3


@pytest.mark.gpu
@cuda
def test_bfloat16_on_the_gpu_is_near_float32_on_the_cpu(folder):
    batch = batch_of(folder, MANY_TURNS)
    low = gradients(folder, "cuda", "auto", batch, "bfloat16")
    assert relative_difference(low, gradients(folder, "cpu", "auto", batch)) < 0.1


def test_plain_sequences_take_the_flash_kernel_with_the_gradients_of_the_dense_mask(
    folder, monkeypatch
):
    """Trees of one branch need no block mask, so this runs on a CPU too."""
    monkeypatch.setattr("train.learner.choose", lambda setting, device: setting)
    batch = batch_of(folder, [[[5]], [[3, 2]], [[7]]])
    flex, dense = (gradients(folder, "cpu", mode, batch) for mode in ("flex", "dense"))
    assert relative_difference(flex, dense) < 1e-5
