"""How the executed crops and the gold evidence overlap: recall, and intersection over union.

Recall is a diagnostic in `info` and the logs; the tool term pays for IoU, or for recall by the
seconds watched (`tool_gain.evidence`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from paravt_env.rewards.transcript import Transcript
from paravt_env.span import Span


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
    total = _seconds(gold)
    return _overlap(gold, seen) / total if total else math.nan


def evidence_iou(evidence: Sequence[Span], windows: Sequence[Span]) -> float:
    """Intersection over union of the gold seconds and the seconds of `windows`.

    For one span and one window this is the temporal IoU. Arguments and NaN as `evidence_recall`.

    >>> evidence_iou([(10.0, 20.0), (50.0, 60.0)], [(5.0, 15.0), (12.0, 17.5)])
    0.3
    """
    gold, seen = _union(evidence), _union(windows)
    total = _seconds(gold)
    if not total:
        return math.nan
    overlap = _overlap(gold, seen)
    return overlap / (total + _seconds(seen) - overlap)


def evidence_yield(evidence: Sequence[Span], windows: Sequence[Span]) -> float:
    """Recall for the seconds watched: the gold seconds seen, over the larger of gold and watched.

    What is watched beside the evidence thins it out, so that cropping everything is worth no more
    than the evidence's share of everything. Arguments and NaN as `evidence_recall`.

    >>> [evidence_yield([(10.0, 20.0)], [window]) for window in ((10.0, 15.0), (0.0, 40.0))]
    [0.5, 0.25]
    """
    gold, seen = _union(evidence), _union(windows)
    total = _seconds(gold)
    return _overlap(gold, seen) / max(total, _seconds(seen)) if total else math.nan


def unseen_evidence(evidence: Sequence[Span], times: Sequence[float]) -> list[Span]:
    """The gold spans that no frame at `times` (seconds) shows: what only a closer look can tell.

    >>> unseen_evidence([(10.0, 20.0), (50.0, 60.0)], [0.0, 20.0, 40.0])
    [(50.0, 60.0)]
    """
    return [(start, end) for start, end in evidence if not any(start <= t <= end for t in times)]


def distinct_windows(windows: Sequence[Span]) -> int:
    """The most of the windows that share no second; windows that only touch share none.

    Taking them by their end is optimal (interval scheduling).

    >>> distinct_windows([(0.0, 10.0), (0.0, 10.0), (5.0, 15.0), (15.0, 20.0)])
    2
    """
    count, until = 0, -math.inf
    for start, end in sorted(windows, key=lambda window: window[1]):
        if start >= until:
            count, until = count + 1, end
    return count


def transcript_recall(transcript: Transcript) -> float:
    """`evidence_recall` of the crops that ran in an episode."""
    return evidence_recall(transcript.task.evidence, transcript.windows)


def _seconds(spans: Sequence[Span]) -> float:
    return sum(end - start for start, end in spans)


def _overlap(gold: Sequence[Span], seen: Sequence[Span]) -> float:
    return sum(max(0.0, min(a[1], b[1]) - max(a[0], b[0])) for a in gold for b in seen)


def _union(spans: Sequence[Span]) -> list[Span]:
    """Disjoint spans in order that cover the same seconds; empty and reversed ones are dropped."""
    merged: list[Span] = []
    for start, end in sorted(span for span in spans if span[1] > span[0]):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((start, end))
    return merged
