"""How much looking is worth: the Tool Necessity Gap of the data itself.

Plays four policies that read frames perfectly and differ only in which frames they get: the
overview alone, crops where the overview's cues point, five crops tiled uniformly, and none at all
(the majority answer). Nothing is decoded: what a frame shows follows from the plan. Run `paravt
data stats`, or `python -m paravt_env.tasksets.made.synthetic.stats --split test`.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from paravt_env.crop import Window
from paravt_env.task import Task
from paravt_env.tasksets.made.base import SPLITS
from paravt_env.tasksets.made.stats import FRAME_COUNTS, by_family, family_table
from paravt_env.tasksets.made.synthetic.generate import plan_tasks
from paravt_env.tasksets.made.synthetic.oracle import (
    Sighting,
    asked_scenes,
    cue_windows,
    guess_span,
    possible_answers,
    read_window,
    visible_cues,
)
from paravt_env.tasksets.made.synthetic.world import WorldSettings
from paravt_env.video.sampler import overview_times, window_times

CROPS, CROP_LIMIT, CROP_FPS, CROP_FRAMES = 5, 45.0, 1.0, 16  # the environment's defaults
_IOU_NEEDED = 0.5


@dataclass(frozen=True)
class PolicyAccuracy:
    """Accuracy of one policy at one frame budget (0: no overview); crops are means per question."""

    policy: str
    budget: int
    accuracy: float
    by_family: dict[str, float]
    crops: float


def stats(tasks: Iterable[Task], budgets: Sequence[int] = FRAME_COUNTS) -> list[PolicyAccuracy]:
    """Expected accuracy of each policy, which guesses evenly among the answers still possible.

    A grounding answer counts where its temporal IoU with the gold span is at least 0.5.
    """
    tasks = list(tasks)
    rows = []
    for k in budgets:
        rows.append(_row("overview only", k, tasks, [_play(task, k, ()) for task in tasks]))
    for k in budgets:
        windows = [
            cue_windows(task, overview_times(task.metadata["duration"], k))[:CROPS]
            for task in tasks
        ]
        scores = [_play(task, k, crops) for task, crops in zip(tasks, windows, strict=True)]
        rows.append(_row("cue-guided crops", k, tasks, scores, windows))
    tiles = [tile_windows(task.metadata["duration"]) for task in tasks]
    tiled = [_play(task, 0, windows) for task, windows in zip(tasks, tiles, strict=True)]
    rows.append(_row("five uniform crops", 0, tasks, tiled, tiles))
    rows.append(_row("majority answer", 0, tasks, _majority(tasks)))
    return rows


def tile_windows(duration: float, crops: int = CROPS, seconds: float = CROP_LIMIT) -> list[Window]:
    """Windows of `seconds` in the middle of `crops` equal parts.

    >>> tile_windows(1000.0, crops=2)
    [(227.5, 272.5), (727.5, 772.5)]
    """
    return [
        (float(t) - seconds / 2, float(t) + seconds / 2) for t in overview_times(duration, crops)
    ]


def format_table(rows: Sequence[PolicyAccuracy]) -> str:
    """The rows as a text table, accuracies in percent."""
    lines = []
    for row in rows:
        budget = str(row.budget) if row.budget else "-"
        left = f"{row.policy:<20}{budget:>4}{100 * row.accuracy:7.1f}{row.crops:7.2f}"
        lines.append((left, {name: f"{100 * share:.1f}" for name, share in row.by_family.items()}))
    return family_table(f"{'policy':<20}{'K':>4}{'all':>7}{'crops':>7}", lines)


def _play(task: Task, k: int, windows: Sequence[Window]) -> float:
    """Probability that a perfect reader of the overview's and the crops' frames answers right."""
    duration = task.metadata["duration"]
    overview = overview_times(duration, k)
    crops: list[Sighting] = []
    for start, end in windows:
        start, end = max(0.0, start), min(end, duration)
        crops += read_window(task, window_times(start, end, CROP_FPS, CROP_FRAMES))
    # Five tiled crops show which scenes are asked about as an overview does.
    asked = asked_scenes(task, visible_cues(task, overview)) if k else None
    if task.kind == "grounding":
        spans = possible_answers(task, crops, asked) or (guess_span(task, overview),)
        return float(_iou(spans[0], task.answer) >= _IOU_NEEDED)
    answers = possible_answers(task, [*read_window(task, overview), *crops], asked)
    if not answers:  # what was read is not among the options: the wrong scene
        return 1 / len(task.options)
    return (task.answer in answers) / len(answers)


def _majority(tasks: Sequence[Task]) -> list[float]:
    """Whether each task's answer is the most frequent one of its kind; a span is never guessed."""
    top: dict[str, str] = {}
    for kind in ("mcq", "open"):
        counts = Counter(task.answer for task in tasks if task.kind == kind)
        if counts:
            top[kind] = counts.most_common(1)[0][0]
    return [float(task.kind in top and task.answer == top[task.kind]) for task in tasks]


def _row(
    policy: str,
    budget: int,
    tasks: Sequence[Task],
    scores: Sequence[float],
    windows: Sequence[Sequence[Window]] = (),
) -> PolicyAccuracy:
    means = {name: float(np.mean(some)) for name, some in by_family(tasks, scores).items()}
    crops = sum(map(len, windows)) / len(tasks)
    return PolicyAccuracy(policy, budget, float(np.mean(scores)), means, crops)


def _iou(span: str | None, gold: str) -> float:
    """Temporal intersection over union of two `start-end` texts; 0 where there is no span."""
    if span is None:
        return 0.0
    (a, b), (c, d) = (tuple(map(float, text.split("-"))) for text in (span, gold))
    return max(0.0, min(b, d) - max(a, c)) / (max(b, d) - min(a, c))


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table for a split; nothing is written and no video is made."""
    parser = argparse.ArgumentParser(
        description="Accuracy of perfect readers of the synthetic videos, per frame budget"
    )
    parser.add_argument("--split", default="test", choices=SPLITS)
    parser.add_argument("--videos", type=int, default=48)
    options = parser.parse_args(arguments)
    tasks = plan_tasks(WorldSettings(), options.split, options.videos)
    print(f"{len(tasks)} questions, {options.videos} videos, split {options.split}; accuracy in %")
    print(format_table(stats(tasks)))


if __name__ == "__main__":
    main()
