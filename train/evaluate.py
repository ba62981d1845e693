"""Evaluation: every task of a split is played, counted, and put beside a constant answer's score.

After the journey, by the code of training: the same vector environment, agent and `rollout.play`.
Every row stays in the denominator; a video that cannot be read is a wrong answer with an error
beside it, never an answer given blind. Run it with `paravt eval paragrpo_mini
--agent.checkpoint=FOLDER`.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import numpy as np

from agents.base import Agent
from paravt_env.rewards.answer import score_answer
from paravt_env.task import Task, TaskSet
from paravt_env.vector import LongVideoVectorEnv
from train.rollout import Rollout, Start, play
from train.scores import EvalReport, EvalRow, plain

if TYPE_CHECKING:
    from train.config import EvalConfig


def plan(task_ids: Sequence[str], settings: EvalConfig) -> list[Start]:
    """Which task is asked at which frame budget; a pure function of the ids and the settings.

    Tasks and budgets are paired in a shuffled order, so that a data set that cycles through its
    question families does not always ask one family at one budget.
    """
    shuffled = np.random.default_rng(settings.seed).permutation(len(task_ids))
    budgets = settings.frame_budgets
    per_task = min(settings.budgets_per_task or len(budgets), len(budgets)) if budgets else 1
    starts = []
    for place, index in enumerate(shuffled[: settings.tasks]):
        for turn in range(per_task):
            budget = budgets[(place + turn) % len(budgets)] if budgets else None
            starts.append(Start(task_ids[int(index)], budget, settings.seed + int(index)))
    return sorted(starts, key=lambda start: (start.frame_budget or 0, start.task_id))


def evaluate(
    agent: Agent,
    env: LongVideoVectorEnv,
    tasks: TaskSet,
    settings: EvalConfig,
    progress: Callable[[int, int], None] | None = None,
) -> EvalReport:
    """Play the planned tasks and report every one of them.

    Args:
        agent: Acts; greedy or not is its own setting.
        env: Vector environment over `tasks`; its rows are filled batch by batch.
        tasks: The split under evaluation.
        settings: Tasks, budgets, seed and interval.
        progress: Called with (rows done, rows in all) after each batch.
    """
    began = time.monotonic()
    starts = plan(tasks.ids, settings)
    rows: list[EvalRow] = []
    best = majority_answers(tasks)
    for first in range(0, len(starts), env.num_envs):
        batch = starts[first : first + env.num_envs]
        rollouts = play(env, agent, batch)
        if [rollout.task_id for rollout in rollouts] != [start.task_id for start in batch]:
            raise RuntimeError(f"{len(batch)} starts came back as {len(rollouts)} other rollouts")
        rows += [
            _row(rollout, tasks.by_id(rollout.task_id), best, start)
            for rollout, start in zip(rollouts, batch, strict=True)
        ]
        if progress is not None:
            progress(len(rows), len(starts))
    return EvalReport(tuple(rows), asdict(settings), round(time.monotonic() - began, 3))


def _row(rollout: Rollout, task: Task, best: Mapping[str, str], start: Start) -> EvalRow:
    failed = bool(rollout.error)
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
        turns=tuple(plain(rollout.turns)),
    )


def majority_answers(tasks: TaskSet) -> dict[str, str]:
    """The most frequent gold answer of each family: the best that a blind, constant answer can do.

    The counts come from the evaluated tasks themselves, so the baseline is an upper bound.
    """
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for index in range(len(tasks)):
        counts[tasks[index].family][tasks[index].answer] += 1
    return {family: counted.most_common(1)[0][0] for family, counted in counts.items()}
