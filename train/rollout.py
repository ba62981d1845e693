"""Rollouts: an agent plays one episode in every row of the vector environment.

The first half of the journey in one function. Training, the checks of the cold start and evaluation
all call `play`, so they see the same prompts, turns and rewards. A row whose video cannot be read
comes back as a rollout too: counted, with its error, and never scored.

Command: `pytest tests/test_rollout.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from agents.base import Agent, Decision, TextAgent, Trajectory
from paravt_env.crops import CropStatus
from paravt_env.episode import StopReason
from paravt_env.rewards import compliance
from paravt_env.spaces import batch_actions
from paravt_env.vector import LongVideoVectorEnv


class Start(NamedTuple):
    """Where an episode begins; what is None is drawn by the row's generator."""

    task_id: str | None = None
    frame_budget: int | None = None
    seed: int | None = None


@dataclass(frozen=True)
class Rollout:
    """One finished episode.

    Attributes:
        task_id: The question.
        video: Path of its video.
        family: Question family, "" where the task set has none.
        category: Published category of the question.
        frame_budget: K, the overview frames.
        reward: The weighted sum of the terms.
        terms: Unweighted value of each reward term, and `total`; empty after a video error.
        stop_reason: A `StopReason`.
        answer: The answer that counted.
        correct: Value of the answer term, in [0, 1].
        compliant: Whether the transcript obeys the protocol, by one rule for every setting.
        turns: For each turn its `completion` and its `crops` (`window`, `status`, `message`,
            `frames`).
        calls: Calls attempted, whatever became of them.
        executed: Calls that ran.
        parallel: Most calls in one turn.
        frames_seen: Overview and crop frames.
        evidence_recall: Share of the gold evidence that was looked at; NaN without gold.
        trajectories: What a text agent can be trained on, main first; empty for others.
        error: Why the video could not be read, else "".
    """

    task_id: str
    video: str
    family: str
    category: str
    frame_budget: int
    reward: float
    terms: dict[str, float]
    stop_reason: str
    answer: str
    correct: float
    compliant: bool
    turns: tuple[dict[str, Any], ...]
    calls: int
    executed: int
    parallel: int
    frames_seen: int
    evidence_recall: float
    trajectories: tuple[Trajectory, ...] = field(default=(), repr=False)
    error: str = ""


def play(
    env: LongVideoVectorEnv,
    agent: Agent,
    starts: Sequence[Start],
    progress: Callable[[int, int], None] | None = None,
) -> list[Rollout]:
    """Play one batch: start i in row i, until every row is finished.

    A group is several equal starts in a row.

    Args:
        env: At least as many rows as starts; the rest idles.
        agent: Acts for all running rows at once.
        starts: Where the rows begin.
        progress: Called with (finished rows, rows) after each turn.

    Returns:
        One rollout a start, in order.

    Raises:
        ValueError: More starts than rows, or none.
    """
    rows = len(starts)
    if not 0 < rows <= env.num_envs:
        raise ValueError(f"{rows} starts do not fit the {env.num_envs} rows of the environment")
    rest = [None] * (env.num_envs - rows)
    options: dict[str, Any] = {
        "reset_mask": np.arange(env.num_envs) < rows,
        "task_id": [*(start.task_id for start in starts), *rest],
        "frame_budget": [*(start.frame_budget for start in starts), *rest],
    }
    observations, infos = env.reset(
        seed=[*(start.seed for start in starts), *rest], options=options
    )
    agent.begin(range(rows))
    last = {row: row_info(infos, row) for row in range(rows)}
    rewards = np.zeros(rows)
    turns: list[list[dict[str, Any]]] = [[] for _ in range(rows)]
    active = [row for row in range(rows) if "error" not in last[row]]
    while active:
        decisions = dict(zip(active, agent.act(observations, active), strict=True))
        actions = [decisions[r].action if r in decisions else None for r in range(env.num_envs)]
        observations, paid, terminated, truncated, infos = env.step(
            batch_actions(actions, env.simulation.settings.max_crops)
        )
        rewards += paid[:rows]
        for row in active:
            last[row] = row_info(infos, row)
            turns[row].append(_turn(decisions[row], last[row]))
        active = [row for row in active if not (terminated[row] or truncated[row])]
        if progress is not None:
            progress(rows - len(active), rows)
    return [
        _rollout(env, agent, row, last[row], float(rewards[row]), turns[row]) for row in range(rows)
    ]


def row_info(infos: Mapping[str, Any], row: int) -> dict[str, Any]:
    """One row of a vector environment's info; keys that the row does not have are left out.

    >>> row_info({"turn": np.array([3, 0]), "_turn": np.array([True, False])}, 1)
    {}
    """
    return {
        key: row_info(value, row) if isinstance(value, Mapping) else value[row]
        for key, value in infos.items()
        if f"_{key}" in infos and infos[f"_{key}"][row]
    }


def _turn(decision: Decision, info: Mapping[str, Any]) -> dict[str, Any]:
    """The record of one turn: its text and what became of its calls."""
    return {
        "completion": decision.completion.text if decision.completion else "",
        "crops": [
            {key: crop[key] for key in ("window", "status", "message", "frames")}
            for crop in info["crops"]
        ],
    }


def _rollout(
    env: LongVideoVectorEnv,
    agent: Agent,
    row: int,
    info: Mapping[str, Any],
    reward: float,
    turns: Sequence[dict[str, Any]],
) -> Rollout:
    task = env.task_of(row)
    failed = info["stop_reason"] == StopReason.video_error
    statuses = [[crop["status"] for crop in turn["crops"]] for turn in turns]
    return Rollout(
        task_id=task.id,
        video=task.video,
        family=task.family,
        category=task.category,
        frame_budget=int(info["frame_budget"]),
        reward=reward,
        terms={name: float(value) for name, value in info.get("reward_terms", {}).items()},
        stop_reason=str(info["stop_reason"]),
        answer=str(info.get("answer", "")),
        correct=float(info.get("correct", 0.0)),
        compliant=not failed and compliance(env.transcript_of(row)),
        turns=tuple(turns),
        calls=sum(len(turn) for turn in statuses),
        executed=sum(status == CropStatus.ok for turn in statuses for status in turn),
        parallel=max((len(turn) for turn in statuses), default=0),
        frames_seen=int(info["frames_seen"]),
        evidence_recall=float(info.get("evidence_recall", float("nan"))),
        trajectories=(
            tuple(agent.trajectories(row)) if isinstance(agent, TextAgent) and not failed else ()
        ),
        error=str(info.get("error", "")),
    )
