"""Reward terms, their presets, and what is logged beside them; pure functions of a transcript.

Last stretch of the environment: a finished episode becomes numbers.
"""

from paravt_env.rewards.compliance import compliance
from paravt_env.rewards.judge.scorer import LLMJudge
from paravt_env.rewards.judge.settings import JudgeSettings
from paravt_env.rewards.options import RewardOptions, Scorer, ScorerError
from paravt_env.rewards.presets import (
    PRESETS,
    TERMS,
    RewardPreset,
    Scored,
    make_preset,
    score,
    score_all,
)
from paravt_env.rewards.terms.evidence import evidence_iou, evidence_recall, transcript_recall
from paravt_env.rewards.transcript import Transcript, Turn

__all__ = [
    "PRESETS",
    "TERMS",
    "JudgeSettings",
    "LLMJudge",
    "RewardOptions",
    "RewardPreset",
    "Scored",
    "Scorer",
    "ScorerError",
    "Transcript",
    "Turn",
    "compliance",
    "evidence_iou",
    "evidence_recall",
    "make_preset",
    "score",
    "score_all",
    "transcript_recall",
]
