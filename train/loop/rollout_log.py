"""Rollouts of every step on disk, token by token, for whoever looks at a run (`paravt view`).

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

import numpy as np

from agents.base import Trajectory
from agents.text.context import decode_with_offsets
from paravt_env.crop import CropStatus
from paravt_env.task import Task
from train.common.rollout_file import drop_steps, write_step
from train.loop.observers import StepView
from train.report.bars import weighted_terms
from train.rollout.play import Rollout
from train.rollout.selection import Group

DIGITS = 4
"""Decimals of log-probabilities, advantages and ratios."""


class RolloutLog:
    """Keeps rollouts of every step in the run's folder.

    Args:
        folder: Of the run; None on processes that write nothing.
        keep: Rollouts of a step; whole groups, at least one.
        max_turns: Turns that may call; a further one is the forced answer.
        task_of: The task of an identifier, for its question, gold answer and evidence.
        first_step: Step that the run goes on from: what was kept from there on is dropped.
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


def with_readings(
    turns: Sequence[Mapping[str, Any]], conversations: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """The turns, each crop that a sub-agent read with the place of that conversation.

    Sub-agents read the crops that ran, in order; those of the last turn are never read.
    """
    places = iter([i for i, one in enumerate(conversations) if one["kind"] == "subagent"])
    told = []
    for turn in turns:
        crops = [dict(crop) for crop in turn["crops"]]
        for crop in crops:
            ran = crop["status"] == CropStatus.ok
            crop["reading"] = next(places, None) if ran else None
        told.append({"completion": turn["completion"], "crops": crops})
    return told


def token_record(
    one: Trajectory,
    tokenizer: Any,
    visual_ids: Sequence[int],
    advantages_C: np.ndarray | None,
    updated_C: np.ndarray,
) -> dict[str, Any]:
    """A conversation token by token; what the policy did not sample is joined by role.

    Args:
        one: The conversation.
        tokenizer: Of the policy.
        visual_ids: Tokens that stand for pixels; a row of them becomes `[n visual tokens]`.
        advantages_C: (C,) advantage of each token of the branch; None where it was not trained.
        updated_C: (C,) log-probabilities by the updated weights.

    Returns:
        `kind`, `version`, `prompt`, and columns of equal length: `pieces` (text), `roles`,
        `logprobs`, `advantages` and `ratios`, which are None where nothing was sampled.
    """
    prompt = "".join(text for text, _ in pieces_of(one.prompt_ids.tolist(), tokenizer, visual_ids))
    columns: dict[str, list[Any]] = {
        name: [] for name in ("pieces", "roles", "logprobs", "advantages", "ratios")
    }
    for text, place in pieces_of(one.branch_ids.tolist(), tokenizer, visual_ids):
        role, sampled = int(one.roles[place]), bool(one.loss_mask[place])
        joins = columns["pieces"] and not sampled and columns["logprobs"][-1] is None
        if joins and columns["roles"][-1] == role:
            columns["pieces"][-1] += text
            continue
        behaviour = float(one.logprobs[place])
        ratio = math.exp(min(float(updated_C[place]) - behaviour, 50.0)) if sampled else None
        trained = sampled and advantages_C is not None
        columns["pieces"].append(text)
        columns["roles"].append(role)
        columns["logprobs"].append(round(behaviour, DIGITS) if sampled else None)
        columns["advantages"].append(
            round(float(advantages_C[place]), DIGITS) if trained else None  # type: ignore[index]
        )
        columns["ratios"].append(None if ratio is None else round(ratio, DIGITS))
    return {"kind": one.kind, "version": one.version, "prompt": prompt, **columns}


def pieces_of(
    ids: Sequence[int], tokenizer: Any, visual_ids: Sequence[int]
) -> list[tuple[str, int]]:
    """The text of each token with its place; a row of visual tokens is one piece.

    A character that several tokens spell stands at the last of them, and the others are empty.
    """
    text, ends = decode_with_offsets(tokenizer, ids)
    starts = [0, *ends[:-1]]
    pieces: list[tuple[str, int]] = []
    run = 0
    for place, (token, start, end) in enumerate(zip(ids, starts, ends, strict=True)):
        if token in visual_ids:
            run += 1
            if place + 1 < len(ids) and ids[place + 1] in visual_ids:
                continue
            pieces.append((f"[{run} visual tokens]", place))
            run = 0
        else:
            pieces.append((text[start:end], place))
    return pieces
