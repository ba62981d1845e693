"""Rollouts: an agent plays one episode in every row of the vector environment.

The first half of the journey in one function. Training, the checks of the cold start and evaluation
all call `play`, so they see the same prompts, turns and rewards. A row whose video cannot be read
comes back as a rollout too: counted, with its error, and never scored. So does a row whose agent
could not decide, and one whose answer could not be judged.

Command: `pytest tests/rollout/test_rollout.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from agents.base import Agent, AgentError, Completion, Decision, MeteredAgent, TextAgent, Trajectory
from paravt_env.crop import CropStatus
from paravt_env.episode.episode import StopReason
from paravt_env.rewards import compliance
from paravt_env.spaces import batch_actions, unbatch
from paravt_env.tasksets.mixture import part_of
from paravt_env.vector import LongVideoVectorEnv
from train.rollout.starts import Start

AGENT_ERROR = "agent_error"
"""Stop reason of a row whose agent could not decide; the environment never ends a row so."""

UNPLAYED = (StopReason.video_error, StopReason.server_error, AGENT_ERROR)
"""Stop reasons of episodes that have no whole transcript."""


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
        terms: Unweighted value of each reward term, and `total`; empty where nothing was scored.
        stop_reason: A `StopReason`, or `AGENT_ERROR`.
        answer: The answer that counted.
        correct: Value of the answer term, in [0, 1].
        compliant: Whether the transcript obeys the protocol, by one rule for every setting.
        turns: For each turn its `completion` and its `crops` (`window`, `status`, `message`,
            `frames`).
        calls: Calls attempted, with any status.
        executed: Calls that ran.
        parallel: Most calls in one turn.
        frames_seen: Overview and crop frames.
        evidence_recall: Share of the gold evidence that was looked at; NaN without gold.
        trajectories: What a text agent can be trained on, main first; empty for others.
        error: Why the video could not be read or the agent could not decide, else "".
        duration: Of the video, in seconds; 0 where it could not be read.
        usage: What the agent says that the episode cost; see `agents.base.MeteredAgent`.
        untagged: Whether the answer that counted had no closed tag.
        lapses: Calls by what had to be put right in them; see `paravt_env.rewards.lapses`.
        lengths: Tokens that the policy wrote in each turn; empty where the agent does not say.
        cut: Turns that the limit on their tokens ended.
        part: The set of a mixture that the task is of, else "".
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
    duration: float = 0.0
    usage: dict[str, float] = field(default_factory=dict)
    untagged: bool = False
    lapses: dict[str, int] = field(default_factory=dict)
    lengths: tuple[int, ...] = ()
    cut: int = 0
    part: str = ""


def play(
    env: LongVideoVectorEnv,
    agent: Agent,
    starts: Sequence[Start],
    progress: Callable[[int, int], None] | None = None,
    finished: Callable[[int, Rollout], None] | None = None,
) -> list[Rollout]:
    """Play starts until every episode is finished: start i in row i, more than rows in turn.

    A group is several equal starts in a row.

    Args:
        env: Rows beyond the starts idle.
        agent: Acts for all running rows at once.
        starts: Where the rows begin.
        progress: Called with (finished starts, starts) after each turn.
        finished: Called with a start's place and its rollout as soon as its episode is over.

    Returns:
        One rollout a start, in order.

    Raises:
        ValueError: No starts.
        AgentError, TimeoutError, ConnectionError: The agent can decide in no row, and is `strict`.
    """
    if not starts:
        raise ValueError("0 starts: there is nothing to play")
    rollouts: list[Rollout] = []
    for first in range(0, len(starts), env.num_envs):

        def told(done: int, _: int, first: int = first) -> None:
            if progress is not None:
                progress(first + done, len(starts))

        def ended(place: int, rollout: Rollout, first: int = first) -> None:
            if finished is not None:
                finished(first + place, rollout)

        rollouts += _play(env, agent, starts[first : first + env.num_envs], told, ended)
    return rollouts


def _play(
    env: LongVideoVectorEnv,
    agent: Agent,
    starts: Sequence[Start],
    progress: Callable[[int, int], None],
    finished: Callable[[int, Rollout], None],
) -> list[Rollout]:
    """Play one batch, at most as many starts as rows."""
    rows = len(starts)
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
    durations = [float(seconds) for seconds in observations["video"]["duration"][:rows]]
    last = {row: unbatch(infos, row) for row in range(rows)}
    rewards = np.zeros(rows)
    turns: list[list[dict[str, Any]]] = [[] for _ in range(rows)]
    written: list[list[Completion]] = [[] for _ in range(rows)]
    rollouts: dict[int, Rollout] = {}

    def end(row: int) -> None:
        played = _rollout(
            env, agent, row, last[row], float(rewards[row]), turns[row], durations[row]
        )
        said = [one for one in written[row] if one.length is not None]
        lengths, cut = tuple(one.length or 0 for one in said), sum(one.cut for one in said)
        rollouts[row] = replace(played, lengths=lengths, cut=cut)
        finished(row, rollouts[row])

    for row in range(rows):
        if "error" in last[row]:
            end(row)
    while active := [row for row in range(rows) if row not in rollouts]:
        decisions = _decide(agent, observations, active, env.simulation.settings.max_crops)
        for row, decision in decisions.items():
            if decision.error:
                last[row] |= {"stop_reason": AGENT_ERROR, "error": decision.error}
                end(row)
        active = [row for row in active if row not in rollouts]
        if active:
            actions = [decisions[r].action if r in active else None for r in range(env.num_envs)]
            observations, paid, terminated, truncated, infos = env.step(
                batch_actions(actions, env.simulation.settings.max_crops)
            )
        for row in active:
            rewards[row] += paid[row]
            last[row] = unbatch(infos, row)
            turns[row].append(_turn(decisions[row], last[row]))
            if (completion := decisions[row].completion) is not None:
                written[row].append(completion)
            if terminated[row] or truncated[row]:
                end(row)
        progress(len(rollouts), rows)
    return [rollouts[row] for row in range(rows)]


def _decide(
    agent: Agent, observations: Mapping[str, Any], active: Sequence[int], max_crops: int
) -> dict[int, Decision]:
    """The decisions of the active rows.

    An agent that lost its connection fails all of them, and is counted; a strict one is an error.
    """
    try:
        return dict(zip(active, agent.act(observations, active), strict=True))
    except (AgentError, TimeoutError, ConnectionError) as error:
        if getattr(agent, "strict", False):
            raise
        reason = f"{type(error).__name__}: {error}"
        return {row: Decision.failed(reason, max_crops) for row in active}


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
    duration: float,
) -> Rollout:
    task = env.task_of(row)
    failed = info["stop_reason"] in UNPLAYED
    error = str(info.get("error", ""))
    statuses = [[crop["status"] for crop in turn["crops"]] for turn in turns]
    return Rollout(
        task_id=task.id,
        video=task.medium,
        family=task.family,
        category=task.category,
        part=part_of(task),
        frame_budget=int(info["frame_budget"]),
        reward=reward,
        terms={} if error else {name: float(v) for name, v in info["reward_terms"].items()},
        stop_reason=str(info["stop_reason"]),
        answer=str(info.get("answer", "")),
        correct=0.0 if error else float(info["correct"]),
        compliant=not failed and compliance(env.transcript_of(row)),
        turns=tuple(turns),
        calls=sum(len(turn) for turn in statuses),
        executed=sum(status == CropStatus.ok for turn in statuses for status in turn),
        parallel=max((len(turn) for turn in statuses), default=0),
        frames_seen=int(info["frames_seen"]),
        evidence_recall=float(info.get("evidence_recall", float("nan"))),
        trajectories=(
            tuple(agent.trajectories(row)) if isinstance(agent, TextAgent) and not error else ()
        ),
        error=error,
        duration=duration,
        usage=dict(agent.usage(row)) if isinstance(agent, MeteredAgent) else {},
        untagged=bool(info.get("untagged", False)),
        lapses={name: int(count) for name, count in info.get("lapses", {}).items() if count},
    )
