"""Environment steps a second, single and vectorised, and the share of time outside decoding.

Plays the same episodes (reset, a turn of three crops, an answer) in a single environment, one after
the other, and in a vector environment of as many rows; as a group (one start for all rows, crops of
their own) and on different videos; with an empty frame store (cold) and again (warm, nothing to
decode). The four cells of a column are interleaved; numbers are medians over the repeats, ratios
are against the single environment in the same state.

Run: `python benchmarks/env.py` (a few minutes) or `python benchmarks/env.py --quick` (under a
minute).
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from paravt_env.common.progress import counted
from paravt_env.env import LongVideoEnv
from paravt_env.spaces import Action, batch_actions, empty_action
from paravt_env.task import TaskSet
from paravt_env.tasksets import load_tasks
from paravt_env.vector import LongVideoVectorEnv

CROPS, CROP_SECONDS = 3, 12.0
PLAYS = {"cold": 1, "warm": 5}  # measured as one: a warm play takes some hundredths of a second


class Sample(NamedTuple):
    """Steps a second (each row's counted) and the share of wall time outside decoding."""

    steps_per_second: float
    outside_decoding: float


def plan(tasks: TaskSet, rows: int, group: bool) -> tuple[list[str], list[Action]]:
    """The task of each row and its first action; a group has one task and crops that differ."""
    videos = list(dict.fromkeys(tasks[i].video for i in range(len(tasks))))
    first_of = {tasks[i].video: tasks[i].id for i in reversed(range(len(tasks)))}
    chosen = [first_of[videos[0 if group else row % len(videos)]] for row in range(rows)]
    generator = np.random.default_rng(0)
    actions = []
    for _ in range(rows):
        action = empty_action(5)
        starts = generator.uniform(0, 300, CROPS)
        action["crops"][:CROPS] = np.stack([starts, starts + CROP_SECONDS], 1)
        action["crop_mask"][:CROPS] = 1
        actions.append(action)
    return chosen, actions


def play_single(env: LongVideoEnv, starts: list[str], actions: list[Action]) -> int:
    """Play the episodes one after the other; the number of steps."""
    for task_id, action in zip(starts, actions, strict=True):
        env.reset(seed=0, options={"task_id": task_id, "frame_budget": 32})
        env.step(action)
        env.step({**empty_action(5), "answer": "A"})
    return 2 * len(starts)


def play_vector(env: LongVideoVectorEnv, starts: list[str], actions: list[Action]) -> int:
    """Play the episodes at once; the number of steps, each row's counted."""
    env.reset(seed=0, options={"task_id": starts, "frame_budget": 32})
    env.step(batch_actions(actions, 5))
    env.step(batch_actions([{**empty_action(5), "answer": "A"}] * len(starts), 5))
    return 2 * len(starts)


def measure(env: Any, play: Callable[[], int], plays: int) -> Sample:
    """Time so many calls of `play`."""
    simulation = env.simulation
    waited, began = simulation.video_seconds, time.perf_counter()
    steps = sum(play() for _ in range(plays))
    wall = time.perf_counter() - began
    return Sample(steps / wall, 1 - (simulation.video_seconds - waited) / wall)


def benchmark(
    tasks: TaskSet, rows: int, repeats: int, workers: int
) -> list[tuple[str, str, str, Sample]]:
    """Median of every cell: (episodes, environment, store, sample)."""
    settings: dict[str, Any] = {"tasks": tasks, "video_workers": workers}
    single, vector = LongVideoEnv(**settings), LongVideoVectorEnv(rows, **settings)
    samples: dict[tuple[str, str, str], list[Sample]] = {}
    for _ in counted("rounds", range(repeats)):
        for episodes in ("one group", "different videos"):
            starts, actions = plan(tasks, rows, episodes == "one group")
            for name, env, play in (
                ("single", single, play_single),
                (f"vector {rows}", vector, play_vector),
            ):
                env.simulation.close()  # forgets every frame
                for store, plays in PLAYS.items():
                    sample = measure(env, lambda: play(env, starts, actions), plays)  # type: ignore[operator]  # noqa: B023
                    samples.setdefault((episodes, name, store), []).append(sample)
    single.close()
    vector.close()
    return [
        (*key, Sample(*(statistics.median(column) for column in zip(*values, strict=True))))
        for key, values in sorted(samples.items())
    ]


def table(cells: list[tuple[str, str, str, Sample]]) -> str:
    """The result as text; ratios are against `single` on the same episodes in the same state."""
    base = {
        (episodes, store): sample for episodes, name, store, sample in cells if name == "single"
    }
    lines = [
        f"{'episodes':18}{'environment':14}{'store':8}"
        f"{'steps/s':>10}{'ratio':>8}{'outside decoding':>18}"
    ]
    for episodes, name, store, sample in cells:
        ratio = sample.steps_per_second / base[episodes, store].steps_per_second
        lines.append(
            f"{episodes:18}{name:14}{store:8}{sample.steps_per_second:10.1f}{ratio:7.1f}x"
            f"{sample.outside_decoding:17.0%}"
        )
    return "\n".join(lines)


def main() -> None:
    """Parse the command line, run, print and save."""
    parser = argparse.ArgumentParser(description="Environment steps a second")
    parser.add_argument(
        "--quick", action="store_true", help="two videos, four rows, under a minute"
    )
    parser.add_argument("--rows", type=int, help="rows of the vector environment (8; quick: 4)")
    parser.add_argument("--repeats", type=int, default=5, help="measurements of each cell")
    parser.add_argument("--workers", type=int, default=2, help="decoding threads")
    parser.add_argument(
        "--tasks", default="synthetic", help="task set, or path of a .jsonl manifest"
    )
    parser.add_argument("--output", type=Path, help="also write the table to this file")
    arguments = parser.parse_args()
    rows = arguments.rows or (4 if arguments.quick else 8)
    kwargs = {"videos": 2 if arguments.quick else rows}
    kwargs = kwargs if arguments.tasks == "synthetic" else {}
    tasks = load_tasks(arguments.tasks, split="train", **kwargs)
    text = table(benchmark(tasks, rows, arguments.repeats, arguments.workers))
    print(text)
    if arguments.output:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(text + "\n")


if __name__ == "__main__":
    main()
