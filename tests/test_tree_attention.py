"""FlexAttention that cannot be fused any more is an error, whichever thread asks for it."""

import threading
from types import SimpleNamespace

import numpy as np
import torch
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from train.parallel import Group
from train.tree_attention import FLEX, SHAPES, tree_attention


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
