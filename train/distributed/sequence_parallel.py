"""Multi-modal sequence parallelism: several processes share the packed sequence of a group.

As LongVILA-R1's MR-SP (arXiv 2507.07966), in two stages. The frames are split evenly over the
processes' vision towers (a temporal patch of a video goes whole to one of them) and the features
are gathered; then the packed sequence is cut into equal
slices and each process computes its own. In between lies attention, which sees the whole sequence:
an all-to-all trades tokens for heads, so that each process attends with some of the heads by any of
the ways of `train/learner/attention.py`, and a second one trades back (as in DeepSpeed-Ulysses,
arXiv 2309.14509). Every exchange has its exact gradient.

Shapes: `s` tokens of a slice, `S` of the sequence, `H` heads. Command: `pytest
tests/distributed/test_parallel.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from train.common.errors import ConfigError
from train.distributed.processes import Group

SEQUENCE = "paravt_sequence"


class _Exchange(torch.autograd.Function):
    """All-to-all along the first axis: part j goes to process j. It is its own transpose."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, handle: dist.ProcessGroup) -> torch.Tensor:
        ctx.handle = handle
        out = torch.empty_like(x, memory_format=torch.contiguous_format)
        dist.all_to_all_single(out, x.contiguous(), group=handle)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None]:
        out = torch.empty_like(grads[0], memory_format=torch.contiguous_format)
        dist.all_to_all_single(out, grads[0].contiguous(), group=ctx.handle)
        return out, None


def _gathered(x: torch.Tensor, counts: Sequence[int], group: Group) -> torch.Tensor:
    """The rows of all processes, process j having `counts[j]` of them."""
    longest = max(counts)
    if longest == 0:
        return x.new_zeros(x.shape)
    padded = x.new_zeros(longest, *x.shape[1:])
    padded[: len(x)] = x
    rows = x.new_empty(group.size * longest, *x.shape[1:])
    dist.all_gather_into_tensor(rows, padded, group=group.handle)
    parts = rows.split(longest)
    return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])


class _GatherToUse(torch.autograd.Function):
    """Rows of all; each process uses them as it likes, so gradients are summed over processes."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, counts: Sequence[int], group: Group) -> torch.Tensor:
        ctx.counts, ctx.group = counts, group
        return _gathered(x, counts, group)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        counts, group = ctx.counts, ctx.group
        longest = max(counts)
        if longest == 0:
            return grads[0], None, None
        padded = grads[0].new_zeros(group.size, longest, *grads[0].shape[1:])
        for part, rows in zip(padded, grads[0].split(list(counts)), strict=True):
            part[: len(rows)] = rows
        own = torch.empty_like(padded[0])
        dist.reduce_scatter_tensor(own, padded.flatten(0, 1), group=group.handle)
        return own[: counts[group.rank]], None, None


class _GatherAlike(torch.autograd.Function):
    """Rows of all; every process does the same with them, so each keeps the gradient of its own."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, counts: Sequence[int], group: Group) -> torch.Tensor:
        ctx.counts, ctx.rank = counts, group.rank
        return _gathered(x, counts, group)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        return grads[0].split(list(ctx.counts))[ctx.rank].contiguous(), None, None


def gather_to_use(x: torch.Tensor, counts: Sequence[int], group: Group) -> torch.Tensor:
    """Rows of all processes (sum of counts, ...), for inputs of which each uses some.

    Args:
        x: (counts[rank], ...), the rows of this process.
        counts: Rows of each process.
        group: The processes.
    """
    return x if group.size == 1 else _GatherToUse.apply(x, counts, group)


def gather_alike(x: torch.Tensor, counts: Sequence[int], group: Group) -> torch.Tensor:
    """Rows of all processes, for outputs of which every process computes the same loss."""
    return x if group.size == 1 else _GatherAlike.apply(x, counts, group)


def check_heads(heads: int, processes: int) -> None:
    """Refuse processes that cannot share a sequence: each attends with as many heads.

    Args:
        heads: Of the keys; there are a multiple of them for the queries.
        processes: Those that share.

    Raises:
        ConfigError: They do not divide the heads.
    """
    if heads % processes:
        raise ConfigError(
            f"{processes} processes cannot share {heads} attention heads: set parallel.sequence to "
            f"a divisor of {heads}"
        )


@dataclass(frozen=True)
class HeadExchange:
    """What the attention function is told: who shares the sequence, and how each one attends."""

    group: Group
    inner: str

    def heads_for_tokens(self, x: torch.Tensor) -> torch.Tensor:
        """(B, H, s, D) with all heads of a slice to (B, H / size, S, D), all tokens of some heads.

        Raises:
            ConfigError: The processes do not divide the heads.
        """
        b, heads, tokens, width = x.shape
        size = self.group.size
        check_heads(heads, size)
        parts = x.reshape(b, size, heads // size, tokens, width).transpose(0, 1)
        traded = _Exchange.apply(parts, self.group.handle).permute(1, 2, 0, 3, 4)
        return traded.reshape(b, heads // size, size * tokens, width)

    def tokens_for_heads(self, x: torch.Tensor) -> torch.Tensor:
        """(B, S, H / size, D) back to (B, s, H, D)."""
        b, tokens, heads, width = x.shape
        size = self.group.size
        parts = x.reshape(b, size, tokens // size, heads, width).transpose(0, 1)
        traded = _Exchange.apply(parts, self.group.handle).permute(1, 2, 0, 3, 4)
        return traded.reshape(b, tokens // size, size * heads, width)


def sequence_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: Any,
    sequence: HeadExchange | None = None,
    **arguments: Any,
) -> tuple[torch.Tensor, None]:
    """A transformers attention function for slices: (B, H, s, D) in, (B, s, H, D) out."""
    if sequence is None:
        raise ValueError("sequence_attention needs its HeadExchange")
    attend = ALL_ATTENTION_FUNCTIONS[sequence.inner]
    traded = (sequence.heads_for_tokens(x) for x in (query, key, value))
    output, _ = attend(module, *traded, attention_mask, **arguments)
    return sequence.tokens_for_heads(output), None


ALL_ATTENTION_FUNCTIONS.register(SEQUENCE, sequence_attention)
