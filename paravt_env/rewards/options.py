"""The switches of the reward terms: plain data for a recipe, and the one object, an answer scorer.

A preset holds them, and every term receives them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

from paravt_env.common.names import known_name
from paravt_env.task import Task

Scorer = Callable[[Task, str], float]
"""Task and answer -> value of the answer term in [0, 1]; an LLM judge, for example."""

Form = Literal["anchored", "binary"]
Gain = Literal["graduated", "accumulative", "evidence"]
Measure = Literal["iou", "recall"]
OpenMetric = Literal["f1", "exact", "judge"]

_CHOICES: dict[str, Any] = {
    "form": Form,
    "gain": Gain,
    "evidence": Measure,
    "open_metric": OpenMetric,
}
_SWITCHES = ("anchor", "unclosed_penalty", "rescale", "answer_suffix", "pay_attempts")


class ScorerError(RuntimeError):
    """A scorer could not score an answer: the episode is masked out and counted, never guessed."""


@dataclass(frozen=True)
class RewardOptions:
    """How the terms are computed.

    Attributes:
        form: How `format_anchor` is computed: a key of `format_anchor.FORMS`.
        anchor: Whether the anchored form includes the bonus and penalty on `<think>`.
        unclosed_penalty: Whether the anchored form charges for a thought that is never closed.
        rescale: Divide the anchored form by its largest value instead of capping it at 1, so that a
            well-formed answer with a call ranks above one without.
        answer_suffix: The published weights for prompts that ask for the `<answer>` tag.
        gain: How `tool_gain` is computed: a key of `tool_gain.GAINS`.
        evidence: What the evidence gain measures: `iou` or `recall`.
        success_threshold: The answer value from which the graduated gain pays for success, in
            (0, 1].
        pay_attempts: Let a readable call that did not run earn what the paper pays for a parseable
            one: 0.1 of the graduated gain, 0.3 of the anchored form, and a calling turn of the
            binary one. Off, only a call that ran earns anything.
        open_metric: How open answers are compared without a scorer: `f1` of tokens, `exact` match,
            or `judge`, which means that a scorer must be there.
        scorer: Supplies the answer term in place of the built-in comparison.
    """

    form: Form = "anchored"
    anchor: bool = True
    unclosed_penalty: bool = True
    rescale: bool = False
    answer_suffix: bool = True
    gain: Gain = "graduated"
    evidence: Measure = "iou"
    success_threshold: float = 0.5
    pay_attempts: bool = False
    open_metric: OpenMetric = "f1"
    scorer: Scorer | None = None

    def __post_init__(self) -> None:
        """Check names, types and ranges."""
        for name, choices in _CHOICES.items():
            known_name(f"reward option {name}", getattr(self, name), get_args(choices))
        for name in _SWITCHES:
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"reward option {name} must be true or false")
        threshold = self.success_threshold
        if isinstance(threshold, bool) or not isinstance(threshold, int | float):
            raise ValueError(f"reward option success_threshold must be a number, not {threshold!r}")
        if not 0 < threshold <= 1:
            raise ValueError(f"reward option success_threshold must be in (0, 1], not {threshold}")
        if self.scorer is not None and not callable(self.scorer):
            raise ValueError("reward option scorer must be callable: scorer(task, answer) -> float")
