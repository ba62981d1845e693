"""Reward terms, their presets, and what is logged beside them; pure functions of a transcript.

Last stretch of the environment: a finished episode becomes numbers.
"""

from paravt_env.rewards.compliance import compliance
from paravt_env.rewards.evidence import evidence_recall, transcript_recall
from paravt_env.rewards.options import RewardOptions, Scorer
from paravt_env.rewards.presets import PRESETS, TERMS, RewardPreset, make_preset, score
from paravt_env.rewards.transcript import Transcript, Turn

__all__ = [
    "PRESETS",
    "TERMS",
    "RewardOptions",
    "RewardPreset",
    "Scorer",
    "Transcript",
    "Turn",
    "compliance",
    "evidence_recall",
    "make_preset",
    "score",
    "transcript_recall",
]
