"""FlexAttention's block mask; that it cannot be fused any more is an error in every thread."""

import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn.attention.flex_attention import create_block_mask
from torch.utils._python_dispatch import TorchDispatchMode
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from train.distributed.processes import Group
from train.learner.attention import BLOCK, FLEX, SHAPES, block_mask, tree_attention


def test_flex_attention_is_compiled_for_many_shapes_or_fails(monkeypatch):
    from torch._dynamo import config

    seen = []

    def inner(*arguments, **named):
        seen.append((config.recompile_limit, config.fail_on_recompile_limit_hit))
        return arguments, named

    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS, "flex_attention", inner)
    before = config.recompile_limit
    model = SimpleNamespace(config=SimpleNamespace(_attn_implementation="sdpa"))
    batch = SimpleNamespace(segments=np.array([[0, 0, 1, 2]]), branches=[(1, 1)], prompts=[2])
    with tree_attention(model, batch, "flex", torch.device("cpu")) as arguments:
        attend = ALL_ATTENTION_FUNCTIONS[model.config._attn_implementation]
        assert attend("module", 1, scaling=2) == (("module", 1), {"scaling": 2})
        backward = threading.Thread(target=attend)
        backward.start()
        backward.join()
    assert tuple(arguments["mask"].shape) == (1, 1, 4, 4)
    assert seen == [(SHAPES, True)] * 2
    assert config.recompile_limit == before and model.config._attn_implementation == "sdpa"

    with tree_attention(model, batch, "flex", torch.device("cpu"), Group(0, 2)) as arguments:
        assert arguments["sequence"].inner == FLEX


def segments_of(*trees):
    """Rows of a prompt and its branches, given by their lengths, and padding behind the shorter."""
    rows = np.full((len(trees), max(map(sum, trees))), -1, dtype=np.int32)
    for row, lengths in zip(rows, trees, strict=True):
        row[: sum(lengths)] = np.repeat(np.arange(len(lengths)), lengths)
    return torch.from_numpy(rows)


def assert_blocks_of_torch(segments):
    """The block mask of `segments`, compared with torch's, which looks at all pairs of tokens."""
    rows, tokens = segments.shape
    mask = block_mask(segments)
    expected = create_block_mask(mask.mask_mod, rows, None, tokens, tokens, device="cpu")
    assert mask.seq_lengths == expected.seq_lengths and mask.BLOCK_SIZE == expected.BLOCK_SIZE
    for kind in ("kv", "full_kv", "q", "full_q"):
        for name in (f"{kind}_num_blocks", f"{kind}_indices"):
            one, other = getattr(mask, name), getattr(expected, name)
            assert one.dtype == other.dtype and torch.equal(one, other), name
    return mask


@pytest.mark.parametrize(
    "trees",
    [
        [[256, 128, 128]],  # every end is the end of a block
        [[255, 129, 1, 300]],
        [[40, 10, 20, 5]],  # shorter than a block
        [[100, 500]],  # a branch with the prompt's end in its first block
        [[130, 30, 30, 400], [500, 300], [700], [1, 1, 1, 380]],  # rows of several lengths
        [[3, 1], [20, 800]],  # much padding
        [[0, 200, 200]],  # nothing in common
        [[384, 384, 7], [128, 256, 131]],
    ],
    ids=str,
)
def test_the_blocks_are_those_that_torch_finds_in_all_pairs_of_tokens(trees):
    assert_blocks_of_torch(segments_of(*trees))


def test_the_blocks_of_random_trees_are_those_that_torch_finds():
    rng = np.random.default_rng(0)
    full = 0
    for _ in range(10):
        trees = [rng.integers(1, 400, rng.integers(2, 5)).tolist() for _ in range(2)]
        mask = assert_blocks_of_torch(segments_of(*trees))
        full += int(mask.full_kv_num_blocks.sum())
    assert full > 0


class Largest(TorchDispatchMode):
    """The most numbers that any tensor made meanwhile has."""

    made = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **kwargs or {})
        tensors = out if isinstance(out, (tuple, list)) else [out]
        sizes = [one.numel() for one in tensors if isinstance(one, torch.Tensor)]
        self.made = max([self.made, *sizes])
        return out


def test_a_block_mask_is_made_from_blocks_not_from_pairs_of_tokens():
    segments = segments_of([3000, 500, 500])
    with Largest() as largest:
        block_mask(segments)
    blocks = -(-segments.shape[1] // BLOCK)
    assert largest.made <= max(segments.numel(), 2 * blocks**2)
