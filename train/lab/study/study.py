"""Studies: the same training under several settings (arms) and seeds, measured in the same way.

After the journey: every arm is a run of `train.loop.launch` followed by the same evaluations, in a
folder of its own (`train.lab.study.cells`). What is finished is never run again, and a run that was
stopped continues. What is compared is said in `train.lab.study.settings`. Knows nothing of the
table and the figure: the command (`train.commands.study`) calls this room and then them. Command:
`paravt study paradox` (`--quick` for one small seed). Tests: `pytest tests/lab/test_study.py`.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from dataclasses import replace
from pathlib import Path

from paravt_env.common.names import known_name
from paravt_env.common.parent import end_with
from paravt_env.common.progress import EVERY, Pace, in_words
from train.common.errors import ConfigError
from train.config import recipe
from train.config.run import TrainConfig
from train.config.sft import SFTConfig
from train.lab.study.cells import GREEDY, LOG, SAMPLED, Cell, check_start, cold_start, run_cell
from train.lab.study.settings import StudyConfig


def cells(
    study: StudyConfig, folder: Path, arms: Sequence[str], seeds: Sequence[int], quick: bool
) -> list[Cell]:
    """The runs of a study, seed by seed, so that early results compare all arms.

    Raises:
        ConfigError: An unknown arm, or an override that its recipe does not know.
    """
    configs = {name: _config(study, folder, name, quick) for name in dict.fromkeys(arms)}
    found: list[Cell] = []
    for place, seed in enumerate(dict.fromkeys(seeds)):
        for name, config in configs.items():
            own = replace(config.run, name=f"{name}-{seed}", seed=seed)
            alone = study.arms[name].evaluate_only
            sampled_only = (alone and place) or not study.greedy
            reports = (SAMPLED,) if sampled_only else (GREEDY, SAMPLED)
            found.append(Cell(name, seed, replace(config, run=own), alone, reports))
    return found


def all_cells(study: StudyConfig, folder: Path, seeds: Sequence[int], quick: bool) -> list[Cell]:
    """The runs of every arm, with these seeds and with those of the study."""
    return cells(study, folder, [*study.arms], [*seeds, *study.seeds], quick)


def _config(study: StudyConfig, folder: Path, name: str, quick: bool) -> TrainConfig:
    """The settings of an arm."""
    try:
        arm = study.arms[known_name("arm", name, study.arms)]
    except ValueError as error:
        raise ConfigError(str(error)) from error
    shared = study.overrides | (study.quick if quick else {}) | arm.overrides
    own = {
        "agent.checkpoint": start_checkpoint(study, folder, arm.start),
        "run.folder": str(folder),
    }
    return recipe.load(TrainConfig, study.recipe, shared | own)


def start_checkpoint(study: StudyConfig, folder: Path, name: str) -> str:
    """Where the policy of a start is, or will be."""
    start = study.starts[name]
    return str(folder / "starts" / name) if start.sft else start.checkpoint


def start_config(study: StudyConfig, folder: Path, name: str) -> SFTConfig | None:
    """The settings of a start's cold start; None where it is a checkpoint as it is."""
    start = study.starts[name]
    if not start.sft:
        return None
    before = start_checkpoint(study, folder, start.after) if start.after else start.checkpoint
    own = {"agent.checkpoint": before, "output": start_checkpoint(study, folder, name)}
    own["run.folder"] = str(folder)  # so that a start inside it may be moved with the study
    return recipe.load(SFTConfig, start.sft, start.overrides | own)


def needed_starts(study: StudyConfig, names: Sequence[str]) -> list[str]:
    """The starts of these names and those that they come after, each once, earlier ones first."""
    wanted: set[str] = set()
    for name in names:
        while name and name not in wanted:
            wanted.add(name)
            name = study.starts[name].after
    return [name for name in study.starts if name in wanted]


def run(
    study: StudyConfig,
    folder: Path,
    arms: Sequence[str] = (),
    seeds: Sequence[int] = (),
    quick: bool = False,
    jobs: int = 2,
    say: Callable[[str], None] = print,
) -> list[Cell]:
    """Run what is not there yet, `jobs` processes at most; returns the finished cells.

    A cell that fails does not stop the others; its reason is said and is in its log.

    Raises:
        ConfigError: See `cells`; or the folder holds runs of other settings; or no cell finished.
    """
    seeds = seeds or study.seeds
    for cell in all_cells(study, folder, seeds, quick):
        cell.check()
    starts = {name: start_config(study, folder, name) for name in study.starts}
    for start in starts.values():
        if start is not None:
            check_start(start)
    chosen = cells(study, folder, arms or study.main, seeds, quick)
    waiting = [cell for cell in chosen if not cell.done]
    say(f"{len(chosen)} runs in {folder}, {len(chosen) - len(waiting)} of them finished before")
    for name in needed_starts(study, [study.arms[cell.arm].start for cell in waiting]):
        start = starts[name]
        if start is not None:
            cold_start(start)
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # inherited by the workers
    spawn = multiprocessing.get_context("spawn")
    processes = max(1, min(jobs, len(waiting)))
    with ProcessPoolExecutor(processes, spawn, end_with, (os.getpid(),)) as pool:
        futures = {pool.submit(run_cell, cell): cell for cell in waiting}
        pace, number, running = Pace(len(waiting)), 0, set(futures)
        while running:
            done, running = wait(running, timeout=EVERY, return_when=FIRST_COMPLETED)
            for future in done:
                number += 1
                cell, error = futures[future], future.exception()
                result = f"failed: {error}; see {cell.folder / LOG}" if error else "finished"
                said = (f"{cell.arm}, seed {cell.seed}: {result}", pace.left(number))
                say(f"[{number}/{len(waiting)}] {', '.join(filter(None, said))}")
            if not done:
                said = (f"running for {in_words(pace.clock() - pace.began)}", pace.left(number))
                say(f"[{number}/{len(waiting)}] {', '.join(filter(None, said))}")
            sys.stdout.flush()
    finished = [cell for cell in chosen if cell.done]
    if not finished:
        raise ConfigError(f"no run of the study finished; see the {LOG} files in {folder}")
    return finished
