"""The environment under any wrappers, for those that are made for ours alone.

Used by every wrapper of this room when it is built. Run the tests with `pytest
tests/wrappers/test_wrappers.py`.
"""

from __future__ import annotations

from typing import Any

from paravt_env.env import LongVideoEnv
from paravt_env.episode.simulation import Simulation
from paravt_env.vector import LongVideoVectorEnv


def long_video(env: Any) -> LongVideoEnv:
    """The single environment under any wrappers.

    Raises:
        TypeError: It is another one.
    """
    inner = env.unwrapped
    if not isinstance(inner, LongVideoEnv):
        raise _refusal(inner)
    return inner


def simulation_of(env: Any) -> Simulation:
    """The simulation under any wrappers of the single or of the vector environment.

    Raises:
        TypeError: It is another environment.
    """
    inner = env.unwrapped
    if not isinstance(inner, LongVideoEnv | LongVideoVectorEnv):
        raise _refusal(inner)
    return inner.simulation


def _refusal(inner: Any) -> TypeError:
    return TypeError(f"this wraps a LongVideoEnv, not a {type(inner).__name__}")
