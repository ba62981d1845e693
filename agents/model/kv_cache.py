"""Keys and values of conversations that grow token by token.

Under `agents/model/sampling.py`. The cache of transformers copies all keys and values to add one
token to them, which on a CPU takes longer than to attend to them. Here they lie in buffers with
room for `SPARE` more tokens, so that they are copied once in so many steps.

Tests: `pytest tests/policies/test_kv_cache.py`.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers.cache_utils import Cache, DynamicLayer

SPARE = 64
"""Tokens that a buffer has room for when it is made."""


class SpareLayer(DynamicLayer):
    """Keys and values (B, heads, tokens, D) of one layer, as views of buffers with spare tokens."""

    _buffers: tuple[torch.Tensor, torch.Tensor] | None = None

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Add tokens; returns all keys and all values."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start = self.get_seq_length()
        stop = start + key_states.shape[-2]
        buffers = self._buffers
        if buffers is None or stop > buffers[0].shape[-2] or not self._in(buffers):
            buffers = self._buffers = (
                _with_room(self.keys, key_states, start, stop),
                _with_room(self.values, value_states, start, stop),
            )
        for buffer, states in zip(buffers, (key_states, value_states), strict=True):
            buffer[:, :, start:stop] = states
        self.keys, self.values = (buffer[:, :, :stop] for buffer in buffers)
        return self.keys, self.values

    def _in(self, buffers: tuple[torch.Tensor, torch.Tensor]) -> bool:
        """Whether the keys are still those of the buffers: repeating rows makes new ones."""
        keys, room = self.keys, buffers[0]
        return keys is not None and keys.data_ptr() == room.data_ptr() and len(keys) == len(room)

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keep these rows, in this order, and not the buffers that the others lie in."""
        self._buffers = None
        super().batch_select_indices(indices)

    def reset(self) -> None:
        """Forget everything."""
        self._buffers = None
        super().reset()


def _with_room(old: torch.Tensor | None, new: torch.Tensor, start: int, stop: int) -> torch.Tensor:
    """A buffer for `stop` tokens and `SPARE` more that holds the old ones."""
    rows, heads, _, width = new.shape
    buffer = new.new_empty(rows, heads, stop + SPARE, width)
    if start and old is not None:
        buffer[:, :, :start] = old
    return buffer


def growing_cache() -> Cache:
    """An empty cache for a decoder of full attention."""
    return Cache(layer_class_to_replicate=SpareLayer)
