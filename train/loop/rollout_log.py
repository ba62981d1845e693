"""Rollouts of every step on disk, token by token, for `paravt view`.

An observer of the training loop: what was played and credited is taken before the update, the
log-probabilities of the updated weights after it, so that each token's ratio says what the step did
to it. Whole groups are kept, the first ones of a step, up to `run.keep_rollouts`. Nothing of the
run depends on it: no generator is touched. Tests: `pytest tests/loop/test_rollout_log.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

from agents.base import Trajectory
from paravt_env.task import Task
from train.common.rollout_file import drop_steps, write_step
from train.loop.observers import StepView
from train.rollout.play import Rollout
from train.rollout.record import DIGITS, token_record, weighted_terms, with_readings
from train.rollout.selection import Group


class RolloutLog:
    """Keeps rollouts of every step in the run's folder.

    Args:
        folder: Of the run; None on processes that write nothing.
        keep: Rollouts of a step; whole groups, at least one.
        max_turns: Turns that may call; a further one is the forced answer.
        task_of: The task of an identifier, for its question, gold answer and evidence.
        first_step: Step that the run resumes from: what was kept from there on is dropped.
    """

    def __init__(
        self,
        folder: Path | None,
        keep: int,
        max_turns: int,
        task_of: Callable[[str], Task],
        first_step: int = 0,
    ) -> None:
        self.folder, self.keep, self.max_turns, self.task_of = folder, keep, max_turns, task_of
        if folder is not None:
            drop_steps(folder, first_step)

    def before_update(self, step: StepView) -> dict[str, float]:
        """Nothing: the ratios are there after the update."""
        return {}

    def after_update(self, step: StepView) -> dict[str, float]:
        """Write the step's rollouts; their bytes and the seconds that it took."""
        began = perf_counter()
        groups = first_groups(step.played, self.keep)
        advantages = {
            id(one): values
            for one, values in zip(step.batch.trajectories, step.batch.advantages, strict=True)
        }
        trajectories = [
            one for group in groups for rollout in group for one in rollout.trajectories
        ]
        known = step.learner.token_logprobs(trajectories)
        if self.folder is None:
            return {}
        updated = {id(one): values for one, values in zip(trajectories, known, strict=True)}
        tokenizer = step.learner.vlm.tokenizer
        visual = step.learner.vlm.visual_ids

        def tokens(one: Trajectory) -> dict[str, Any]:
            return token_record(one, tokenizer, visual, advantages.get(id(one)), updated[id(one)])

        records = [
            rollout_record(
                rollout,
                self.task_of(rollout.task_id),
                (number, member),
                step.reward_weights,
                self.max_turns,
                [tokens(one) for one in rollout.trajectories],
            )
            for number, group in enumerate(groups)
            for member, rollout in enumerate(group)
        ]
        size = write_step(self.folder, step.number, records)
        return {"rollouts_kept/bytes": float(size), "time/rollouts_kept": perf_counter() - began}


def first_groups(played: Sequence[Group], keep: int) -> list[Group]:
    """The first groups whose rollouts are together at most `keep`; at least one group.

    >>> [len(first_groups([[1] * 4, [2] * 4, [3] * 4], keep)) for keep in (1, 8, 11, 99)]
    [1, 2, 2, 3]
    """
    kept: list[Group] = []
    for group in played:
        if kept and sum(map(len, kept)) + len(group) > keep:
            break
        kept.append(group)
    return kept


def rollout_record(
    rollout: Rollout,
    task: Task,
    place: tuple[int, int],
    weights: Mapping[str, float],
    max_turns: int,
    conversations: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """A rollout as plain data.

    Args:
        rollout: What was played.
        task: What was asked.
        place: Number of its group in the step, and its own in the group.
        weights: Weight of every reward term; `terms` are weighted by it and add up to `reward`,
            but for what a term `other` makes up for.
        max_turns: Turns that may call.
        conversations: `token_record` of its trajectories, main first.
    """
    parts = weighted_terms(rollout.terms, rollout.reward, weights)
    recall = rollout.evidence_recall
    return {
        "group": place[0],
        "member": place[1],
        "task_id": rollout.task_id,
        "video": rollout.video,
        "family": rollout.family,
        "category": rollout.category,
        "frame_budget": rollout.frame_budget,
        "duration": rollout.duration,
        "question": task.prompt,
        "gold": task.answer,
        "evidence": task.evidence,
        "correct": rollout.correct,
        "reward": rollout.reward,
        "terms": {name: round(value, DIGITS) for name, value in parts.items()},
        "compliant": rollout.compliant,
        "calls": rollout.calls,
        "executed": rollout.executed,
        "forced": len(rollout.turns) > max_turns,
        "stop_reason": rollout.stop_reason,
        "error": rollout.error,
        "answer": rollout.answer,
        "frames_seen": rollout.frames_seen,
        "evidence_recall": None if math.isnan(recall) else recall,
        "turns": with_readings(rollout.turns, conversations),
        "conversations": conversations,
    }
