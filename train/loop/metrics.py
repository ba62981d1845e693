"""A step of training in numbers, and where they are written: console, `metrics.jsonl`, trackers.

End of the journey's loop: groups of rollouts become numbers here, the trainer adds its own (loss,
entropy, KL, times), and `train.report.page` draws them. `MetricsLogger` is opened by `paravt
train`.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TextIO

import numpy as np

from paravt_env.common.files import write_whole
from train.common.console import Live, Plain
from train.common.metrics_file import FILE, read_metrics
from train.distributed.processes import Processes
from train.loop.trackers import Tracker
from train.rollout.behaviours import shares
from train.rollout.play import Rollout

ACTED = 1e-9
"""A smaller difference between a term's values in a group is rounding."""


def aggregate_rollouts(rollouts: Sequence[Rollout]) -> dict[str, float]:
    """Metrics of a batch of rollouts.

    Every rollout stays in the denominator of accuracy, compliance and calls: one whose video could
    not be read counts as wrong. Means of the reward and its terms leave those out, because nothing
    was scored there. `behaviour/...` are shares of first turns. `tng/K=k` is the Tool Necessity Gap
    of `necessity_gap`; it is absent where one side is empty.
    """
    rows = list(rollouts)
    if not rows:
        raise ValueError("no rollouts to aggregate")
    scored = [row for row in rows if not row.error]
    called = [row for row in rows if row.calls]
    metrics = {
        "rollouts": float(len(rows)),
        "errors": float(len(rows) - len(scored)),
        "accuracy": _mean(_correct(row) for row in rows),
        "compliance": _mean(float(row.compliant) for row in rows),
        "calls": _mean(float(row.calls) for row in rows),
        "executed_calls": _mean(float(row.executed) for row in rows),
        "called": len(called) / len(rows),
        "frames_seen": _mean(float(row.frames_seen) for row in rows),
        "reward": _mean(row.reward for row in scored),
        "parallel_calls": _mean(float(row.parallel) for row in called),
        "evidence_recall": _mean(
            row.evidence_recall for row in scored if not math.isnan(row.evidence_recall)
        ),
    }
    for term in sorted({term for row in scored for term in row.terms} - {"total"}):
        metrics[f"reward/{term}"] = _mean(row.terms[term] for row in scored if term in row.terms)
    metrics |= shares(rows)
    for reason in sorted({str(row.stop_reason) for row in rows}):
        metrics[f"stop/{reason}"] = _mean(float(row.stop_reason == reason) for row in rows)
    for budget in sorted({row.frame_budget for row in scored}):
        here = [row for row in rows if row.frame_budget == budget]
        metrics[f"accuracy/K={budget}"] = _mean(_correct(row) for row in here)
        metrics[f"calls/K={budget}"] = _mean(float(row.calls) for row in here)
        sides = [necessity_sums(row.calls, row.correct, row.error) for row in here]
        metrics[f"tng/K={budget}"] = float(necessity_gap(np.sum(sides, axis=0)))
    for part in sorted({row.part for row in rows} - {""}):
        here = [row for row in rows if row.part == part]
        metrics[f"rollouts/set={part}"] = float(len(here))
        metrics[f"accuracy/set={part}"] = _mean(_correct(row) for row in here)
        metrics[f"calls/set={part}"] = _mean(float(row.calls) for row in here)
        metrics[f"compliance/set={part}"] = _mean(float(row.compliant) for row in here)
    return {name: value for name, value in metrics.items() if not math.isnan(value)}


def written(rollouts: Sequence[Rollout]) -> dict[str, float]:
    """How a batch was written: lengths in tokens, turns that their limit cut, lapses.

    `completion_tokens` is a turn's mean, where the agent says; `lapses/...` are calls a rollout by
    what had to be put right; `untagged` is the share of answers that were read without their tag.
    What did not occur is absent.
    """
    lengths = [length for row in rollouts for length in row.lengths]
    metrics = {}
    if lengths:
        metrics["completion_tokens"] = _mean(map(float, lengths))
        metrics["completion_tokens/longest"] = float(max(lengths))
        metrics["turns/cut"] = sum(row.cut for row in rollouts) / len(lengths)
    for lapse in sorted({lapse for row in rollouts for lapse in row.lapses}):
        metrics[f"lapses/{lapse}"] = _mean(float(row.lapses.get(lapse, 0)) for row in rollouts)
    if any(row.untagged for row in rollouts):
        metrics["untagged"] = _mean(float(row.untagged) for row in rollouts)
    return metrics


def acted(groups: Sequence[Sequence[Rollout]]) -> dict[str, float]:
    """Share of the groups in which each reward term differs between rollouts.

    A term that is equal in a group moves no advantage there, as where a cap hides every lapse.
    Rollouts that were not scored belong to no group.
    """
    scored = [[row.terms for row in group if not row.error] for group in groups]
    scored = [terms for terms in scored if terms]
    return {
        f"groups/acted/{name}": _mean(
            float(np.ptp([terms.get(name, 0.0) for terms in group]) > ACTED) for group in scored
        )
        for name in sorted({name for group in scored for terms in group for name in terms})
        if name != "total"
    }


def of_batch(
    played: Sequence[Sequence[Rollout]], kept: Sequence[Sequence[Rollout]]
) -> dict[str, float]:
    """Means over all that was played, and which terms acted in what is trained.

    Args:
        played: Every group that was played for the batch, whole.
        kept: The groups of the update.
    """
    rollouts = [one for group in played for one in group]
    return aggregate_rollouts(rollouts) | written(rollouts) | acted(kept)


def merged(parts: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Several measurements as one."""
    return {name: value for part in parts for name, value in part.items()}


def growth(
    before: Mapping[str, float], after: Mapping[str, float], processes: Processes
) -> dict[str, float]:
    """What a step added to totals: counts of all processes, seconds of the slowest."""
    own = {name: total - before.get(name, 0.0) for name, total in after.items()}
    parts = processes.gather(own)
    return {
        name: (max if name.startswith("time/") else sum)(part.get(name, 0.0) for part in parts)
        for name in dict.fromkeys(name for part in parts for name in part)
    }


def necessity_sums(calls: int, score: float, error: str) -> tuple[float, float, float, float]:
    """What one row adds to the Tool Necessity Gap: score and count if it called, or if it did not.

    A row that could not be scored says nothing about calling and adds to neither side.

    >>> necessity_sums(2, 0.5, ""), necessity_sums(0, 1.0, ""), necessity_sums(0, 0.0, "no video")
    ((0.5, 1.0, 0.0, 0.0), (0.0, 0.0, 1.0, 1.0), (0.0, 0.0, 0.0, 0.0))
    """
    if error:
        return 0.0, 0.0, 0.0, 0.0
    return (score, 1.0, 0.0, 0.0) if calls else (0.0, 0.0, score, 1.0)


def necessity_gap(sums: np.ndarray) -> np.ndarray:
    """TNG = E[score | called] - E[score | skipped] at one frame budget; NaN if one side is empty.

    Args:
        sums: (..., 4) totals of `necessity_sums`.
    """
    with np.errstate(invalid="ignore"):
        return sums[..., 0] / sums[..., 1] - sums[..., 2] / sums[..., 3]


def _correct(row: Rollout) -> float:
    return 0.0 if row.error else float(row.correct)


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return math.fsum(listed) / len(listed) if listed else math.nan


class MetricsLogger:
    """Writes each step to `metrics.jsonl` (flushed to disk), to the console and to the trackers.

    Args:
        folder: The run's folder.
        trackers: Loggers beside; see `train.loop.trackers.start_trackers`.
        total_steps: Steps of the whole run, for the progress display.
        first_step: Step that a resumed run continues from; what was logged from there on is
            dropped, so that no step is there twice.
        console: Where lines go; a terminal gets a live display instead.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        trackers: Sequence[Tracker] = (),
        total_steps: int = 0,
        first_step: int = 0,
        console: TextIO | None = None,
    ) -> None:
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._trackers = trackers
        self._keep(first_step)
        self._file = (self.folder / FILE).open("ab", buffering=0)
        stream = console or sys.stdout
        self._console = Live(total_steps) if stream.isatty() else Plain(total_steps, stream)
        self._console.start(first_step)

    def _keep(self, first_step: int) -> None:
        kept = [step for step in read_metrics(self.folder) if step["step"] < first_step]
        write_whole(self.folder / FILE, "".join(json.dumps(step) + "\n" for step in kept))

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Record one step; a number that is not finite is written as null, visibly."""
        finite = {
            name: float(value) if math.isfinite(value) else None for name, value in metrics.items()
        }
        self._append(json.dumps({"step": step, **finite}) + "\n")
        for tracker in self._trackers:
            tracker.log(step, metrics)
        self._console.show(step, metrics)

    def _append(self, line: str) -> None:
        data = line.encode()
        try:
            while data:
                data = data[self._file.write(data) :]
            os.fsync(self._file.fileno())
        except OSError as error:
            raise OSError(
                error.errno,
                f"cannot write {self.folder / FILE}: {error.strerror}; free some space, then "
                "resume from the last checkpoint with --run.resume=true",
            ) from error

    def close(self) -> None:
        """End the display and the trackers."""
        self._console.stop()
        for tracker in self._trackers:
            tracker.close()
        self._file.close()

    def __enter__(self) -> MetricsLogger:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
