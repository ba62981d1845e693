"""Suites of published sets: which they are, and what was published on them.

Facts alone; `train/evaluation/suite.py` measures them and says in what the protocols differ.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

PARAVT, BASELINE = "ParaVT-8B", "Qwen3-VL-8B + tools"
Metric = Literal["accuracy", "macro", "mIoU"]


MAX_PIXELS = 50_176
"""Most pixels of a frame as published."""


@dataclass(frozen=True)
class Entry:
    """One column of a published table.

    Attributes:
        name: Of its folder in the run.
        tasks: Key in `TASKSETS`, and the set's folder.
        split: Split that is evaluated.
        published: Points (0 to 100) by system.
        metric: What the points are: micro mean, mean over categories, or mean temporal IoU.
        subtitles: Whether observations hold the subtitles.
        answer_tokens: Tokens of the forced-answer turn.
    """

    name: str
    tasks: str
    split: str
    published: Mapping[str, float]
    metric: Metric = "accuracy"
    subtitles: bool = False
    answer_tokens: int = 64


def _paravt(ours: float, baseline: float) -> dict[str, float]:
    return {PARAVT: ours, BASELINE: baseline}


SUITES: dict[str, tuple[Entry, ...]] = {
    # arXiv 2605.20342: greedy, 64 overview frames, at most 3 turns of 5 parallel calls.
    "paravt7": (
        Entry("video_mme", "video_mme", "test", _paravt(62.1, 59.9)),
        Entry("video_mme_subtitles", "video_mme", "test", _paravt(69.4, 68.4), subtitles=True),
        Entry("longvideobench", "longvideobench", "validation", _paravt(60.4, 52.2)),
        Entry("lvbench", "lvbench", "test", _paravt(39.8, 33.1)),
        Entry("mlvu", "mlvu", "test", _paravt(65.0, 58.3), metric="macro"),
        Entry("mmvu", "mmvu", "validation", _paravt(68.6, 68.0)),
        Entry(
            "charades_sta",
            "charades_sta",
            "test",
            _paravt(50.1, 49.3),
            metric="mIoU",
            answer_tokens=128,
        ),
    ),
}
