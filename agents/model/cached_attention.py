"""Attention of a sampler's passes over its cache of shared prompts.

A pass is given to the decoder (`vlm.forward(..., store=...)`) and does the attention of all its
layers: it writes the new tokens' keys and values into the cache and attends to what is there.

- `PromptPass`: prompts of different groups from their first token on, plain causal rows.
- `RowPass`: the next tokens of each active row. A single token a row attends to the keys of its
  prompt as one product with the other rows of its group, as in Hydragen (arXiv 2402.05099): the
  prompt's keys are read once a group. Query heads that share keys are rows of that product, so no
  keys are repeated for them.

Tests: `pytest tests/policies/test_kv_cache.py tests/policies/test_sampling.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from agents.model.kv_cache import GroupCache

CACHED = "paravt_cached"


class Pass(Protocol):
    """What attends in every layer of one forward pass."""

    def attend(
        self, layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float
    ) -> torch.Tensor:
        """Output (B, H, S, D) of queries (B, H, S, D) with new keys and values (B, H / n, S, D)."""


class PromptPass:
    """Prompts from their first token on.

    Args:
        cache: Where their keys and values go.
        prompts: Their places in it, (C,); each is padded behind its end.
    """

    def __init__(self, cache: GroupCache, prompts: list[int]) -> None:
        self.cache, self.prompts = cache, prompts

    def attend(
        self, layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float
    ) -> torch.Tensor:
        """See `Pass`. What padding computes is never read: real tokens stand before it."""
        for buffer, new in zip(self.cache.prompts.of(layer, k), (k, v), strict=True):
            buffer[self.prompts, :, : new.shape[2]] = new
        grouped = q.shape[1] != k.shape[1]
        return F.scaled_dot_product_attention(
            q, k, v, is_causal=True, scale=scale, enable_gqa=grouped
        )


class RowPass:
    """The next tokens of the active rows; afterwards they are counted in the cache.

    Args:
        cache: Where the keys and values are.
        new_A: (A,) tokens that each row adds; shorter rows are padded behind their end.
        device: Of the model.
    """

    def __init__(self, cache: GroupCache, new_A: np.ndarray, device: torch.device) -> None:
        a, u, width = cache.active, cache.used, int(new_A.max())
        self.cache, self.a, self.u, self.width = cache, a, u, width
        slots = cache.lengths[:a, None] + np.arange(width)  # (A, width)
        self.stop, self.longest = int(slots.max()) + 1, int(cache.prompt_lengths[:u].max())
        cache.own.reserve(self.stop)
        self.places = torch.arange(a, device=device)[:, None]
        self.slots = torch.from_numpy(slots).to(device)
        seen = torch.arange(self.stop, device=device) <= self.slots[:, :, None]
        self.own_mask = _additive(seen)[:, None]  # (A, 1, width, stop)
        lengths = torch.from_numpy(cache.prompt_lengths[:u]).to(device)
        seen = torch.arange(self.longest, device=device) < lengths[:, None]
        self.prompt_mask = _additive(seen)[:, None, None]  # (U, 1, 1, longest)
        self.prompt_of = torch.from_numpy(cache.prompt_of[:a]).to(device)
        members, back = by_prompt(cache.prompt_of[:a], u)
        self.members = torch.from_numpy(members).to(device)
        self.back = torch.from_numpy(back).to(device)
        cache.lengths[:a] += new_A

    def attend(
        self, layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float
    ) -> torch.Tensor:
        """See `Pass`."""
        own = self.cache.own.of(layer, k)
        for buffer, new in zip(own, (k, v), strict=True):
            buffer[self.places, :, self.slots] = new.transpose(1, 2)
        own_k, own_v = (buffer[: self.a, :, : self.stop] for buffer in own)
        prompts = self.cache.prompts.of(layer, k)
        prompt_k, prompt_v = (buffer[: self.u, :, : self.longest] for buffer in prompts)
        heads = k.shape[1]
        rows = q.reshape(self.a, heads, -1, q.shape[-1])  # heads that share keys as further rows
        if self.width == 1:
            output = self._one_token(rows * scale, own_k, own_v, prompt_k, prompt_v)
        else:
            repeats = q.shape[1] // heads
            mask = torch.cat(
                [
                    self.prompt_mask[self.prompt_of].expand(-1, 1, self.width, -1),
                    self.own_mask,
                ],
                dim=-1,
            ).to(q.dtype)
            output = F.scaled_dot_product_attention(
                rows,
                torch.cat([prompt_k[self.prompt_of], own_k], dim=2),
                torch.cat([prompt_v[self.prompt_of], own_v], dim=2),
                attn_mask=mask.repeat(1, 1, repeats, 1),
                scale=scale,
            )
        return output.reshape(q.shape)

    def _one_token(
        self,
        q: torch.Tensor,
        own_k: torch.Tensor,
        own_v: torch.Tensor,
        prompt_k: torch.Tensor,
        prompt_v: torch.Tensor,
    ) -> torch.Tensor:
        """One softmax over the prompt's and the row's own scores; q (A, H, n, D) is scaled."""
        far = self._by_prompt(q) @ prompt_k.transpose(-1, -2) + self.prompt_mask
        near = q @ own_k.transpose(-1, -2) + self.own_mask
        scores = torch.cat([self._by_row(far, q.shape[2]), near], dim=-1)
        weights = scores.softmax(-1, dtype=torch.float32).to(q.dtype)
        far_weights, near_weights = weights.split([self.longest, self.stop], dim=-1)
        far = self._by_prompt(far_weights) @ prompt_v
        return self._by_row(far, q.shape[2]) + near_weights @ own_v

    def _by_prompt(self, x: torch.Tensor) -> torch.Tensor:
        """(A, H, n, *) as (U, H, members * n, *), short groups padded with any row."""
        x = x[self.members]  # (U, members, H, n, *)
        return x.transpose(1, 2).flatten(2, 3)

    def _by_row(self, x: torch.Tensor, n: int) -> torch.Tensor:
        """The way back."""
        x = x.unflatten(2, (-1, n)).transpose(1, 2).flatten(0, 1)
        return x[self.back]


def _additive(seen: torch.Tensor) -> torch.Tensor:
    """0 where a query may look, minus infinity elsewhere."""
    return torch.zeros(seen.shape, device=seen.device).masked_fill_(~seen, -torch.inf)


def by_prompt(prompt_of: np.ndarray, prompts: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows (A,) by their prompt.

    Returns:
        The rows of each prompt (U, most), shorter ones filled up with row 0; and for each row its
        place in that flattened.

    >>> by_prompt(np.array([1, 0, 1]), 2)
    (array([[1, 0],
           [0, 2]]), array([2, 0, 3]))
    """
    counts = np.bincount(prompt_of, minlength=prompts)
    order = np.argsort(prompt_of, kind="stable")
    rank = np.arange(len(order)) - (counts.cumsum() - counts)[prompt_of[order]]
    members = np.zeros((prompts, counts.max()), dtype=np.int64)
    members[prompt_of[order], rank] = order
    back = np.empty(len(order), dtype=np.int64)
    back[order] = prompt_of[order] * counts.max() + rank
    return members, back


def cached_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    store: Pass | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """A transformers attention function that leaves it to the pass.

    Args:
        module: The attention layer.
        query: (B, H, S, D).
        key: (B, H / n, S, D), of the new tokens.
        value: The same.
        attention_mask: None; the pass knows who may look where.
        scaling: Factor on the scores; None is 1 / sqrt(D).
        store: The pass.
        **_: What transformers passes to every attention function.
    """
    if store is None or attention_mask is not None:
        raise ValueError(f"attention over a cache needs its pass and no mask: {store}")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    output = store.attend(int(module.layer_idx), query, key, value, scale)  # type: ignore[arg-type]
    return output.transpose(1, 2), None


ALL_ATTENTION_FUNCTIONS.register(CACHED, cached_attention)


@contextmanager
def cached(model: Any) -> Iterator[None]:
    """Let a decoder attend through the passes that it is given."""
    before = model.config._attn_implementation
    model.config._attn_implementation = CACHED
    try:
        yield
    finally:
        model.config._attn_implementation = before
