"""The table of terms and the presets: weights and options named after what was published.

The environment builds a preset from a recipe's `reward` entry and scores each finished transcript
with it. A new term is one function and one entry of `TERMS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from paravt_env.names import known_name
from paravt_env.rewards.answer import answer
from paravt_env.rewards.format_anchor import format_anchor
from paravt_env.rewards.options import RewardOptions, Scorer
from paravt_env.rewards.tool_gain import tool_gain
from paravt_env.rewards.transcript import Transcript

Term = Callable[[Transcript, RewardOptions], float]

TERMS: dict[str, Term] = {
    "answer": answer,
    "format_anchor": format_anchor,
    "tool_gain": tool_gain,
}
"""In order of evaluation: the terms after `answer` find its value in `Transcript.correct`."""


@dataclass(frozen=True)
class RewardPreset:
    """Weights of the terms (0 where not named) and the options that all terms share."""

    weights: Mapping[str, float]
    options: RewardOptions = field(default_factory=RewardOptions)

    def __post_init__(self) -> None:
        """Check names and weights."""
        for name, weight in self.weights.items():
            known_name("reward term", name, TERMS)
            if isinstance(weight, bool) or not isinstance(weight, int | float):
                raise ValueError(f"the weight of {name} must be a number, not {weight!r}")
            if not abs(weight) < float("inf"):
                raise ValueError(f"the weight of {name} must be finite, not {weight!r}")


_PUBLISHED = {"answer": 1.0, "format_anchor": 1.0, "tool_gain": 1.0}

PRESETS: dict[str, RewardPreset] = {
    # PARA-GRPO, arXiv 2605.20342: R = R_acc + w_fmt R_fmt + R_tool, w_fmt = 1.
    "paravt": RewardPreset(_PUBLISHED),
    # Its GRPO baseline: the base format term and R_tool stay, the anchor goes.
    "vanilla": RewardPreset(_PUBLISHED, RewardOptions(anchor=False)),
}


def make_preset(spec: str | Mapping[str, Any], scorer: Scorer | None = None) -> RewardPreset:
    """Build a preset from a recipe.

    Args:
        spec: Name of a preset, or a mapping: `preset` (default "paravt"), `weights` that replace
            single weights, and any field of `RewardOptions`.
        scorer: Supplies the answer term; see `RewardOptions`.

    Raises:
        ValueError: An unknown name (the nearest one is given) or a value out of range.

    >>> make_preset({"weights": {"format_anchor": 0.5}, "rescale": True}).weights
    {'answer': 1.0, 'format_anchor': 0.5, 'tool_gain': 1.0}
    """
    if not isinstance(spec, str | Mapping):
        raise ValueError(f"reward must be a preset's name or a mapping, not {spec!r}")
    entries: dict[str, Any] = {"preset": spec} if isinstance(spec, str) else dict(spec)
    preset = PRESETS[known_name("reward preset", entries.pop("preset", "paravt"), PRESETS)]
    weights = entries.pop("weights", None) or {}
    if not isinstance(weights, Mapping):
        raise ValueError(f"reward weights must map terms to numbers, not {weights!r}")
    names = [option.name for option in fields(RewardOptions)]
    for name in entries:
        known_name("reward option", name, ["preset", "weights", *names])
    if scorer is not None:
        entries["scorer"] = scorer
    return RewardPreset({**preset.weights, **weights}, replace(preset.options, **entries))


def score(transcript: Transcript, preset: RewardPreset) -> dict[str, float]:
    """Every term of a finished episode, unweighted, and `total`, their weighted sum.

    Raises:
        ValueError: The episode ended because its video could not be read: that is never scored.
    """
    if transcript.stop_reason == "video_error":
        raise ValueError(f"task {transcript.task.id!r} ended as video_error: it is not scored")
    values: dict[str, float] = {}
    for name, term in TERMS.items():
        values[name] = term(replace(transcript, correct=values.get("answer")), preset.options)
    total = sum(preset.weights.get(name, 0.0) * value for name, value in values.items())
    return {**values, "total": total}
