"""What a reset was asked for: options, seeds and the mask of a vector environment, row by row.

First stretch of an episode, before anything is drawn: a value for all rows, or one (or None) for
each, becomes a list with one entry a row, and what cannot be is refused before a row has started.
Run the tests with `pytest tests/env/test_vector.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

RESET_OPTIONS = ("task_id", "frame_budget")
"""What both environments take; the vector environment takes `reset_mask`, too."""


def rows_of(mask: Any, rows: int) -> np.ndarray:
    """The rows that a `reset_mask` names, bool (rows,); None names all.

    Raises:
        ValueError: Not a bool array of that shape with a True in it.
    """
    if mask is None:
        return np.ones(rows, bool)
    mask = np.asarray(mask)
    if mask.dtype != np.bool_ or mask.shape != (rows,) or not mask.any():
        raise ValueError(
            f"reset_mask must be a bool array of shape ({rows},) with a True in it, "
            f"not {mask.dtype} of shape {mask.shape}: {mask}"
        )
    return mask


def seeds_of(seed: int | Sequence[int | None] | None, rows: int) -> list[int | None]:
    """The seed of each row: one number s gives s, s + 1, ...; None continues a row's generator.

    Raises:
        ValueError: Not a whole number of at least 0, or not one for each row.

    >>> seeds_of(7, 3), seeds_of([5, None], 2)
    ([7, 8, 9], [5, None])
    """
    seeds = per_row("seed", seed, rows)
    for one in seeds:
        if one is not None and not (isinstance(one, int | np.integer) and one >= 0):
            raise ValueError(
                "seed must be a whole number of at least 0, or one (or None) for each row, "
                f"not {seed!r}"
            )
    if isinstance(seed, int | np.integer):
        return [int(seed) + row for row in range(rows)]
    return [None if one is None else int(one) for one in seeds]


def per_row(name: str, value: Any, rows: int) -> list[Any]:
    """One value a row, where there may be one for all.

    Raises:
        ValueError: Several, and not as many as there are rows.
    """
    several = isinstance(value, Iterable) and getattr(value, "ndim", 1) > 0
    if isinstance(value, str) or not several:
        return [value] * rows
    values = list(value)
    if len(values) != rows:
        raise ValueError(
            f"{name} has {len(values)} values for {rows} rows: "
            "give one for each row, or one for all"
        )
    return values
