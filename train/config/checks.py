"""Checks that the settings share."""

from __future__ import annotations

import math
from typing import Any


def at_least(config: Any, least: float, *names: str) -> None:
    """Refuse a field that is below `least` or not finite; None is left alone.

    Raises:
        ValueError: The field and its value are named.
    """
    for name in names:
        value = getattr(config, name)
        if value is not None and not (value >= least and math.isfinite(value)):
            raise ValueError(
                f"{type(config).__name__}.{name} = {value}: at least {least} is needed"
            )
