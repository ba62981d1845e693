"""Infos as plain data: one row of a vector environment's info, and values that JSON can hold.

After the journey: recordings, rollouts and evaluation reports keep what an info said. Run the
examples with `python -m doctest paravt_env/common/infos.py`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np


def row_info(infos: Mapping[str, Any], row: int) -> dict[str, Any]:
    """One row of a vector environment's info; keys that the row does not have are left out.

    >>> row_info({"turn": np.array([3, 0]), "_turn": np.array([True, False])}, 1)
    {}
    """
    return {
        key: row_info(value, row) if isinstance(value, Mapping) else value[row]
        for key, value in infos.items()
        if f"_{key}" in infos and infos[f"_{key}"][row]
    }


def plain(value: Any) -> Any:
    """`value` as JSON can hold it: plain scalars, and None for a number that is not finite.

    >>> plain({"window": (np.float64("nan"), 2.0)})
    {'window': [None, 2.0]}
    """
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value
