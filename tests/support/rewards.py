"""Values of reward terms that a preset does not use, for the tests of the formulae."""

from __future__ import annotations

from dataclasses import replace

from paravt_env.rewards import RewardPreset, Transcript


def every_term(rollout: Transcript, preset: RewardPreset) -> dict[str, float]:
    """All terms with the preset's options, those of weight 0 too, which `score` leaves out."""
    answer = preset.terms["answer"][1]
    valued = replace(rollout, correct=answer(rollout), overlap=answer.overlap(rollout))
    return {name: term(valued) for name, (_, term) in preset.terms.items()}
