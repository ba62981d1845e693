"""Draws belong to a conversation: its seed decides them, not the batch that it is drawn in."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from agents.model.draws import inverse_draw, stream_of, uniforms


def numbers(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.uint64)


def test_uniforms_are_splitmix64() -> None:
    """Published first outputs from seed 0: e220a8397b1dcdaf, 6e789e6aa1b965f4."""
    drawn = uniforms(numbers(0, 0), numbers(0, 1))
    assert drawn.tolist() == [0xE220A8 / 2**24, 0x6E789E / 2**24]


def test_uniforms_fill_the_unit_interval_evenly() -> None:
    drawn = uniforms(np.full(100_000, 7, np.uint64), np.arange(100_000, dtype=np.uint64))
    assert drawn.min() >= 0.0 and drawn.max() < 1.0
    counts = np.bincount((drawn * 10).astype(int), minlength=10)
    # 10,000 each, standard deviation 95
    assert np.abs(counts - 10_000).max() < 400
    assert abs(np.corrcoef(drawn[:-1], drawn[1:])[0, 1]) < 0.02


def test_a_stream_follows_from_all_its_parts_and_their_order() -> None:
    streams = {stream_of(1, 2), stream_of(2, 1), stream_of(12), stream_of(1, b"2"), stream_of(1)}
    assert len(streams) == 5 and stream_of(1, 2) == stream_of(1, 2)
    assert all(0 <= stream < 2**64 for stream in streams)


@pytest.mark.parametrize(
    ("uniform", "token"),
    [(0.0, 0), (0.249, 0), (0.251, 2), (0.749, 2), (0.751, 3), (1 - 2**-24, 3)],
)
def test_a_draw_inverts_the_cumulated_distribution(uniform: float, token: int) -> None:
    logits = torch.tensor([[0.25, 0.0, 0.5, 0.25, 0.0]]).log()
    assert inverse_draw(logits, torch.tensor([uniform])).tolist() == [token]


def test_the_largest_uniform_draws_no_impossible_token() -> None:
    """Cumulated in float32 the total may lie beside 1, and its product with a uniform round up."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(200, 3000, generator=generator)
    logits[:, 2500:] = -torch.inf
    assert inverse_draw(logits, torch.full((200,), 1 - 2.0**-24)).max() < 2500
    logits[:, :500] = -torch.inf
    assert inverse_draw(logits, torch.zeros(200)).min() == 500


def test_draws_have_the_frequencies_of_the_softmax() -> None:
    probabilities = torch.tensor([0.1, 0.2, 0.3, 0.4])
    drawn = uniforms(np.full(20_000, 3, np.uint64), np.arange(20_000, dtype=np.uint64))
    tokens = inverse_draw(probabilities.log().expand(20_000, -1), torch.from_numpy(drawn))
    found = tokens.bincount(minlength=4) / 20_000
    torch.testing.assert_close(found, probabilities, atol=0.015, rtol=0)
