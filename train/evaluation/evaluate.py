"""Evaluation: every task of a split is played, counted, and put beside a constant answer's score.

After the journey, by the code of training: the same vector environment, agent and `rollout.play`.
Every row stays in the denominator; a video that cannot be read, an agent that cannot decide and an
answer that cannot be judged are wrong answers with an error beside them. Each sample is kept as
soon as its episode is over, so an evaluation goes on where it was killed
(`train.evaluation.row_file`). Run it with `paravt eval paragrpo_mini --agent.checkpoint=FOLDER`.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from agents.base import Agent
from paravt_env.common.infos import plain
from paravt_env.rewards.terms.answer import score_answer
from paravt_env.span import parse_span, temporal_iou
from paravt_env.task import Task, TaskSet
from paravt_env.vector import LongVideoVectorEnv
from train.config.evaluation import Shard
from train.evaluation.row_file import MemoryRows, Rows, key_of
from train.evaluation.scores import EvalReport, EvalRow
from train.rollout.play import Rollout, play
from train.rollout.starts import Start

if TYPE_CHECKING:
    from train.config.evaluation import EvalConfig

Progress = Callable[[int, int, float, int], None]
"""Called with (rows done, rows in all, accuracy so far, errors so far)."""
MAX_COMPLETION = 20_000
"""Characters of a turn's text that a row keeps; what was cut is counted at its end."""
DURATIONS = ((120.0, "under 2 min"), (900.0, "2-15 min"), (3600.0, "15-60 min"))
"""Upper ends in seconds of the groups of videos whose source names none."""


def plan(task_ids: Sequence[str], settings: EvalConfig) -> list[Start]:
    """Which task is asked at which frame budget; a pure function of the ids and the settings.

    Tasks and budgets are paired in a shuffled order, so that a data set that cycles through its
    question families does not always ask one family at one budget. All shards together play the
    same samples as no shards.
    """
    shuffled = np.random.default_rng(settings.seed).permutation(len(task_ids))
    budgets = settings.frame_budgets
    per_task = min(settings.budgets_per_task or len(budgets), len(budgets)) if budgets else 1
    starts = []
    for place, index in enumerate(shuffled[: settings.tasks]):
        for turn in range(per_task):
            budget = budgets[(place + turn) % len(budgets)] if budgets else None
            starts.append(Start(task_ids[int(index)], budget, settings.seed + int(index)))
    shard = Shard.parse(settings.shard)
    ordered = sorted(starts, key=lambda start: (start.frame_budget or 0, start.task_id))
    return ordered[shard.index - 1 :: shard.count]


def evaluate(
    agent: Agent,
    env: LongVideoVectorEnv,
    tasks: TaskSet,
    settings: EvalConfig,
    progress: Progress | None = None,
    rows: Rows | None = None,
) -> EvalReport:
    """Play the planned tasks and report every one of them.

    Args:
        agent: Acts; greedy or not is its own setting.
        env: Vector environment over `tasks`; its rows are filled batch by batch.
        tasks: The split under evaluation.
        settings: Tasks, budgets, seed and interval.
        progress: Called after each sample.
        rows: Where the rows are kept; samples that are there are not played again.

    Raises:
        RuntimeError: A sample was lost or counted twice: a bug of ours.
    """
    began = time.monotonic()
    starts = plan(tasks.ids, settings)
    kept: Rows = MemoryRows() if rows is None else rows
    best = majority_answers(tasks)
    tally = _Tally(kept, len(starts), progress)
    todo = [start for start in starts if key_of(start) not in kept.done]
    for first in range(0, len(todo), env.num_envs):
        batch = todo[first : first + env.num_envs]

        def keep(place: int, rollout: Rollout, batch: Sequence[Start] = batch) -> None:
            start = batch[place]
            if rollout.task_id != start.task_id:
                raise RuntimeError(f"asked for {start.task_id!r}, played {rollout.task_id!r}")
            row = make_row(rollout, tasks.by_id(rollout.task_id), best, start)
            kept.add(key_of(start), row)
            tally.add(row)

        play(env, agent, batch, finished=keep)
    missing = {key_of(start) for start in starts} ^ kept.done
    found = sorted(kept.load(), key=lambda row: (row.frame_budget, row.task_id))
    if missing or len(found) != len(starts):
        raise RuntimeError(
            f"{len(found)} rows of {len(starts)} samples; lost or not planned: {list(missing)[:3]}"
        )
    seconds = round(time.monotonic() - began, 3)
    return EvalReport(tuple(found), plain(asdict(settings)), seconds)


class _Tally:
    """Running accuracy and errors, over the rows that were there and those that come."""

    def __init__(self, rows: Rows, total: int, progress: Progress | None) -> None:
        there = rows.load() if rows.done else []
        self.total, self.progress = total, progress
        self.done, self.score = len(rows.done), sum(row.score for row in there)
        # rows with an error that will be played again are there, but not done
        self.errors = self.done - sum(not row.error for row in there)

    def add(self, row: EvalRow) -> None:
        """Count one more row."""
        self.done += 1
        self.score += row.score
        self.errors += bool(row.error)
        if self.progress is not None:
            self.progress(self.done, self.total, self.score / self.done, self.errors)


def make_row(rollout: Rollout, task: Task, best: Mapping[str, str], start: Start) -> EvalRow:
    """The row of a rollout; one with an error has score 0 and stays in every mean."""
    failed = bool(rollout.error)
    span = None
    if task.kind == "grounding":
        gold = parse_span(task.answer)
        assert gold is not None  # or nothing could have scored the task
        span = 0.0 if failed else temporal_iou(parse_span(rollout.answer), gold)
    return EvalRow(
        task_id=task.id,
        video=task.video,
        family=task.family,
        category=task.category,
        kind=task.kind,
        frame_budget=rollout.frame_budget if start.frame_budget is None else start.frame_budget,
        question=task.prompt,
        gold=task.answer,
        evidence=task.evidence,
        score=0.0 if failed else float(rollout.correct),
        majority=score_answer(task, best[task.family]),
        reward=0.0 if failed else float(rollout.reward),
        compliant=bool(rollout.compliant) and not failed,
        calls=rollout.calls,
        executed=rollout.executed,
        parallel=rollout.parallel,
        frames_seen=rollout.frames_seen,
        evidence_recall=plain(rollout.evidence_recall),
        stop_reason=str(rollout.stop_reason),
        answer=rollout.answer,
        error=rollout.error,
        turns=tuple(_shortened(turn) for turn in plain(rollout.turns)),
        error_kind=str(rollout.stop_reason) if failed else "",
        duration=rollout.duration,
        duration_group=duration_group(task, rollout.duration),
        usage=plain(rollout.usage),
        span_iou=span,
    )


def _shortened(turn: Mapping[str, Any]) -> dict[str, Any]:
    text = turn["completion"]
    cut = len(text) - MAX_COMPLETION
    if cut <= 0:
        return dict(turn)
    return {**turn, "completion": f"{text[:MAX_COMPLETION]} [{cut} more characters]"}


def duration_group(task: Task, seconds: float) -> str:
    """How long the video is: in the source's words, or by `DURATIONS`; "" where nobody knows.

    >>> duration_group(Task("t", "v", "Who?", "open", metadata={"duration_group": "600"}), 480.0)
    '600'
    """
    for name in ("duration_group", "duration"):
        named = str(task.metadata.get(name, ""))
        if named and (name == "duration_group" or named.isalpha()):
            return named
    if not seconds:
        return ""
    return next((name for end, name in DURATIONS if seconds < end), "over 60 min")


def majority_answers(tasks: TaskSet) -> dict[str, str]:
    """The most frequent gold answer of each family: the best that a blind, constant answer can do.

    The counts come from the evaluated tasks themselves, so the baseline is an upper bound.
    """
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for index in range(len(tasks)):
        counts[tasks[index].family][tasks[index].answer] += 1
    return {family: counted.most_common(1)[0][0] for family, counted in counts.items()}
