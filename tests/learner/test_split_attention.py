"""The kernels of the update against torch's plain functions, in double precision."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from train.learner.attention import Branches, split_attention
from train.learner.logprobs import _Picked
from train.packing.pack import PADDING, tree_mask

LAYOUT = (Branches(5, (3, 1, 4)), Branches(2, (6,)), Branches(1, (1, 1)))


def segments(layout, width):
    rows = np.full((len(layout), width), PADDING)
    for row, one in zip(rows, layout, strict=True):
        row[: one.prompt] = 0
        for i, span in enumerate(one.spans()):
            row[span] = i + 1
    return rows


@pytest.mark.parametrize("kv_heads", [4, 2])
def test_split_attention_is_masked_attention_with_its_gradients(kv_heads):
    torch.manual_seed(0)
    width, real = 13, torch.from_numpy(segments(LAYOUT, 13) != PADDING)
    q = torch.randn(3, 4, width, 8, dtype=torch.double, requires_grad=True)
    k, v = (
        torch.randn(3, kv_heads, width, 8, dtype=torch.double, requires_grad=True) for _ in "kv"
    )
    mask = torch.from_numpy(tree_mask(segments(LAYOUT, width)))
    expected = F.scaled_dot_product_attention(q, k, v, mask, scale=0.3, enable_gqa=True)
    found, _ = split_attention(None, q, k, v, None, 0.3, LAYOUT)
    expected = expected.transpose(1, 2)[real]
    torch.testing.assert_close(found[real], expected, rtol=0, atol=1e-12)
    assert not found[~real].any()
    weights = torch.randn_like(expected)
    for a, b in zip(
        torch.autograd.grad((found[real] * weights).sum(), (q, k, v)),
        torch.autograd.grad((expected * weights).sum(), (q, k, v)),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


def test_spans_follow_the_prompt_one_after_the_other():
    assert Branches(5, (3, 1, 4)).spans() == [slice(5, 8), slice(8, 9), slice(9, 13)]


@pytest.mark.parametrize("dtype", [torch.double, torch.float32, torch.bfloat16])
def test_picked_log_probabilities_entropy_and_gradient(dtype):
    torch.manual_seed(1)
    logits = (30 * torch.randn(6, 9)).to(dtype).requires_grad_()
    targets, forbidden = torch.tensor([0, 8, 3, 3, 1, 2]), torch.tensor([4, 7])
    wide = torch.promote_types(dtype, torch.float32)
    plain = (logits.to(wide) / 0.7).index_fill(-1, forbidden, torch.finfo(torch.float32).min)
    plain = plain.log_softmax(-1)
    expected = plain.gather(-1, targets[:, None])[:, 0]
    found, entropy = _Picked.apply(logits, targets, forbidden, 0.7)
    tolerance = (
        {"rtol": 1e-5, "atol": 1e-6} if dtype != torch.double else {"rtol": 0, "atol": 1e-12}
    )
    torch.testing.assert_close(found, expected, **tolerance)
    torch.testing.assert_close(entropy, -(plain.exp() * plain).sum(-1), **tolerance)
    assert found.dtype == wide and not entropy.requires_grad
    weights = torch.linspace(-1, 2, 6, dtype=wide)
    (a,) = torch.autograd.grad((found * weights).sum(), logits)
    (b,) = torch.autograd.grad((expected * weights).sum(), logits)
    torch.testing.assert_close(a, b, rtol=1e-2 if dtype == torch.bfloat16 else 1e-5, atol=1e-6)
    assert a.dtype == dtype and not a[:, forbidden].any()


def test_entropy_of_a_fair_coin_is_log_two():
    _, entropy = _Picked.apply(torch.zeros(1, 3), torch.tensor([0]), torch.tensor([2]), 1.0)
    assert entropy.item() == pytest.approx(0.693147, abs=1e-6)
