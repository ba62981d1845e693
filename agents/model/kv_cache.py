"""Keys and values of a batch of conversations: a prompt once for its group, then a part a row.

Under `agents/model/sampling.py`; `agents/model/cached_attention.py` reads and writes it. Rows that
still draw lie in front, so that a step computes a view of the first rows, and a row that is done
costs nothing until its next turn. What a row adds to its prompt lies in buffers with spare slots.

Tests: `pytest tests/policies/test_kv_cache.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

SPARE = 64
"""Slots that a buffer has for further tokens when it is made, at least."""

Pair = tuple[torch.Tensor, torch.Tensor]


class KeyValues:
    """Keys and values (rows, heads, slots, D) of every layer; unused slots are 0.

    Args:
        rows: How many.
        slots: Tokens that there is room for at first.
    """

    def __init__(self, rows: int, slots: int) -> None:
        self.rows, self.slots = rows, slots
        self.layers: list[Pair] = []

    def of(self, layer: int, like: torch.Tensor) -> Pair:
        """The buffers of a layer, made where it has none yet (layers come in order)."""
        if layer == len(self.layers):
            shape = self.rows, like.shape[1], self.slots, like.shape[-1]
            self.layers.append((like.new_zeros(shape), like.new_zeros(shape)))
        return self.layers[layer]

    def reserve(self, slots: int) -> None:
        """Make room for `slots` tokens, and for half as many again."""
        if slots <= self.slots:
            return
        self.slots = slots + max(SPARE, slots // 2)
        for layer, pair in enumerate(self.layers):
            self.layers[layer] = self._longer(pair[0]), self._longer(pair[1])

    def _longer(self, old: torch.Tensor) -> torch.Tensor:
        new = old.new_zeros(*old.shape[:2], self.slots, old.shape[-1])
        new[:, :, : old.shape[2]] = old
        return new

    def swap(self, first: Sequence[int], second: Sequence[int]) -> None:
        """Let the rows `first[i]` and `second[i]` change places."""
        if not len(first):
            return
        to, source = [*first, *second], [*second, *first]
        for pair in self.layers:
            for buffer in pair:
                buffer[to] = buffer[source]

    def keep(self, rows: int) -> None:
        """Let all but the first rows go."""
        self.rows = rows
        self.layers = [(k[:rows].clone(), v[:rows].clone()) for k, v in self.layers]


def to_front(chosen: Sequence[int], rows: int) -> tuple[list[int], list[int], list[int]]:
    """How chosen rows come to lie in front with the fewest moves.

    Args:
        chosen: Their places, ascending.
        rows: How many there are.

    Returns:
        Places in front that are not chosen, chosen places behind them that they change with, and
        for each place the row that lies there then.

    >>> to_front([1, 3], 4)
    ([0], [3], [3, 1, 2, 0])
    """
    within = set(chosen)
    holes = [place for place in range(len(chosen)) if place not in within]
    behind = [place for place in chosen if place >= len(chosen)]
    order = list(range(rows))
    for hole, place in zip(holes, behind, strict=True):
        order[hole], order[place] = place, hole
    return holes, behind, order


class GroupCache:
    """Prompts, and what each row has behind its prompt.

    Args:
        prompt_lengths: Tokens of each prompt, (U,).
        prompt_of: The prompt of each row, (B,).

    Attributes:
        prompts: Keys and values of the prompts.
        own: Keys and values of the rows' own tokens.
        lengths: (B,) tokens that each row has of its own.
        active: How many rows, in front, draw.
        used: How many prompts, in front, these have.
    """

    def __init__(self, prompt_lengths: Sequence[int], prompt_of: Sequence[int]) -> None:
        self.prompt_lengths = np.array(prompt_lengths, dtype=np.int64)
        self.prompt_of = np.array(prompt_of, dtype=np.int64)
        self.lengths = np.zeros(len(prompt_of), dtype=np.int64)
        self.prompts = KeyValues(len(prompt_lengths), int(self.prompt_lengths.max()))
        self.own = KeyValues(len(prompt_of), 0)
        self.active, self.used = len(prompt_of), len(prompt_lengths)

    def __len__(self) -> int:
        return len(self.lengths)

    def wake(self) -> None:
        """All rows are active again."""
        self.active, self.used = len(self.lengths), len(self.prompt_lengths)

    def narrow(self, going: Sequence[int]) -> list[int]:
        """Let only these of the active rows stay active, in front.

        Returns:
            For each place the row that lay elsewhere before, all rows.
        """
        holes, behind, order = to_front(going, len(self))
        self.own.swap(holes, behind)
        self.lengths, self.prompt_of = self.lengths[order], self.prompt_of[order]
        self.active = len(going)
        used = np.unique(self.prompt_of[: self.active]).tolist()
        holes, behind, places = to_front(used, len(self.prompt_lengths))
        self.prompts.swap(holes, behind)
        self.prompt_lengths = self.prompt_lengths[places]
        self.prompt_of = np.argsort(places)[self.prompt_of]
        self.used = len(used)
        return order

    def forget_rest(self) -> None:
        """Free the rows that are not active, and prompts that no row uses any more."""
        if self.active < len(self):
            self.lengths, self.prompt_of = (
                self.lengths[: self.active],
                self.prompt_of[: self.active],
            )
            self.own.keep(self.active)
        if self.used < len(self.prompt_lengths):
            self.prompt_lengths = self.prompt_lengths[: self.used]
            self.prompts.keep(self.used)
