"""How to normalise the advantages, by a rule of thumb: joint, decomposed or gated.

From the scales of the terms (`train/lab/diagnose/terms.py`) and the cosines of their gradients
(`train/lab/diagnose/gradients.py`) to a choice with its reason. No theorem stands behind it; what
does and what does not says `docs/diagnostics.md`. Tests: `pytest tests/lab/test_diagnostics.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from agents.algorithm.advantages import TOOL_TERM
from train.lab.diagnose.terms import Pair

Choice = Literal["joint", "decomposed", "gated"]
CHOICES: tuple[Choice, ...] = ("joint", "decomposed", "gated")
"""What can be advised; the log holds the place in this list."""
UNEVEN = 3.0
"""Largest c_k / w_k over the smallest from which terms drown: a rule of thumb."""
APART = -0.1
"""Cosine below which two terms pull apart: a rule of thumb."""


@dataclass(frozen=True)
class Cosine:
    """Between the gradients of two terms, over a few groups and over each half of them."""

    whole: float
    halves: tuple[float, float]

    @property
    def conflict(self) -> bool:
        """Whether the terms pull apart: over the batch and, lest it be noise, in both its halves.

        >>> Cosine(-0.2, (-0.1, -0.3)).conflict, Cosine(-0.2, (0.1, -0.3)).conflict
        (True, False)
        """
        return self.whole < APART and all(half < 0 for half in self.halves)


@dataclass(frozen=True)
class Advice:
    """How to normalise, and why."""

    choice: Choice
    reason: str


def advise(scales: Mapping[str, float], cosines: Mapping[Pair, Cosine]) -> Advice:
    """Joint, decomposed or gated advantages: a rule of thumb, whose reason is given.

    Terms that pull apart are not decomposed, because that would raise the weaker one to the
    strength of the other; where the tool term is one of them it is gated. Without such a pair,
    terms of very uneven c_k / w_k are decomposed.

    Args:
        scales: c_k / w_k of the terms that vary (`Terms.scales`).
        cosines: Between the terms' gradients; empty where they were not measured.
    """
    apart = {pair: cosine for pair, cosine in cosines.items() if cosine.conflict}
    if apart:
        by_cosine = sorted(apart, key=lambda pair: apart[pair].whole)
        tool = [pair for pair in by_cosine if TOOL_TERM in pair]
        a, b = (tool or by_cosine)[0]
        pull = f"the gradients of {a} and {b} pull apart (cosine {apart[a, b].whole:.2f})"
        if tool:
            return Advice("gated", f"{pull}: count {TOOL_TERM} only where the answer is right")
        return Advice("joint", f"{pull}, which gating {TOOL_TERM} does not touch: do not decompose")
    measured = "no pair of gradients pulls apart" if cosines else "cosines were not measured"
    if len(scales) < 2:
        varies = ", ".join(scales) or "no term"
        return Advice("joint", f"{varies} alone varies with the reward: nothing to decompose")
    low, high = min(scales, key=scales.__getitem__), max(scales, key=scales.__getitem__)
    ratio = scales[high] / scales[low]
    said = f"c/w of {high} is {ratio:.1f} times that of {low}, and {measured}"
    if ratio > UNEVEN:
        return Advice("decomposed", f"{said}: {low} drowns in the sum")
    return Advice("joint", f"{said}: the sum is even enough")
