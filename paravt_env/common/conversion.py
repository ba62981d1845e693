"""Text in Gymnasium's conversions to the arrays of other libraries, such as `NumpyToTorch`.

Beside the spaces, whose observations hold text: Gymnasium's converter walks into a string as into
any sequence and gives back something else, and it cannot turn an array of objects (the infos of a
vector environment) into a tensor. Both are left as they are here. Does nothing where the package
that the conversions need is not installed. Run the tests with `pytest
tests/env/test_gymnasium_wrappers.py`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium.error import DependencyNotInstalled


def keep_text() -> None:
    """Tell Gymnasium to leave strings and arrays of objects as they are."""
    try:
        from gymnasium.wrappers.array_conversion import array_conversion
    except (ImportError, DependencyNotInstalled):
        return  # no converter is installed

    convert = array_conversion.dispatch(np.ndarray)

    @array_conversion.register(str)
    def _text(value: str, xp: Any, device: Any = None) -> str:
        return value

    @array_conversion.register(np.ndarray)
    def _array(value: np.ndarray, xp: Any, device: Any = None) -> Any:
        return value if value.dtype == object else convert(value, xp, device)
