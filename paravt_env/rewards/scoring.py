"""Scoring: from the transcripts of finished episodes to the values of their terms and the total.

Last step of an episode. Only the terms that a preset uses are computed; the others are absent.
Tests: `pytest tests/rewards/test_rewards.py`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import NamedTuple

from paravt_env.rewards.judge.scorer import LLMJudge
from paravt_env.rewards.presets import RewardPreset
from paravt_env.rewards.terms.answer import Answer
from paravt_env.rewards.terms.base import ScorerError, term_value
from paravt_env.rewards.transcript import Transcript


class Scored(NamedTuple):
    """The terms of an episode and `total`; all NaN with an `error` where no scorer could score."""

    terms: dict[str, float]
    error: str = ""


def score(transcript: Transcript, preset: RewardPreset) -> dict[str, float]:
    """Every term that the preset uses, unweighted, and `total`, their weighted sum.

    Raises:
        ScorerError: The injected scorer failed.
        TermError: A term raised, or gave no finite number; it and the task are named.
        ValueError: The episode ended because its video could not be read: that is never scored.
    """
    if transcript.stop_reason == "video_error":
        raise ValueError(f"task {transcript.task.id!r} ended as video_error: it is not scored")
    values: dict[str, float] = {}
    for name, term in preset.used.items():
        values[name] = term_value(name, term, transcript)
        if isinstance(term, Answer) and name == "answer":
            transcript = replace(transcript, correct=values[name], overlap=term.overlap(transcript))
    total = sum(weight * values[name] for name, weight in preset.weights.items())
    return {**values, "total": total}


def score_all(transcripts: Sequence[Transcript], preset: RewardPreset) -> list[Scored]:
    """`score` for the episodes that end together; a judge reads their answers at the same time.

    Returns:
        One result each, in order; a failed scorer is a result, not an exception.
    """
    scorer = preset.scorer
    workers = scorer.settings.concurrency if isinstance(scorer, LLMJudge) else 1

    def attempt(transcript: Transcript) -> Scored:
        try:
            return Scored(score(transcript, preset))
        except ScorerError as error:
            return Scored(dict.fromkeys((*preset.used, "total"), math.nan), str(error))

    if workers == 1 or len(transcripts) < 2:
        return [attempt(transcript) for transcript in transcripts]
    with ThreadPoolExecutor(min(workers, len(transcripts)), "judge") as pool:
        return list(pool.map(attempt, transcripts))
