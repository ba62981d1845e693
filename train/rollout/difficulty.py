"""Difficulty: which tasks are worth training on, by how often the starting policy solves them.

Before the first step of a run. A task that is always or never solved gives groups without variance,
so the filter of LongVILA-R1 (arXiv 2507.07966: ten inferences a question, without the all-right and
the all-wrong) leaves it out of the pool that batches are drawn from. The pass rates are kept in the
run's folder, and how many tasks they leave is logged in every step.

Command: `pytest tests/rollout/test_selection.py`.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from paravt_env.common.files import write_whole
from train.common.errors import ConfigError
from train.config.run import RunConfig
from train.config.selection import SelectionConfig
from train.distributed.processes import ALONE, Processes
from train.rollout.play import Rollout
from train.rollout.starts import Start

FILE = "pass_rates.json"
"""Measured pass rates in the run's folder: task id -> share in [0, 1], or null."""
Rates = Mapping[str, float | None]
"""Pass rate of each task; None where no rollout could be scored, as its video cannot be read."""
Play = Callable[[Sequence[Start]], list[Rollout]]


@dataclass(frozen=True)
class Pool:
    """The tasks that are trained on, and how many were left out for which reason."""

    ids: tuple[str, ...]
    metrics: dict[str, float] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """Tells pools of other tasks, or in another order, apart."""
        return hashlib.sha256("\n".join(self.ids).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def task_pool(
    settings: SelectionConfig,
    run: RunConfig,
    ids: Sequence[str],
    play: Play,
    rows: int,
    processes: Processes = ALONE,
    measured: bool = False,
) -> Pool:
    """All tasks, or those that the difficulty filter of the settings leaves.

    Pass rates are read from `selection.prior_file`, or measured before a run and read again when it
    is resumed: by then the policy is another one.

    Args:
        settings: Whether and how tasks are filtered.
        run: Its folder, where pass rates are kept, and its seed.
        ids: The tasks.
        play: Plays at most `rows` starts with the starting policy.
        rows: Starts that are played at once.
        processes: Those that play divide the tasks, the leader writes the pass rates.
        measured: The run is resumed, and its pass rates are in its folder.

    Raises:
        ConfigError: Pass rates that cannot be read, or no task is left.
    """
    path = run.path / FILE
    if settings.prior_file:
        return teachable(read_pass_rates(Path(settings.prior_file), ids))
    if not settings.prior_rollouts:
        return Pool(tuple(ids))
    if measured:
        return teachable(read_pass_rates(path, ids))
    times, seed = settings.prior_rollouts, run.seed
    if processes.leads:
        print(f"playing {len(ids)} tasks {times} times for their difficulty", flush=True)
    rates = measure_pass_rates(play, ids, times, rows, seed, processes)
    if processes.leads:
        write_whole(path, json.dumps(rates, indent=0))
    return teachable(rates)


def measure_pass_rates(
    play: Play,
    ids: Sequence[str],
    rollouts: int,
    rows: int,
    seed: int,
    processes: Processes = ALONE,
) -> dict[str, float | None]:
    """Mean answer of each task over `rollouts` rollouts, each with its own frame budget.

    A rollout that failed counts as wrong; a task whose rollouts all failed has no rate. `seed`
    fixes the starts, whichever process plays them.
    """
    mine = processes.workers.split(len(ids)) if processes.plays else slice(0, 0)
    seeds = np.random.default_rng([seed, 1]).integers(2**31, size=len(ids) * rollouts).tolist()
    asked = [task_id for task_id in ids for _ in range(rollouts)]
    starts = [Start(task_id, None, own) for task_id, own in zip(asked, seeds, strict=True)]
    starts = starts[mine.start * rollouts : mine.stop * rollouts]
    solved: dict[str, float] = defaultdict(float)
    failed: Counter[str] = Counter()
    for first in range(0, len(starts), rows):
        for rollout in play(starts[first : first + rows]):
            solved[rollout.task_id] += 0.0 if rollout.error else rollout.correct
            failed[rollout.task_id] += bool(rollout.error)
    own_rates = {
        task_id: solved[task_id] / rollouts if failed[task_id] < rollouts else None
        for task_id in ids[mine]
    }
    processes.barrier(patient=True)
    return {
        task_id: rate
        for rates in processes.from_workers(own_rates)
        for task_id, rate in rates.items()
    }


def read_pass_rates(path: Path, ids: Sequence[str]) -> dict[str, float | None]:
    """The pass rates of `ids` from a JSON file.

    Raises:
        ConfigError: The file is missing or holds something else, or lacks a task.
    """
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        rates = {
            str(task_id): None if rate is None else float(rate) for task_id, rate in stored.items()
        }
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path} holds no pass rates (task id -> share): {error}") from error
    for task_id, rate in rates.items():
        if rate is not None and not 0 <= rate <= 1:
            raise ConfigError(f"{path}: the pass rate of {task_id!r} is {rate}, not from 0 to 1")
    missing = [task_id for task_id in ids if task_id not in rates]
    if missing:
        raise ConfigError(f"{path} lacks {len(missing)} tasks, the first is {missing[0]!r}")
    return {task_id: rates[task_id] for task_id in ids}


def teachable(rates: Rates) -> Pool:
    """The tasks that are neither always nor never solved, and can be read.

    Raises:
        ConfigError: No task is left.
    """
    kept = tuple(task_id for task_id, rate in rates.items() if rate is not None and 0 < rate < 1)
    known = [rate for rate in rates.values() if rate is not None]
    always, never, unreadable = known.count(1), known.count(0), len(rates) - len(known)
    if not kept:
        raise ConfigError(
            f"the difficulty filter leaves no task: {always} are always and {never} never solved, "
            f"{unreadable} unreadable; more selection.prior_rollouts tell them apart, 0 trains on "
            "all"
        )
    metrics = {
        "selection/tasks_kept": float(len(kept)),
        "selection/tasks_dropped/always_solved": float(always),
        "selection/tasks_dropped/never_solved": float(never),
        "selection/tasks_dropped/unreadable": float(unreadable),
    }
    return Pool(kept, metrics)
