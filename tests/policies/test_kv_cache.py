"""The cache with spare room holds what the cache of transformers holds, and copies less."""

from __future__ import annotations

import weakref
from collections.abc import Callable

import pytest
import torch
from transformers.cache_utils import Cache, DynamicCache

from agents.model.kv_cache import SPARE, growing_cache


def fill(cache: Cache, rows: int, lengths: list[int], seed: int = 0) -> None:
    generator = torch.Generator().manual_seed(seed)
    for length in lengths:
        for layer in range(2):
            states = torch.randn(2, rows, 3, length, 4, generator=generator)
            cache.update(states[0], states[1], layer)


def same(ours: Cache, theirs: Cache) -> bool:
    return all(
        torch.equal(one.keys, other.keys) and torch.equal(one.values, other.values)
        for one, other in zip(ours.layers, theirs.layers, strict=True)
    )


@pytest.mark.parametrize(
    "change",
    [
        lambda cache: cache.batch_select_indices(torch.tensor([1, 1, 0])),
        lambda cache: cache.batch_select_indices(torch.tensor([0])),
        lambda cache: cache.batch_repeat_interleave(2),
        lambda cache: cache.crop(-3),
        lambda cache: cache.reset(),
    ],
    ids=["repeat", "drop", "interleave", "crop", "reset"],
)
def test_it_holds_what_the_cache_of_transformers_holds(change: Callable[[Cache], None]) -> None:
    ours, theirs = growing_cache(), DynamicCache()
    for cache in (ours, theirs):
        fill(cache, 2, [5, 1, 1, SPARE, 1, 2 * SPARE, 1])
    assert same(ours, theirs)
    assert ours.get_seq_length() == theirs.get_seq_length()
    for cache in (ours, theirs):
        change(cache)
    rows = 2 if not theirs.get_seq_length() else len(theirs.layers[0].keys)
    for cache in (ours, theirs):
        fill(cache, rows, [1, 1, SPARE, 1], seed=1)
    assert same(ours, theirs)


def test_what_is_not_selected_is_let_go() -> None:
    ours = growing_cache()
    fill(ours, 8, [5])
    buffers = [weakref.ref(buffer) for layer in ours.layers for buffer in layer._buffers]
    ours.batch_select_indices(torch.tensor([0]))
    assert all(buffer() is None for buffer in buffers)


def test_a_selection_leaves_the_rows_that_it_was_made_of() -> None:
    ours = growing_cache()
    fill(ours, 2, [5])
    before = ours.layers[0].keys
    kept = before.clone()
    ours.batch_select_indices(torch.tensor([0, 1]))
    fill(ours, 2, [1])
    assert torch.equal(before, kept)


def test_tokens_are_added_in_place_until_the_room_is_used_up() -> None:
    ours = growing_cache()
    fill(ours, 2, [5])
    places = []
    for _ in range(SPARE + 1):
        fill(ours, 2, [1])
        places.append(ours.layers[0].keys.data_ptr())
    assert len(set(places[:SPARE])) == 1
    assert places[SPARE] != places[0]
