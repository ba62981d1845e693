"""Studies: the same training under several settings (arms) and seeds, measured in the same way.

After the journey: every arm is a run of `train.loop.launch` followed by the same evaluations, in a
folder of its own (`train.lab.study.cells`); what is finished is never run again, what was stopped
goes on. The table and the figure (`train.lab.study.report`) show all that is there. A study is one
YAML file in `train/studies/`. Command: `paravt study paradox` (`--quick` for one small seed).
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from paravt_env.common.names import known_name
from train.common.errors import ConfigError
from train.config import recipe
from train.config.run import TrainConfig
from train.config.sft import SFTConfig
from train.lab.study.cells import GREEDY, LOG, SAMPLED, Cell, check_start, cold_start, run_cell

STUDIES = Path(__file__).parents[2] / "studies"
Measure = Literal["greedy_accuracy", "accuracy", "f", "calls", "low_calls"]
"""What a goal is about; `train.lab.study.report.MEASURES` says of which rows."""


@dataclass
class Start:
    """A policy that arms start from: a checkpoint, or a cold start that is made first."""

    checkpoint: str = ""
    """Folder or name; where `sft` is set, what the cold start itself starts from."""
    sft: str = ""
    """Recipe of `paravt sft`; empty takes the checkpoint as it is."""
    overrides: dict[str, Any] = field(default_factory=dict)
    """Settings of that recipe, by dotted name."""


@dataclass
class Arm:
    """One way of training (or, with no steps, of playing) that the study compares."""

    title: str = ""
    start: str = ""
    """Name of the start; empty takes the study's first."""
    overrides: dict[str, Any] = field(default_factory=dict)
    """What differs from the study's recipe, by dotted name."""
    evaluate_only: bool = False
    """Play the start as it is: greedily once, and sampled with every seed."""
    control: str = ""
    """Arm that this one is compared with; empty takes the study's baseline."""


@dataclass
class Goal:
    """What an arm is to reach beside another one; measured and judged below the table."""

    arm: str
    beside: str
    """The other arm."""
    measure: Measure
    title: str = ""
    """The claim that it is a part of."""
    least: float = 0.0
    """At least this many times the other's mean; 0 asks for the interval of the difference."""
    rises: bool = True
    """least = 0: that interval is to lie above zero; false: it is not to."""


@dataclass
class StudyConfig:
    """What is compared with what."""

    recipe: str = "paragrpo_mini"
    """Recipe that every arm changes."""
    overrides: dict[str, Any] = field(default_factory=dict)
    """Changes to the recipe that all arms share."""
    quick: dict[str, Any] = field(default_factory=dict)
    """Further changes of `--quick`."""
    starts: dict[str, Start] = field(default_factory=dict)
    arms: dict[str, Arm] = field(default_factory=dict)
    main: tuple[str, ...] = ()
    """Arms that run where none are named."""
    baseline: str = ""
    """Arm that the others are compared with."""
    goals: tuple[Goal, ...] = ()
    """What the arms are to reach."""
    seeds: tuple[int, ...] = (0, 1, 2)

    def __post_init__(self) -> None:
        """Check that every name means something."""
        if not self.arms or not self.starts:
            raise ValueError("a study needs arms and starts")
        aims = [name for goal in self.goals for name in (goal.arm, goal.beside)]
        for name in (*self.main, self.baseline, *aims):
            known_name("arm", name, self.arms)
        for arm in self.arms.values():
            arm.start = arm.start or next(iter(self.starts))
            known_name("start", arm.start, self.starts)
            arm.control = arm.control or self.baseline
            known_name("control", arm.control, self.arms)


def load(name: str) -> StudyConfig:
    """A study by name, or from a YAML file.

    Raises:
        ConfigError: Unknown study or key, wrong type, a name that means nothing.
    """
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        names = sorted(p.stem for p in STUDIES.glob("*.yaml"))
        try:
            path = STUDIES / f"{known_name('study', name, names)}.yaml"
        except ValueError as error:
            raise ConfigError(str(error)) from error
    if not path.is_file():
        raise ConfigError(f"no study at {path}")
    return recipe.build(StudyConfig, recipe.read_settings(path))


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
            reports = (SAMPLED,) if alone and place else (GREEDY, SAMPLED)
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
    own = {"agent.checkpoint": start.checkpoint, "output": start_checkpoint(study, folder, name)}
    return recipe.load(SFTConfig, start.sft, start.overrides | own)


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
    for name in dict.fromkeys(study.arms[cell.arm].start for cell in waiting):
        start = starts[name]
        if start is not None:
            cold_start(start)
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # inherited by the workers
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max(1, min(jobs, len(waiting))), mp_context=spawn) as pool:
        futures = {pool.submit(run_cell, cell): cell for cell in waiting}
        for number, future in enumerate(as_completed(futures), 1):
            cell, error = futures[future], future.exception()
            result = f"failed: {error}; see {cell.folder / LOG}" if error else "finished"
            say(f"[{number}/{len(waiting)}] {cell.arm}, seed {cell.seed}: {result}")
            sys.stdout.flush()
    finished = [cell for cell in chosen if cell.done]
    if not finished:
        raise ConfigError(f"no run of the study finished; see the {LOG} files in {folder}")
    return finished


def command(args: argparse.Namespace) -> None:
    """`paravt study NAME`: run what is missing, write the table and the figure, print the table."""
    from train.lab.study.report import write

    study = load(args.name)
    suffix = "-quick" if args.quick else ""
    folder = Path(args.folder or f"runs/{Path(args.name).stem}{suffix}")
    seeds = args.seeds or (study.seeds[:1] if args.quick else study.seeds)
    run(study, folder, args.arms, seeds, args.quick, args.jobs)
    found = all_cells(study, folder, seeds, args.quick)
    table, figure, text = write(study, found, folder)
    print(f"\n{text}\n{table} and {figure} written")
