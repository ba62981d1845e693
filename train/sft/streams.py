"""Trajectories for ever, from a place that can be written down and taken up again.

Between what a stage of the cold start imitates and its batches (`train/sft/stage.py`): a run that
stopped draws what it would have drawn. Tests: `pytest tests/sft/test_resume.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from agents.base import Trajectory


class Stream(Iterator[Trajectory], Protocol):
    """Trajectories without end."""

    def place(self) -> dict[str, Any]:
        """Where it is, as JSON holds it; the generator that it shares is not part of it."""

    def go_to(self, place: Mapping[str, Any]) -> None:
        """Go on from a place."""


class Shuffled(Stream):
    """Items, every epoch in a new order.

    Args:
        items: At least one.
        rng: Draws the orders; shared with other streams.
    """

    def __init__(self, items: Sequence[Trajectory], rng: np.random.Generator) -> None:
        self._items, self._rng = items, rng
        self._order: list[int] = []
        self._at = 0

    def __next__(self) -> Trajectory:
        """The next item; an order is drawn when its first one is asked for."""
        if self._at == len(self._order):
            self._order, self._at = self._rng.permutation(len(self._items)).tolist(), 0
        self._at += 1
        return self._items[self._order[self._at - 1]]

    def place(self) -> dict[str, Any]:
        """The order of this epoch, and how much of it was given."""
        return {"order": self._order, "at": self._at}

    def go_to(self, place: Mapping[str, Any]) -> None:
        """Go on in the middle of an epoch.

        Raises:
            ValueError: There are other items than there were.
        """
        if len(place["order"]) not in (0, len(self._items)):
            raise ValueError(f"{len(self._items)} items, where {len(place['order'])} were")
        self._order, self._at = list(place["order"]), place["at"]
