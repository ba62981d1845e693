"""The switches of the reward terms: plain data for a recipe, and the one object, an answer scorer.

A preset holds them, and every term receives them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from paravt_env.task import Task

Scorer = Callable[[Task, str], float]
"""Task and answer -> value of the answer term in [0, 1]; an LLM judge, for example."""


@dataclass(frozen=True)
class RewardOptions:
    """How the terms are computed.

    Attributes:
        anchor: Whether `format_anchor` includes the anchor bonus and penalty on `<think>`.
        rescale: Divide `format_anchor` by its largest value instead of capping it at 1, so that a
            well-formed answer with a call ranks above one without.
        answer_suffix: The published weights for prompts that ask for the `<answer>` tag.
        open_exact: Score open answers by exact match instead of token F1.
        success_threshold: The answer value from which `tool_gain` pays for success, in (0, 1].
        scorer: Supplies the answer term in place of the built-in comparison.
    """

    anchor: bool = True
    rescale: bool = False
    answer_suffix: bool = True
    open_exact: bool = False
    success_threshold: float = 0.5
    scorer: Scorer | None = None

    def __post_init__(self) -> None:
        """Check types and ranges."""
        for name in ("anchor", "rescale", "answer_suffix", "open_exact"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"reward option {name} must be true or false")
        threshold = self.success_threshold
        if isinstance(threshold, bool) or not isinstance(threshold, int | float):
            raise ValueError(f"reward option success_threshold must be a number, not {threshold!r}")
        if not 0 < threshold <= 1:
            raise ValueError(f"reward option success_threshold must be in (0, 1], not {threshold}")
        if self.scorer is not None and not callable(self.scorer):
            raise ValueError("reward option scorer must be callable: scorer(task, answer) -> float")
