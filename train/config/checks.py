"""Checks that the settings share."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

from train.common.errors import ConfigError


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


def shares(config: Any, *names: str) -> None:
    """Refuse a field that is no share, between 0 and 1; None is left alone.

    Raises:
        ValueError: The field and its value are named.
    """
    for name in names:
        value = getattr(config, name)
        if value is not None and not 0 <= value <= 1:
            raise ValueError(
                f"{type(config).__name__}.{name} = {value}: a share, between 0 and 1, is needed"
            )


def without(
    settings: Mapping[str, Any], names: Collection[str], inside: str = ""
) -> dict[str, Any]:
    """Nested plain settings without those of some dotted names, whole groups among them.

    >>> without({"env": {"split": "val", "fps": 1}, "run": {"name": "a"}}, ["env.fps", "run"])
    {'env': {'split': 'val'}}
    """
    return {
        name: without(value, names, f"{inside}{name}.") if isinstance(value, Mapping) else value
        for name, value in settings.items()
        if inside + name not in names
    }


def check_trained_dtype(dtype: object) -> None:
    """Refuse to train in float16, whose range gradients leave without a loss scale.

    Raises:
        ConfigError: It is float16, as text or as torch's own.
    """
    if str(dtype).removeprefix("torch.") in ("float16", "half"):
        raise ConfigError(
            "agent.dtype=float16 cannot be trained: small gradients vanish in its range; set "
            "agent.dtype=bfloat16 (with fp32 master weights) or float32"
        )
