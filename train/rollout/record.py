"""A rollout as plain data, token by token, and its reward term by term: what a viewer shows.

After `train.rollout.play`. A step of training (`train.loop.rollout_log`) and an evaluation
(`train.evaluation.token_files`) write it; `paravt view` reads it. Pure. Tests: `pytest
tests/loop/test_rollout_log.py`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from agents.base import Trajectory
from agents.text.context import decode_with_offsets
from paravt_env.crop import CropStatus

DIGITS = 4
"""Decimals of log-probabilities, advantages, ratios and terms."""
ROUNDING = 1e-6
"""A difference that the rounding of a sum explains."""


def weighted_terms(
    terms: Mapping[str, float], reward: float, weights: Mapping[str, float]
) -> dict[str, float]:
    """The terms with their weights in, which add up to the reward.

    A part `other` makes up for what no weighted term explains.

    >>> weighted_terms({"a": 1.0, "b": 2.0, "total": 2.0}, 2.5, {"a": 1.0, "b": 0.5})
    {'a': 1.0, 'b': 1.0, 'other': 0.5}
    """
    parts = {name: weight * terms[name] for name, weight in weights.items() if name in terms}
    rest = reward - math.fsum(parts.values())
    if parts and abs(rest) > ROUNDING:
        parts["other"] = rest
    return parts


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
    updated_C: np.ndarray | None,
) -> dict[str, Any]:
    """A conversation token by token; what the policy did not sample is joined by role.

    Args:
        one: The conversation.
        tokenizer: Of the policy.
        visual_ids: Tokens that stand for pixels; a row of them becomes `[n visual tokens]`.
        advantages_C: (C,) advantage of each token of the branch; None where it was not trained.
        updated_C: (C,) log-probabilities by the updated weights; None where nothing was updated.

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
        ratio = None
        if sampled and updated_C is not None:
            ratio = math.exp(min(float(updated_C[place]) - behaviour, 50.0))
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
