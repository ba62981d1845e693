"""Random draws that belong to a conversation, and not to the batch that it is drawn in.

Every conversation has a stream: a number that its seed, its prompt and its place among equal
prompts decide. The uniform of its n-th token is a hash of the stream and n (a counter-based
generator, Salmon et al. 2011), so a row draws the same tokens alone, in a full batch, and in any
order. Used by `agents/model/sampling.py`. Tests: `pytest tests/policies/test_draws.py`.
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
"""Step between the states of SplitMix64: 2^64 / golden ratio, odd."""


def stream_of(*parts: int | bytes) -> int:
    """A stream, 64 bits, that these parts decide."""
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=8).digest(), "little")


def uniforms(streams_B: np.ndarray, counters_B: np.ndarray) -> np.ndarray:
    """One number in [0, 1) a row, a multiple of 2^-24: SplitMix64 (Steele et al. 2014).

    Args:
        streams_B: (B,) uint64.
        counters_B: (B,) uint64, the place of the token in its conversation.
    """
    state = streams_B + (counters_B + np.uint64(1)) * GOLDEN
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    state ^= state >> np.uint64(31)
    return (state >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24)


def inverse_draw(logits_BV: torch.Tensor, uniforms_B: torch.Tensor) -> torch.Tensor:
    """The token (B,) at which the cumulated softmax passes each row's uniform.

    Tokens of probability 0 are never drawn.
    """
    cumulated = logits_BV.softmax(-1).cumsum(-1)
    total = cumulated[:, -1:]
    # rounding may make it the total, which no token passes
    target = (uniforms_B[:, None] * total).minimum(total.nextafter(torch.zeros_like(total)))
    token = torch.searchsorted(cumulated, target, right=True)[:, 0]
    return token.clamp_(max=logits_BV.shape[-1] - 1)  # beyond the last one where logits are NaN
