"""Attention over packed trees: the prompt once, each branch on the prompt and on itself.

Used by the learner around the forward pass. Three ways to the same numbers, chosen by the
`attention` setting:

- `split` (the default on a CPU): the prompt attends to itself, all branches together to the prompt,
  each branch to itself; flash calls on views of the row, merged by their log-sum-exp. No mask is
  made, nothing is copied or padded per branch and nothing masked is computed, so the cost is P^2 /
  2 + G C P + G C^2 / 2 for G branches of C tokens. Rows of up to `SHORT` tokens are `dense`: there
  the calls themselves cost more.
- `dense`: one call with a boolean (B, 1, S, S) mask; any device, the reference for the tests.
- `flex` (the default on CUDA): FlexAttention with a block mask, compiled or an error; flash
  attention for trees of one branch, which are plain causal sequences.

Command: `pytest tests/learner/test_learner.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch.nn.attention.flex_attention import BlockMask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from train.distributed.processes import Group
from train.distributed.sequence_parallel import SEQUENCE, HeadExchange
from train.packing.pack import PackedBatch, tree_mask

Mode = Literal["split", "dense", "flex"]
SPLIT, FLEX = "paravt_split", "paravt_flex"
BLOCK = 128
"""Side of FlexAttention's blocks, in tokens."""
SHORT = 384
"""Tokens of the longest row up to which one call with a mask takes less time than three parts."""
SHAPES = 64
"""Kinds of shapes for which FlexAttention is compiled; torch's own bound of 8 is soon reached."""

_flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_flash_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


@dataclass(frozen=True)
class Branches:
    """The layout of one row: `prompt` tokens, then branches of `lengths` tokens."""

    prompt: int
    lengths: tuple[int, ...]

    @property
    def stop(self) -> int:
        """Where padding begins."""
        return self.prompt + sum(self.lengths)

    def spans(self) -> list[slice]:
        """The places of each branch in the row."""
        stops = np.cumsum((self.prompt, *self.lengths)).tolist()
        return [slice(*pair) for pair in pairwise(stops)]


class _SplitAttention(torch.autograd.Function):
    """Attention of rows (B, H, S, D) that are laid out as trees; padding behind them stays 0.

    Two softmaxes over disjoint keys merge by their log-sum-exp; the flash backward needs only the
    merged output and log-sum-exp to give each part's exact gradient (as in ring attention, arXiv
    2310.01889). Prompt and branches are views of the row: nothing is gathered or padded.
    """

    @staticmethod
    def forward(
        ctx: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        layout: tuple[Branches, ...],
        scale: float,
    ) -> torch.Tensor:
        output, sums = torch.zeros_like(query), []
        for b, row in enumerate(layout):
            q, k, v, out = (x[b : b + 1] for x in (query, key, value, output))
            end, stop = row.prompt, row.stop
            prompt, branches = slice(end), slice(end, stop)
            out[:, :, prompt], prompt_lse = _flash(
                *(x[:, :, prompt] for x in (q, k, v)), is_causal=True, scale=scale
            )
            far, far_lse = _flash(q[:, :, branches], k[:, :, prompt], v[:, :, prompt], scale=scale)
            each = [
                _flash(*(x[:, :, one] for x in (q, k, v)), is_causal=True, scale=scale)
                for one in row.spans()
            ]
            near, near_lse = (torch.cat(parts, dim=2) for parts in zip(*each, strict=True))
            share = (far_lse - near_lse).sigmoid_().unsqueeze(-1).to(far.dtype)
            torch.lerp(near, far, share, out=out[:, :, branches])
            sums.append((prompt_lse, torch.logaddexp(far_lse, near_lse)))
        ctx.save_for_backward(query, key, value, output, *(lse for pair in sums for lse in pair))
        ctx.layout, ctx.scale = layout, scale
        return output

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        query, key, value, output, *sums = ctx.saved_tensors
        totals = [torch.zeros_like(x) for x in (query, key, value)]
        for b, row in enumerate(ctx.layout):
            grad, q, k, v, out = (x[b : b + 1] for x in (grads[0], query, key, value, output))
            prompt_lse, lse = sums[2 * b : 2 * b + 2]
            d_q, d_k, d_v = (x[b : b + 1] for x in totals)
            end, stop = row.prompt, row.stop
            prompt, branches = slice(end), slice(end, stop)
            own = _flash_backward(
                *(x[:, :, prompt] for x in (grad, q, k, v, out)),
                prompt_lse, 0.0, True, scale=ctx.scale,
            )  # fmt: skip
            far = _flash_backward(
                grad[:, :, branches], q[:, :, branches], k[:, :, prompt], v[:, :, prompt],
                out[:, :, branches], lse, 0.0, False, scale=ctx.scale,
            )  # fmt: skip
            d_q[:, :, prompt], d_q[:, :, branches] = own[0], far[0]
            torch.add(own[1], far[1], out=d_k[:, :, prompt])
            torch.add(own[2], far[2], out=d_v[:, :, prompt])
            for one in row.spans():
                near = _flash_backward(
                    *(x[:, :, one] for x in (grad, q, k, v, out)),
                    lse[:, :, one.start - end : one.stop - end], 0.0, True, scale=ctx.scale,
                )  # fmt: skip
                d_q[:, :, one] += near[0]
                d_k[:, :, one], d_v[:, :, one] = near[1], near[2]
        return *totals, None, None


def split_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    layout: tuple[Branches, ...] = (),
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """A transformers attention function for rows laid out as `layout` says.

    Args:
        module: The attention layer; its query heads per key head are read from it.
        query: (B, H, S, D).
        key: (B, H / n, S, D).
        value: The same.
        attention_mask: None; the layout is the mask.
        scaling: Factor on the scores; None is 1 / sqrt(D).
        layout: One entry a row. Rows of a single branch are plain causal and run as one batch.
        **_: What transformers passes to every attention function.
    """
    if len(layout) != len(query) or attention_mask is not None:
        raise ValueError(f"{len(layout)} layouts for {len(query)} rows, mask {attention_mask}")
    repeats = query.shape[1] // key.shape[1]
    if repeats > 1:
        key, value = (x.repeat_interleave(repeats, dim=1) for x in (key, value))
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    if all(len(row.lengths) == 1 for row in layout):
        output = F.scaled_dot_product_attention(query, key, value, is_causal=True, scale=scale)
    else:
        output = _SplitAttention.apply(query, key, value, layout, scale)
    return output.transpose(1, 2).contiguous(), None


def fused_attention(*arguments: Any, **named: Any) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The FlexAttention of transformers, for a mask from `block_mask`.

    Past its bound of recompilations torch would continue without the fused kernel, without a
    warning and with all scores in memory; here that is an error. Settings of torch's compiler
    belong to a thread, and recomputed blocks run in that of the backward pass, so they are made at
    the call.

    Raises:
        FailOnRecompileLimitHit: More than `SHAPES` kinds of shapes (`TORCH_LOGS=recompiles`).
    """
    from torch._dynamo import config

    with config.patch(recompile_limit=SHAPES, fail_on_recompile_limit_hit=True):
        return ALL_ATTENTION_FUNCTIONS["flex_attention"](*arguments, **named)


ALL_ATTENTION_FUNCTIONS.register(SPLIT, split_attention)
ALL_ATTENTION_FUNCTIONS.register(FLEX, fused_attention)


def choose(setting: str, device: torch.device) -> Mode:
    """The mode behind a setting.

    Raises:
        ValueError: `split` or `flex` on a device that does not have it.
    """
    if setting == "auto":
        return "flex" if device.type == "cuda" else "split" if device.type == "cpu" else "dense"
    needs = {"split": "cpu", "flex": "cuda"}.get(setting, device.type)
    if needs != device.type:
        raise ValueError(f"attention={setting} needs {needs}, the model is on {device.type}")
    return setting  # type: ignore[return-value]


def block_mask(segments: torch.Tensor) -> BlockMask:
    """`tree_mask` as FlexAttention's block mask, from segments (B, S), each one run of tokens.

    A block is judged by the segments at its ends: torch's `create_block_mask` would look at all S^2
    pairs of tokens, gigabytes at a thousand frames.
    """

    def allowed(
        b: torch.Tensor, h: torch.Tensor, query: torch.Tensor, key: torch.Tensor
    ) -> torch.Tensor:
        seen = segments[b, key]
        return ((seen == 0) | (seen == segments[b, query])) & (query >= key)

    tokens = segments.shape[1]
    starts = torch.arange(0, tokens, BLOCK, device=segments.device)
    stops = (starts + BLOCK).clamp(max=tokens)
    first, last = segments[:, starts], segments[:, stops - 1]  # (B, blocks)
    prompt = (segments == 0).sum(1, keepdim=True)
    behind_prompt = segments.gather(1, starts.maximum(prompt).clamp(max=tokens - 1))
    branch_alone = behind_prompt == last  # but for prompt tokens, which all may see
    unbroken = stops - starts == BLOCK  # torch counts a shorter one as partial

    query, key = (slice(None), slice(None), None), (slice(None), None)
    earlier = starts[:, None] > starts
    seen = earlier & ((first == 0)[key] | (last[key] == first[query]))
    same = branch_alone[key] & (last[key] == last[query])
    full = earlier & unbroken[:, None] & ((last == 0)[key] | same)
    diagonal = starts[:, None] == starts
    return BlockMask.from_kv_blocks(
        *_in_order(diagonal | (seen & ~full)),
        *_in_order(full),
        BLOCK_SIZE=BLOCK,
        mask_mod=allowed,
        seq_lengths=(tokens, tokens),
    )


def _in_order(blocks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """How many blocks each row of (B, blocks, blocks) has, and all indices, those blocks first."""
    order = blocks.int().argsort(dim=-1, descending=True, stable=True)
    return blocks.sum(-1, dtype=torch.int32)[:, None], order.int()[:, None]


@contextmanager
def tree_attention(
    model: Any,
    batch: PackedBatch,
    mode: Mode,
    device: torch.device,
    sequence: Group | None = None,
) -> Iterator[dict[str, Any]]:
    """Make a decoder attend by tree; yields the `mask` (and layout) to give its forward pass.

    Keep it open through the backward pass where activations are recomputed there. Where several
    processes share the `sequence`, the forward pass takes a slice and each attends with some heads.
    """
    config = model.config
    before = config._attn_implementation
    arguments: dict[str, Any] = {"mask": None}
    several = any(len(lengths) > 1 for lengths in batch.branches)
    if mode == "split" and several and batch.segments.shape[1] <= SHORT:
        mode = "dense"
    if mode == "split":
        implementation = SPLIT
        arguments["layout"] = tuple(
            Branches(prompt, lengths)
            for prompt, lengths in zip(batch.prompts, batch.branches, strict=True)
        )
    elif mode == "flex" and not several:
        implementation = "sdpa"  # plain causal rows: the flash kernel, without a mask
    elif mode == "flex":
        implementation = FLEX
        arguments["mask"] = block_mask(torch.from_numpy(batch.segments).to(device))
    else:
        implementation = "sdpa"
        arguments["mask"] = torch.from_numpy(np.ascontiguousarray(tree_mask(batch.segments)))
        arguments["mask"] = arguments["mask"].to(device)
    if sequence is not None and sequence.size > 1:
        arguments["sequence"] = HeadExchange(sequence, implementation)
        implementation = SEQUENCE
    config._attn_implementation = implementation
    try:
        yield arguments
    finally:
        config._attn_implementation = before
