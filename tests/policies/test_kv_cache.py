"""The cache of shared prompts: rows move, leave and come back with what is theirs."""

from __future__ import annotations

import weakref

import numpy as np
import pytest
import torch

from agents.model.cached_attention import PromptPass, RowPass, by_prompt, cached_attention
from agents.model.kv_cache import SPARE, GroupCache, KeyValues, to_front

HEADS, SHARED, WIDTH = 4, 2, 8
CPU = torch.device("cpu")


def held(rows: int, slots: int) -> KeyValues:
    cache = KeyValues(rows, slots)
    keys, values = cache.of(0, torch.zeros(rows, SHARED, 1, WIDTH))
    keys += torch.arange(rows)[:, None, None, None]
    values -= torch.arange(rows)[:, None, None, None]
    return cache


def rows_of(cache: KeyValues) -> list[int]:
    keys, values = cache.layers[0]
    assert torch.equal(keys, -values)
    return keys[:, 0, 0, 0].int().tolist()


def test_rows_change_places_in_every_buffer() -> None:
    cache = held(4, 3)
    cache.swap([0], [3])
    assert rows_of(cache) == [3, 1, 2, 0]
    cache.swap([], [])
    assert rows_of(cache) == [3, 1, 2, 0]


def test_more_room_keeps_what_is_there_and_is_made_seldom() -> None:
    cache = held(2, 3)
    cache.reserve(3)
    assert cache.layers[0][0].shape[2] == cache.slots == 3
    cache.reserve(4)
    assert cache.layers[0][0].shape[2] == cache.slots == 4 + SPARE
    assert rows_of(cache) == [0, 1]
    assert cache.layers[0][0][:, :, 3:].abs().sum() == 0
    cache.reserve(1000)
    assert cache.slots == 1500


def test_what_is_not_kept_is_let_go() -> None:
    cache = held(3, 3)
    buffers = [weakref.ref(buffer) for buffer in cache.layers[0]]
    cache.keep(1)
    assert rows_of(cache) == [0] and all(buffer() is None for buffer in buffers)


@pytest.mark.parametrize(
    ("chosen", "order"),
    [([0, 1, 2], [0, 1, 2]), ([2], [2, 1, 0]), ([0, 2], [0, 2, 1]), ([], [0, 1, 2])],
)
def test_chosen_rows_come_to_the_front(chosen: list[int], order: list[int]) -> None:
    assert to_front(chosen, 3)[2] == order


def test_rows_are_grouped_by_prompt() -> None:
    members, back = by_prompt(np.array([2, 0, 2, 2]), 3)
    assert members.tolist() == [[1, 0, 0], [0, 0, 0], [0, 2, 3]]
    assert members.reshape(-1)[back].tolist() == [0, 1, 2, 3]


class Plain:
    """The same conversations as plain sequences, one a row, attended without any cache."""

    def __init__(self, prompts: list[torch.Tensor], prompt_of: list[int]) -> None:
        self.qkv = [prompts[u] for u in prompt_of]

    def attend(self, row: int, new: torch.Tensor) -> torch.Tensor:
        """Outputs (S, H, D) of further tokens, with the heads' keys repeated."""
        self.qkv[row] = torch.cat([self.qkv[row], new], dim=1)
        q, k, v = split(self.qkv[row])
        k, v = (x.repeat_interleave(HEADS // SHARED, 0) for x in (k, v))
        scores = (q @ k.transpose(-1, -2)) * WIDTH**-0.5
        scores += torch.full(scores.shape[-2:], -torch.inf).triu(1)
        return (scores.softmax(-1) @ v)[:, -new.shape[1] :].transpose(0, 1)


def split(qkv: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """(heads, S, D) of queries, keys, values, stored in one tensor."""
    return qkv.split([HEADS, SHARED, SHARED])


class Case:
    """Three prompts of unequal length, five rows, two layers' worth of caches."""

    def __init__(self) -> None:
        self.random = torch.Generator().manual_seed(0)
        self.rows = [0, 2, 2, 1, 2]
        lengths = [5, 1, 3]
        prompts = [self.tokens(n) for n in lengths]
        self.plain = Plain(prompts, self.rows)
        self.cache = GroupCache(lengths, self.rows)
        self.order = list(range(5))
        store = PromptPass(self.cache, [0, 2, 1])
        batch = self.batch([prompts[0], prompts[2], prompts[1]])
        out, _ = cached_attention(Layer(), *batch, None, store=store)
        want = [Plain([torch.zeros(8, 0, WIDTH)], [0]).attend(0, p) for p in prompts]
        for row, prompt in enumerate([0, 2, 1]):
            torch.testing.assert_close(out[row, : lengths[prompt]], want[prompt])

    def tokens(self, n: int) -> torch.Tensor:
        return torch.randn(HEADS + 2 * SHARED, n, WIDTH, generator=self.random)

    def batch(self, rows: list[torch.Tensor]) -> list[torch.Tensor]:
        width = max(row.shape[1] for row in rows)
        padded = [torch.nn.functional.pad(row, (0, 0, 0, width - row.shape[1])) for row in rows]
        return [torch.stack(part) for part in zip(*map(split, padded), strict=True)]

    def step(self, lengths: list[int]) -> None:
        """The active rows, as they lie, read so many tokens each."""
        new = [self.tokens(n) for n in lengths]
        store = RowPass(self.cache, np.array(lengths), CPU)
        out, _ = cached_attention(Layer(), *self.batch(new), None, store=store)
        for place, tokens in enumerate(new):
            want = self.plain.attend(self.order[place], tokens)
            torch.testing.assert_close(out[place, : lengths[place]], want, atol=1e-6, rtol=1e-6)

    def narrow(self, going: list[int]) -> None:
        moved = self.cache.narrow(going)
        self.order = [self.order[i] for i in moved]


class Layer(torch.nn.Module):
    layer_idx = 0


def test_rows_that_leave_and_return_attend_as_plain_sequences() -> None:
    case = Case()
    case.step([1] * 5)
    case.step([1] * 5)
    case.narrow([1, 3, 4])  # the first prompt has no row any more
    assert case.cache.used == 2 and case.cache.active == 3
    case.step([1] * 3)
    case.narrow([2])
    for _ in range(SPARE + 2):
        case.step([1])
    case.cache.wake()
    case.step([4, 1, 2, 3, 1])
    case.step([1] * 5)


def test_rows_that_are_forgotten_leave_the_others_as_they_were() -> None:
    case = Case()
    case.step([2, 1, 1, 3, 1])
    case.narrow([1, 4])
    case.cache.forget_rest()
    assert len(case.cache) == 2 and case.cache.prompts.rows == 1
    case.step([1, 1])
    case.step([2, 3])


def test_an_empty_prompt_is_no_prompt() -> None:
    cache = GroupCache([0], [0, 0])
    new = torch.randn(8, 1, WIDTH)
    batch = [torch.stack([part, part]) for part in split(new)]
    out, _ = cached_attention(Layer(), *batch, None, store=RowPass(cache, np.array([1, 1]), CPU))
    values = split(new)[2].repeat_interleave(HEADS // SHARED, 0).transpose(0, 1)
    torch.testing.assert_close(out, torch.stack([values, values]))


def test_attention_over_a_cache_refuses_a_mask() -> None:
    new = torch.zeros(1, 2, 1, WIDTH)
    with pytest.raises(ValueError, match="its pass and no mask"):
        cached_attention(Layer(), new, new, new, None)
