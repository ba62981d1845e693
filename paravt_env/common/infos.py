"""Infos as plain data: values that JSON can hold.

After the journey: recordings, rollouts and evaluation reports keep what an info said. Run the
examples with `python -m doctest paravt_env/common/infos.py`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np


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
