"""The meter of an update: per-token means, totals, maxima and the seconds of each stage.

The learner fills one for every update and hands its numbers to the log. Command: `pytest
tests/learner/test_learner.py`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from time import perf_counter
from typing import Any

import numpy as np
import torch


class Meter:
    """Sums of an update: per-token means, totals, maxima and seconds of each stage."""

    def __init__(self) -> None:
        self.tokens = 0
        self.sums: dict[str, float] = defaultdict(float)
        self.totals: dict[str, float] = defaultdict(float)
        self.values: dict[str, list[float]] = defaultdict(list)
        self.maxima: dict[str, float] = {}

    def per_token(self, metrics: dict[str, torch.Tensor]) -> None:
        """Add per-token quantities (T,) of one micro-batch."""
        self.tokens += len(next(iter(metrics.values())))
        for name, values in metrics.items():
            self.sums[name] += values.sum().item()

    def maximum(self, name: str, values: torch.Tensor) -> None:
        """Keep the largest value seen."""
        if len(values):
            self.maxima[name] = max(self.maxima.get(name, 0.0), values.max().item())

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the seconds spent inside to `time/<stage>`."""
        started = perf_counter()
        try:
            yield
        finally:
            self.totals[f"time/{stage}"] += perf_counter() - started

    @classmethod
    def of_all(cls, meters: Sequence[Meter]) -> Meter:
        """The meter of several processes together: the longest time, the sum of everything else.

        What was measured once a step (`values`) was measured over all of them already.
        """
        merged = cls()
        for meter in meters:
            merged.tokens += meter.tokens
            merged.values = merged.values or meter.values
            for name, value in meter.sums.items():
                merged.sums[name] += value
            for name, value in meter.totals.items():
                longest = name.startswith("time/")
                so_far = merged.totals[name]
                merged.totals[name] = max(so_far, value) if longest else so_far + value
            for name, value in meter.maxima.items():
                merged.maxima[name] = max(merged.maxima.get(name, value), value)
        return merged

    def kept(self) -> dict[str, Any]:
        """All of it, as JSON holds it."""
        return {name: dict(v) if isinstance(v, dict) else v for name, v in vars(self).items()}

    @classmethod
    def of_kept(cls, kept: Mapping[str, Any]) -> Meter:
        """The meter that `kept` was asked of."""
        meter = cls()
        meter.tokens = kept["tokens"]
        for name in ("sums", "totals", "values", "maxima"):
            getattr(meter, name).update(kept[name])
        return meter

    def metrics(self) -> dict[str, float]:
        """Everything measured, by name."""
        named = {name: total / max(self.tokens, 1) for name, total in self.sums.items()}
        named |= {name: float(np.mean(values)) for name, values in self.values.items()}
        return named | self.maxima | self.totals | {"trained_tokens": float(self.tokens)}
