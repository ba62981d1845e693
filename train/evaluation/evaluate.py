"""Evaluation: every task of a split is played, counted, and put beside a constant answer's score.

After the journey, by the code of training: the same vector environment, agent and `rollout.play`.
Every row stays in the denominator; a video that cannot be read, an agent that cannot decide and an
answer that cannot be judged are wrong answers with an error beside them. Each sample is kept as
soon as its episode is over, so a killed evaluation resumes from there
(`train.evaluation.row_file`). Run it with `paravt eval paragrpo_mini --agent.checkpoint=FOLDER`.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Protocol

import numpy as np

from agents.base import Agent
from paravt_env.common.infos import plain
from paravt_env.task import TaskSet
from paravt_env.vector import LongVideoVectorEnv
from train.config.evaluation import EvalConfig, Shard
from train.evaluation.outage import Outage
from train.evaluation.row import EvalRow, RowKey, key_of, make_row
from train.evaluation.scores import EvalReport
from train.evaluation.token_files import TokenFiles
from train.rollout.play import Rollout, play
from train.rollout.starts import Start

EvalProgress = Callable[[int, int, float, int], None]
"""Called with (rows done, rows in all, accuracy so far, errors so far), first at the start."""


class Rows(Protocol):
    """Where an evaluation keeps its rows (`train.evaluation.row_file` keeps them on disk)."""

    @property
    def done(self) -> set[RowKey]:
        """Samples that need not be played."""

    def add(self, key: RowKey, row: EvalRow) -> None:
        """Keep the row of a sample."""

    def load(self) -> list[EvalRow]:
        """All rows, one for each sample."""


class MemoryRows:
    """Rows in memory: they end with the process."""

    def __init__(self) -> None:
        self._rows: dict[RowKey, EvalRow] = {}

    @property
    def done(self) -> set[RowKey]:
        """Samples that were added."""
        return set(self._rows)

    def add(self, key: RowKey, row: EvalRow) -> None:
        """Keep the row of a sample."""
        self._rows[key] = row

    def load(self) -> list[EvalRow]:
        """All rows."""
        return list(self._rows.values())


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
    progress: EvalProgress | None = None,
    rows: Rows | None = None,
    tokens: TokenFiles | None = None,
) -> EvalReport:
    """Play the planned tasks and report every one of them.

    Args:
        agent: Acts; greedy or not is its own setting.
        env: Vector environment over `tasks`; its rows are filled batch by batch.
        tasks: The split under evaluation.
        settings: Tasks, budgets, seed and interval.
        progress: Called at the start, and after each sample.
        rows: Where the rows are kept; samples that are there are not played again.
        tokens: Where the tokens of some rollouts are kept.

    Raises:
        AgentError: `settings.stop_after_errors` rows in a row got no reply from a server; those
            before them are kept.
        RuntimeError: A sample was lost or counted twice: a bug of ours.
    """
    began = time.monotonic()
    starts = plan(tasks.ids, settings)
    kept: Rows = MemoryRows() if rows is None else rows
    best = majority_answers(tasks)
    tally = _Tally(kept, len(starts), progress)
    checked = Outage(kept.add, settings.stop_after_errors)
    weights = env.simulation.preset.weights
    shown = set() if tokens is None else tokens.chosen(starts)
    todo = [start for start in starts if key_of(start) not in kept.done]
    for first in range(0, len(todo), env.num_envs):
        batch = todo[first : first + env.num_envs]

        def keep(place: int, rollout: Rollout, batch: Sequence[Start] = batch) -> None:
            start = batch[place]
            if rollout.task_id != start.task_id:
                raise RuntimeError(f"asked for {start.task_id!r}, played {rollout.task_id!r}")
            row = make_row(rollout, tasks.by_id(rollout.task_id), best, start, weights)
            if tokens is not None and start in shown:
                tokens.add(agent, rollout, row)
            checked.add(key_of(start), row)
            tally.add(row)

        play(env, agent, batch, finished=keep)
    checked.flush()
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

    def __init__(self, rows: Rows, total: int, progress: EvalProgress | None) -> None:
        there = rows.load() if rows.done else []
        self.total, self.progress = total, progress
        self.done, self.score = len(rows.done), sum(row.score for row in there)
        # rows with an error that will be played again are there, but not done
        self.errors = self.done - sum(not row.error for row in there)
        if progress is not None and self.done < total:
            progress(self.done, total, self.score / max(self.done, 1), self.errors)

    def add(self, row: EvalRow) -> None:
        """Count one more row."""
        self.done += 1
        self.score += row.score
        self.errors += bool(row.error)
        if self.progress is not None:
            self.progress(self.done, self.total, self.score / self.done, self.errors)


def majority_answers(tasks: TaskSet) -> dict[str, str]:
    """The most frequent gold answer of each family: the best that a blind, constant answer can do.

    The counts come from the evaluated tasks themselves, so the baseline is an upper bound.
    """
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for index in range(len(tasks)):
        counts[tasks[index].family][tasks[index].answer] += 1
    return {family: counted.most_common(1)[0][0] for family, counted in counts.items()}
