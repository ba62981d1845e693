"""Reward terms, their presets, and what is logged beside them; pure functions of a transcript.

Last stretch of the environment: a finished episode becomes numbers.
"""

from paravt_env.rewards.compliance import compliance
from paravt_env.rewards.from_recipe import make_preset
from paravt_env.rewards.judge.scorer import LLMJudge
from paravt_env.rewards.judge.settings import JudgeSettings
from paravt_env.rewards.lapses import LAPSES, lapses
from paravt_env.rewards.presets import PRESETS, TERMS, RewardPreset
from paravt_env.rewards.scoring import Scored, score, score_all
from paravt_env.rewards.terms.answer import Answer, Scorer
from paravt_env.rewards.terms.base import ScorerError, Term, TermError
from paravt_env.rewards.terms.evidence import evidence_iou, evidence_recall, transcript_recall
from paravt_env.rewards.terms.format_anchor import FormatAnchor
from paravt_env.rewards.terms.tool_gain import ToolGain
from paravt_env.rewards.transcript import Transcript, Turn

__all__ = [
    "LAPSES",
    "PRESETS",
    "TERMS",
    "Answer",
    "FormatAnchor",
    "JudgeSettings",
    "LLMJudge",
    "RewardPreset",
    "Scored",
    "Scorer",
    "ScorerError",
    "Term",
    "TermError",
    "ToolGain",
    "Transcript",
    "Turn",
    "compliance",
    "evidence_iou",
    "evidence_recall",
    "lapses",
    "make_preset",
    "score",
    "score_all",
    "transcript_recall",
]
