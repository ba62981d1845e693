"""Studies: the same training under several settings (arms) and seeds, measured in the same way.

After the journey: every arm is a run of `train.launch` followed by the same evaluations, in a
folder of its own; what is finished is never run again, what was stopped goes on. A study is one
YAML file in `train/studies/`. Command: `paravt study paradox` (`--quick` for one small seed).
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from paravt_env.names import known_name
from train import checkpoint, recipe
from train.config import SFTConfig, TrainConfig
from train.errors import ConfigError
from train.measure import evaluated_agent, measure

STUDIES = Path(__file__).parent / "studies"
GREEDY, SAMPLED = "greedy.json", "sampled.json"
LOG = "log.txt"


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
    """Play the start as it is: one run, whatever the seeds."""


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
    seeds: tuple[int, ...] = (0, 1, 2)

    def __post_init__(self) -> None:
        """Check that every name means something."""
        if not self.arms or not self.starts:
            raise ValueError("a study needs arms and starts")
        for name in (*self.main, self.baseline):
            known_name("arm", name, self.arms)
        for arm in self.arms.values():
            arm.start = arm.start or next(iter(self.starts))
            known_name("start", arm.start, self.starts)


@dataclass(frozen=True)
class Cell:
    """One arm with one seed: settings, and the folder of what came out."""

    arm: str
    seed: int
    config: TrainConfig
    evaluate_only: bool

    @property
    def folder(self) -> Path:
        """Where the run is."""
        return self.config.run.path

    @property
    def done(self) -> bool:
        """Whether both evaluations are there."""
        return all((self.folder / name).is_file() for name in (GREEDY, SAMPLED))


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
    found: list[Cell] = []
    for place, seed in enumerate(seeds):
        for name in arms:
            try:
                arm = study.arms[known_name("arm", name, study.arms)]
            except ValueError as error:
                raise ConfigError(str(error)) from error
            if arm.evaluate_only and place:
                continue
            shared = study.overrides | (study.quick if quick else {}) | arm.overrides
            own = {
                "agent.checkpoint": start_checkpoint(study, folder, arm.start),
                "run.folder": str(folder),
                "run.name": name if arm.evaluate_only else f"{name}-{seed}",
                "run.seed": seed,
            }
            config = recipe.load(TrainConfig, study.recipe, shared | own)
            found.append(Cell(name, seed, config, arm.evaluate_only))
    return found


def start_checkpoint(study: StudyConfig, folder: Path, name: str) -> str:
    """Where the policy of a start is, or will be."""
    start = study.starts[name]
    return str(folder / "starts" / name) if start.sft else start.checkpoint


def make_start(study: StudyConfig, folder: Path, name: str) -> None:
    """Make a start's cold start, unless it is there."""
    start, output = study.starts[name], Path(start_checkpoint(study, folder, name))
    if not start.sft or (output / "config.json").is_file():
        return
    from train import sft

    own = {"agent.checkpoint": start.checkpoint, "output": str(output)}
    sft.run(recipe.load(SFTConfig, start.sft, start.overrides | own))


def run_cell(cell: Cell) -> None:
    """Train one cell, or go on with it, then evaluate greedily and at the training temperature."""
    cell.folder.mkdir(parents=True, exist_ok=True)
    with (
        (cell.folder / LOG).open("a", encoding="utf-8") as log,
        redirect_stdout(log),
        redirect_stderr(log),
    ):
        try:
            _train_and_measure(cell)
        except Exception:
            traceback.print_exc()
            raise


def _train_and_measure(cell: Cell) -> None:
    config = cell.config
    policy = config.agent.checkpoint
    if cell.evaluate_only:
        recipe.save(config, cell.folder)
    else:
        from train.launch import train

        saved = checkpoint.latest(cell.folder)
        policy = str(train(replace(config, run=replace(config.run, resume=saved is not None))))
    for name, temperature in ((GREEDY, 0.0), (SAMPLED, config.agent.temperature)):
        at = replace(config, evaluation=replace(config.evaluation, temperature=temperature))
        measure(at, evaluated_agent(at, policy), cell.folder / name)


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
        ConfigError: See `cells`; or no cell finished.
    """
    chosen = cells(study, folder, arms or study.main, seeds or study.seeds, quick)
    waiting = [cell for cell in chosen if not cell.done]
    say(f"{len(chosen)} runs in {folder}, {len(chosen) - len(waiting)} of them finished before")
    for name in dict.fromkeys(study.arms[cell.arm].start for cell in waiting):
        make_start(study, folder, name)
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
    from train.study_report import write

    study = load(args.name)
    suffix = "-quick" if args.quick else ""
    folder = Path(args.folder or f"runs/{Path(args.name).stem}{suffix}")
    seeds = args.seeds or (study.seeds[:1] if args.quick else study.seeds)
    finished = run(study, folder, args.arms, seeds, args.quick, args.jobs)
    table, figure, text = write(study, finished, folder)
    print(f"\n{text}\n{table} and {figure} written")
