"""Frame budgets: how many overview frames K an episode starts with.

First random choice of the journey: `env.reset` samples K from the environment's own generator, then
the sampler spreads K frames over the video. A budget by frames a second (`PerSecond`) draws nothing
and says K once the video is open. A new budget is one class, chosen by a name such as
`mine.py:Budget`, or with an entry of `BUDGETS`. Run the examples with `python -m doctest
paravt_env/budget.py`.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from paravt_env.common.doors import chosen
from paravt_env.common.names import known_name
from paravt_env.video.sampler import window_times

DEFAULT_CHOICES = (4, 8, 16, 32, 64)


class FrameBudget(Protocol):
    """A distribution over K, the number of overview frames."""

    @property
    def maximum(self) -> int:
        """The largest K that `sample` can return."""
        ...

    def sample(self, np_random: np.random.Generator) -> int:
        """One K, drawn from `np_random` and nothing else."""
        ...


def _frame_count(name: str, value: Any, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise ValueError(f"frame budget: {name} must be a whole number of frames, not {value!r}")
    if value < least:
        raise ValueError(f"frame budget: {name} must be at least {least}, not {value}")
    return int(value)


@dataclass(frozen=True)
class Fixed:
    """Always `frames` frames; 0 is on-demand context, where frames come only from crops."""

    frames: int

    def __post_init__(self) -> None:
        """Validate the frame count."""
        _frame_count("frames", self.frames, 0)

    @property
    def maximum(self) -> int:
        """The one value."""
        return self.frames

    def sample(self, np_random: np.random.Generator) -> int:
        """Return `frames`; draws nothing."""
        return self.frames


@dataclass(frozen=True)
class Choice:
    """One of `values` with equal probability (ParaVT's frame-budget gating, arXiv 2605.20342)."""

    values: Sequence[int] = DEFAULT_CHOICES

    def __post_init__(self) -> None:
        """Validate every value."""
        if isinstance(self.values, str) or not isinstance(self.values, Sequence) or not self.values:
            raise ValueError(f"frame budget: values must be a non-empty list, not {self.values!r}")
        for value in self.values:
            _frame_count("each of values", value, 0)

    @property
    def maximum(self) -> int:
        """The largest of `values`."""
        return max(self.values)

    def sample(self, np_random: np.random.Generator) -> int:
        """One of `values`."""
        return int(self.values[int(np_random.integers(len(self.values)))])


@dataclass(frozen=True)
class Uniform:
    """Every whole number from `low` to `high`, both included, with equal probability."""

    low: int
    high: int
    least = 0

    def __post_init__(self) -> None:
        """Validate the bounds and their order."""
        _frame_count("low", self.low, self.least)
        _frame_count("high", self.high, self.low)

    @property
    def maximum(self) -> int:
        """`high`."""
        return self.high

    def sample(self, np_random: np.random.Generator) -> int:
        """A whole number in [low, high]."""
        return int(np_random.integers(self.low, self.high + 1))


@dataclass(frozen=True)
class LogUniform(Uniform):
    """From `low` >= 1 to `high`, both included; small numbers are likelier.

    P(K = k) = ln((k + 1) / k) / ln((high + 1) / low).
    """

    least = 1

    def sample(self, np_random: np.random.Generator) -> int:
        """floor(exp(u)), u uniform in [ln low, ln(high + 1))."""
        draw = math.exp(np_random.uniform(math.log(self.low), math.log(self.high + 1)))
        return min(
            max(math.floor(draw), self.low), self.high
        )  # exp(log(x)) may round to either side of x


@dataclass(frozen=True)
class PerSecond:
    """A frame for every 1 / `fps` seconds of the video begun, at most `most`.

    As the crops' density, and as users of Qwen-VL ask for an overview.
    """

    fps: float
    most: int = 768

    def __post_init__(self) -> None:
        """Validate rate and cap."""
        number = isinstance(self.fps, int | float) and not isinstance(self.fps, bool)
        if not number or not 0 < self.fps < math.inf:
            raise ValueError(
                "frame budget: fps must be a finite number of frames a second above 0, not "
                f"{self.fps!r}"
            )
        _frame_count("most", self.most, 1)

    @property
    def maximum(self) -> int:
        """`most`."""
        return self.most

    def sample(self, np_random: np.random.Generator) -> int:
        """The cap: K is known when the video is. Draws nothing."""
        return self.most

    def for_duration(self, duration: float) -> int:
        """K for a video of `duration` seconds.

        >>> PerSecond(0.5, 64).for_duration(61.0), PerSecond(0.5, 64).for_duration(3600.0)
        (31, 64)
        """
        return len(window_times(0.0, duration, self.fps, self.most))


BUDGETS: dict[str, type] = {
    "fixed": Fixed,
    "choice": Choice,
    "uniform": Uniform,
    "log_uniform": LogUniform,
    "fps": PerSecond,
}


def make_budget(spec: int | Mapping[str, Any] | FrameBudget | None = None) -> FrameBudget:
    """Build a budget from plain data.

    Args:
        spec: None (the default choice of 4, 8, 16, 32, 64), a whole number (fixed), a mapping with
            the key `kind` (a name of `BUDGETS`, or `file.py:name`) and that budget's arguments,
            or a budget, which is returned as it is.

    Raises:
        ValueError: An unknown kind or argument (the nearest name is given), a value out of range,
            or a name of something that makes no `FrameBudget`.

    >>> make_budget({"kind": "uniform", "low": 2, "high": 9}).maximum
    9
    >>> make_budget(16).sample(np.random.default_rng(0))
    16
    """
    if spec is None:
        return Choice()
    if isinstance(spec, Mapping):
        arguments = dict(spec)
        kind = arguments.pop("kind", None)
        factory: Any = chosen("frame budget: kind", kind, BUDGETS)
        if not callable(factory):
            raise ValueError(f"frame budget: {kind!r} must be a class, not {factory!r}")
        names = tuple(inspect.signature(factory).parameters)
        arguments = {
            known_name(f"frame budget: argument of {kind}", key, names): value
            for key, value in arguments.items()
        }
        try:
            return _checked(kind, factory(**arguments))
        except TypeError as error:
            raise ValueError(f"frame budget {kind!r} takes {', '.join(names)}: {error}") from error
    if callable(getattr(spec, "sample", None)):
        return _checked(type(spec).__name__, spec)
    return Fixed(_frame_count("K", spec, 0))


def draw_frames(budget: FrameBudget, np_random: np.random.Generator) -> int:
    """K, drawn from a budget.

    Raises:
        ValueError: A budget of a user's own gave something else than a whole number of frames from
            0 to its `maximum`.
    """
    frames = _frame_count("what sample() returns", budget.sample(np_random), 0)
    if frames > budget.maximum:
        raise ValueError(f"frame budget: sample() returned {frames}, above its {budget.maximum=}")
    return frames


def frames_for(budget: FrameBudget, duration: float) -> int:
    """K of a budget that depends on the video: one with a method `for_duration`.

    Args:
        budget: The budget.
        duration: Of the video, seconds.

    Raises:
        ValueError: A budget of a user's own gave something else than a whole number of frames from
            0 to its `maximum`.
    """
    said = budget.for_duration(duration)  # type: ignore[attr-defined]
    frames = _frame_count("what for_duration() returns", said, 0)
    if frames > budget.maximum:
        raise ValueError(
            f"frame budget: for_duration() returned {frames}, above its {budget.maximum=}"
        )
    return frames


def by_duration(budget: FrameBudget) -> bool:
    """Whether K depends on the video."""
    return callable(getattr(budget, "for_duration", None))


def _checked(kind: str, budget: Any) -> FrameBudget:
    if not callable(getattr(budget, "sample", None)) or not hasattr(budget, "maximum"):
        raise ValueError(
            f"frame budget: {kind!r} must have sample(np_random) and maximum; it gave {budget!r}"
        )
    _frame_count(f"maximum of {kind!r}", budget.maximum, 0)
    return budget
