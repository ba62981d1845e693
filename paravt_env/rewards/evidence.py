"""Evidence recall: how much of the gold evidence the executed crops covered.

A diagnostic in `info` and the logs, never part of the reward.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from paravt_env.rewards.transcript import Transcript

Span = tuple[float, float]


def evidence_recall(evidence: Sequence[Span], windows: Sequence[Span]) -> float:
    """Fraction of the gold seconds that lie in the union of `windows`.

    Args:
        evidence: Gold (start, end) in seconds; overlaps count once.
        windows: Crops as run, (start, end) in seconds.

    Returns:
        A fraction in [0, 1]; NaN without gold seconds.

    >>> evidence_recall([(10.0, 20.0), (50.0, 60.0)], [(5.0, 15.0), (12.0, 17.5)])
    0.375
    """
    gold, seen = _union(evidence), _union(windows)
    total = sum(end - start for start, end in gold)
    if not total:
        return math.nan
    covered = sum(max(0.0, min(a[1], b[1]) - max(a[0], b[0])) for a in gold for b in seen)
    return covered / total


def transcript_recall(transcript: Transcript) -> float:
    """`evidence_recall` of the crops that ran in an episode."""
    crops = (crop for turn in transcript.turns for crop in turn.crops)
    ran = [crop.clipped for crop in crops if crop.clipped is not None]
    return evidence_recall(transcript.task.evidence, ran)


def _union(spans: Sequence[Span]) -> list[Span]:
    """Disjoint spans in order that cover the same seconds; empty and reversed ones are dropped."""
    merged: list[Span] = []
    for start, end in sorted(span for span in spans if span[1] > span[0]):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((start, end))
    return merged
