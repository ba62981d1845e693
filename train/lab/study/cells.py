"""The runs of a study on disk: which are finished, with which settings, and how one is made.

Under `train.lab.study.study`, which says what there is to run; the training itself is that of every
run (`train.loop.launch`, `train.sft.sft`). What a folder holds is never taken for the outcome of
other settings: it is refused. A cold start is whole or absent.

Tests: `pytest tests/lab/test_study.py`.
"""

from __future__ import annotations

import shutil
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from paravt_env.common.infos import plain
from train.common.errors import ConfigError
from train.common.lock import take
from train.config import recipe
from train.config.run import TrainConfig
from train.config.sft import SFTConfig
from train.evaluation.agents import evaluated_agent
from train.evaluation.identity import FREE
from train.evaluation.measure import measure
from train.lab.diagnose.observer import observers_of
from train.learner import checkpoint
from train.loop import launch
from train.sft import sft

GREEDY, SAMPLED = "greedy.json", "sampled.json"
LOG = "log.txt"
UNCOMPARED = {
    *(f"{group}.{name}" for group, names in FREE.items() for name in names if group != "chat"),
    *(f"evaluation.chat.{name}" for name in FREE["chat"]),
    *(f"run.{name}" for name in ("folder", "resume", "threads", "checkpoint_every")),
    *(f"run.{name}" for name in ("wandb", "wandb_project", "wandb_entity", "wandb_tags")),
    "run.tensorboard",
    "output",
}
"""Settings in which a run may differ from what would be run now: where it is, and how."""


@dataclass(frozen=True)
class Cell:
    """One arm with one seed: settings, and the folder of what came out."""

    arm: str
    seed: int
    config: TrainConfig
    evaluate_only: bool
    evaluations: tuple[str, ...] = (GREEDY, SAMPLED)
    """Reports that it ends with."""

    @property
    def folder(self) -> Path:
        """Where the run is."""
        return self.config.run.path

    @property
    def done(self) -> bool:
        """Whether its evaluations are there; `check` says whether they are of these settings."""
        return all((self.folder / name).is_file() for name in self.evaluations)

    def check(self) -> None:
        """Refuse a folder that holds a checkpoint or a report of other settings.

        Raises:
            ConfigError: It does; the settings are named.
        """
        reports = any((self.folder / name).is_file() for name in (GREEDY, SAMPLED))
        if reports or checkpoint.latest(self.folder) is not None:
            refuse_others(self.config, self.folder)


def refuse_others(config: TrainConfig | SFTConfig, folder: Path) -> None:
    """Check that what a folder holds was made with these settings.

    Raises:
        ConfigError: With others, which are named, or it does not say with which.
    """
    path = folder / "config.yaml"
    if not path.is_file():
        raise ConfigError(f"{folder} does not say how it was made: {path.name} is missing")
    changed = differing(recipe.load(type(config), path), config)
    if changed:
        raise ConfigError(
            f"{folder} was made with other settings: {', '.join(changed)}. Set them back, or give "
            "another --folder; to make it again, move it away (a start: with the runs from it)"
        )


def differing(saved: TrainConfig | SFTConfig, now: TrainConfig | SFTConfig) -> list[str]:
    """Settings that differ and matter, each with both values.

    A path inside the saved `run.folder` stands for the same place inside the present one, so that
    a study may be moved.
    """
    before, after = (dict(_flat(plain(asdict(config)))) for config in (saved, now))
    inside = f"{before['run.folder']}/"
    for name, value in before.items():
        if isinstance(value, str) and value.startswith(inside):
            before[name] = f"{after['run.folder']}/{value.removeprefix(inside)}"
    names = [name for name in {**before, **after} if name not in UNCOMPARED]
    return [
        f"{name} ({before.get(name, 'unset')}, now {after.get(name, 'unset')})"
        for name in names
        if before.get(name, "unset") != after.get(name, "unset")
    ]


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in settings.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def check_start(config: SFTConfig) -> None:
    """Refuse a cold start that is there, made with other settings.

    Raises:
        ConfigError: It is; the settings are named.
    """
    if Path(config.output).exists():
        refuse_others(config, Path(config.output))


def cold_start(config: SFTConfig) -> None:
    """Make a cold start's policy at `config.output`, unless it is there.

    It is made beside that place and renamed at the end, as training saves after every stage. Of
    several processes one makes it and the others wait.

    Raises:
        ConfigError: What is there was made with other settings.
    """
    output = Path(config.output)
    with _alone(output):
        check_start(config)
        if output.exists():
            return
        draft = output.with_name(f".{output.name}.partial")
        shutil.rmtree(draft, ignore_errors=True)  # what a killed process left
        sft.run(replace(config, output=str(draft)))
        recipe.save(config, draft)
        draft.rename(output)


@contextmanager
def _alone(output: Path) -> Iterator[None]:
    """Hold the lock of a place; it ends with the process."""
    output.parent.mkdir(parents=True, exist_ok=True)
    with output.with_name(f".{output.name}.lock").open("a") as file:
        if not take(file.fileno(), output):
            print(f"another process is making {output}: waiting for it", flush=True)
            take(file.fileno(), output, wait=True)
        yield


def run_cell(cell: Cell) -> None:
    """Train one cell, then evaluate it greedily and at the training temperature.

    A cell that was stopped continues from its last checkpoint.

    The sampled evaluation draws with the cell's seed; its tasks and frame budgets are those of all.
    """
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
        saved = checkpoint.latest(cell.folder)
        resumed = replace(config, run=replace(config.run, resume=saved is not None))
        policy = str(launch.train(resumed, observers_of(resumed)))
    for name in cell.evaluations:
        temperature = 0.0 if name == GREEDY else config.agent.temperature
        evaluation = replace(config.evaluation, temperature=temperature)
        player = replace(config, evaluation=replace(evaluation, seed=cell.seed))
        at = replace(config, evaluation=evaluation)
        measure(at, evaluated_agent(player, policy), cell.folder / name)
