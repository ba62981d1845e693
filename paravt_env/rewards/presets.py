"""The table of terms and the presets: weights and options named after what was published.

The environment builds a preset from a recipe's `reward` entry and scores each finished transcript
with it. A new term is one function and one entry of `TERMS`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields, replace
from typing import Any, NamedTuple

from paravt_env.common.names import known_name
from paravt_env.rewards.judge.scorer import LLMJudge
from paravt_env.rewards.judge.settings import make_judge_settings
from paravt_env.rewards.options import RewardOptions, Scorer, ScorerError
from paravt_env.rewards.terms.answer import answer
from paravt_env.rewards.terms.format_anchor import format_anchor
from paravt_env.rewards.terms.tool_gain import tool_gain
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


def _weights(answer: float, form: float, tool: float) -> dict[str, float]:
    return {"answer": answer, "format_anchor": form, "tool_gain": tool}


PRESETS: dict[str, RewardPreset] = {
    # PARA-GRPO, arXiv 2605.20342: R = R_acc + w_fmt R_fmt + R_tool, w_fmt = 1. On rollouts whose
    # calls all run. Elsewhere the modules of the terms say what differs and why: the forced prefix
    # is scored (defect 10), forged and repeated tags are not (11, 17), a call that did not run
    # earns nothing and success takes more than any overlap (12, 18). The cap at 1 is the published
    # one (15); `rescale` does without.
    "paravt": RewardPreset(_weights(1.0, 1.0, 1.0)),
    # Its GRPO baseline: the base format term and R_tool stay, the anchor goes.
    "vanilla": RewardPreset(_weights(1.0, 1.0, 1.0), RewardOptions(anchor=False)),
    # LongVT, arXiv 2511.20785: R = R_acc + R_fmt + IoU of the last crop with the gold segment,
    # R_acc judged in {0, 0.5, 1}, R_fmt in {0, 1}. No judge, no open answers: never token F1 in
    # its place (defect 16).
    "longvt": RewardPreset(
        _weights(1.0, 1.0, 1.0),
        RewardOptions(form="binary", gain="evidence", evidence="iou", open_metric="judge"),
    ),
    # LongVILA-R1, arXiv 2507.07966: R = 0.9 acc + 0.1 format; no tool, so nothing for using it.
    "longvila": RewardPreset(_weights(0.9, 0.1, 0.0), RewardOptions(form="binary")),
    # PyVision-RL, arXiv 2602.20739: R = R_acc + 0.1 n_calls 1[R_acc = 1]; only calls that ran
    # count (defect 18).
    "pyvision": RewardPreset(
        _weights(1.0, 0.0, 1.0), RewardOptions(form="binary", gain="accumulative")
    ),
}


def make_preset(spec: str | Mapping[str, Any], scorer: Scorer | None = None) -> RewardPreset:
    """Build a preset from a recipe.

    Args:
        spec: Name of a preset, or a mapping: `preset` (default "paravt"), `weights` that replace
            single weights, `judge` (see `JudgeSettings`), and any field of `RewardOptions`.
        scorer: Supplies the answer term; see `RewardOptions`.

    Raises:
        ValueError: An unknown name (the nearest one is given), a value out of range, or two
            sources of the answer's value.

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
        known_name("reward option", name, ["preset", "weights", "judge", *names])
    judge = entries.pop("judge", None)
    sources = [one for one in (scorer, judge, entries.get("scorer")) if one is not None]
    if len(sources) > 1:
        raise ValueError("the answer term has one source: give a scorer or a judge, not both")
    if scorer is not None:
        entries["scorer"] = scorer
    if judge is not None:
        entries["scorer"] = LLMJudge(make_judge_settings(judge))
    return RewardPreset({**preset.weights, **weights}, replace(preset.options, **entries))


class Scored(NamedTuple):
    """The terms of an episode and `total`; all NaN with an `error` where no scorer could score."""

    terms: dict[str, float]
    error: str = ""


def score(transcript: Transcript, preset: RewardPreset) -> dict[str, float]:
    """Every term of a finished episode, unweighted, and `total`, their weighted sum.

    Raises:
        ScorerError: The injected scorer failed.
        ValueError: The episode ended because its video could not be read: that is never scored.
    """
    if transcript.stop_reason == "video_error":
        raise ValueError(f"task {transcript.task.id!r} ended as video_error: it is not scored")
    values: dict[str, float] = {}
    for name, term in TERMS.items():
        values[name] = term(replace(transcript, correct=values.get("answer")), preset.options)
    total = sum(preset.weights.get(name, 0.0) * value for name, value in values.items())
    return {**values, "total": total}


def score_all(transcripts: Sequence[Transcript], preset: RewardPreset) -> list[Scored]:
    """`score` for the episodes that end together; a judge reads their answers at the same time.

    Returns:
        One result each, in order; a failed scorer is a result, not an exception.
    """
    scorer = preset.options.scorer
    workers = scorer.settings.concurrency if isinstance(scorer, LLMJudge) else 1

    def attempt(transcript: Transcript) -> Scored:
        try:
            return Scored(score(transcript, preset))
        except ScorerError as error:
            return Scored(dict.fromkeys((*TERMS, "total"), math.nan), str(error))

    if workers == 1 or len(transcripts) < 2:
        return [attempt(transcript) for transcript in transcripts]
    with ThreadPoolExecutor(min(workers, len(transcripts)), "judge") as pool:
        return list(pool.map(attempt, transcripts))
