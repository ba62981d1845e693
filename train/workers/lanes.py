"""Worker lanes: parts of a batch that play side by side over one engine.

A lane is rows of its own and an agent of its own. While the crops of one lane are decoded, another
generates. Tests: `pytest tests/workers/test_asynchronous.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from time import perf_counter

import numpy as np

from agents.base import Agent
from paravt_env.vector import LongVideoVectorEnv
from train.rollout.play import Rollout, play
from train.rollout.starts import Start

Progress = Callable[[int, int], None]


class Cancelled(Exception):
    """A batch was given up half-way because the run ends."""


class Heartbeat:
    """Told after every turn of every lane: when something last moved, and whether to stop."""

    def __init__(self) -> None:
        self.moved = perf_counter()
        self.stopping = False

    def __call__(self, done: int, rows: int) -> None:
        """A lane has made a turn.

        Raises:
            Cancelled: The run ends, and the lane is not through.
        """
        self.moved = perf_counter()
        if self.stopping and done < rows:
            raise Cancelled


@dataclass(frozen=True)
class Lane:
    """Rows of its own and an agent of its own; the engine behind the agents may be shared."""

    env: LongVideoVectorEnv
    agent: Agent


def divide(groups: int, lanes: int) -> list[int]:
    """Groups that each lane plays, as even as possible.

    >>> divide(7, 3)
    [3, 2, 2]
    """
    if not 1 <= lanes <= groups:
        raise ValueError(f"{groups} groups cannot be divided over {lanes} lanes")
    return [len(part) for part in np.array_split(np.arange(groups), lanes)]


def play_in_lanes(
    lanes: Sequence[Lane], starts: Sequence[Start], size: int, progress: Progress | None = None
) -> list[Rollout]:
    """Play one batch with every lane in a thread of its own; groups stay whole.

    Args:
        lanes: Where to play; one lane plays in the calling thread, exactly as `play`.
        starts: A group is `size` equal starts in a row.
        size: Rollouts of a group.
        progress: Called with (finished rows, rows) of a lane after each of its turns; what it
            raises ends the lane.

    Returns:
        One rollout a start, in order.

    Raises:
        Exception: The first error of a lane, after the other lanes have ended.
    """
    parts, at = [], 0
    for groups in divide(len(starts) // size, len(lanes)):
        parts.append(starts[at : at + groups * size])
        at += groups * size
    if at != len(starts):
        raise ValueError(f"{len(starts)} starts are no whole groups of {size}")
    if len(lanes) == 1:
        return play(lanes[0].env, lanes[0].agent, parts[0], progress)
    with ThreadPoolExecutor(len(lanes), "lane") as pool:
        running = [
            pool.submit(play, lane.env, lane.agent, part, progress)
            for lane, part in zip(lanes, parts, strict=True)
        ]
    return [rollout for future in running for rollout in future.result()]
