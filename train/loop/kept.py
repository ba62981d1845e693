"""What a resumed run may change, and what is refused unless it is meant.

Between the settings and `train/loop/launch.py`: the settings that a run was started with are in the
`config.yaml` of its folder. Tests: `pytest tests/loop/test_run_folder.py`.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from paravt_env.common.infos import plain
from train.common.errors import ConfigError
from train.config import recipe
from train.config.checks import without
from train.config.run import TrainConfig
from train.evaluation.identity import FREE, changed

SETTINGS = "config.yaml"
MAY_CHANGE = (
    *("run.name", "run.folder", "run.steps", "run.threads", "run.wandb", "run.checkpoint_every"),
    *("run.wandb_project", "run.wandb_entity", "run.wandb_tags", "run.tensorboard"),
    *("run.keep_checkpoints", "run.eval_every", "run.eval_tasks", "run.resume"),
    *("run.eval_set", "run.eval_set_kwargs", "run.keep_rollouts"),
    *("run.allow_changes", "agent.engine", "agent.device", "agent.vllm", "agent.feature_cache_gib"),
    *("parallel", "packing", "evaluation", "diagnostics", "faults"),
    *(f"env.{name}" for name in FREE["env"]),
)
"""Settings, or groups of them, that say how long and where a run runs and what is measured beside;
all others decide what is learned."""


def changes(folder: Path, config: TrainConfig) -> list[str]:
    """The deciding settings that differ from those of the run in a folder, a line each.

    Raises:
        ConfigError: Its settings cannot be read.
    """
    path = folder / SETTINGS
    if not path.is_file():
        return [f"{path} is missing, so the settings of the run are unknown"]
    try:
        there = recipe.load(TrainConfig, path)
    except ConfigError as error:
        return [f"{path} cannot be read ({error})"]
    return list(changed(_deciding(there), _deciding(config)))


def refuse_changes(folder: Path, config: TrainConfig) -> None:
    """Refuse to resume with other settings, unless `run.allow_changes` says that they are meant.

    Raises:
        ConfigError: The changed keys are named.
    """
    found = changes(folder, config)
    if found and not config.run.allow_changes:
        raise ConfigError(
            f"{folder} holds a run of other settings ({'; '.join(found[:6])}): resume with its own "
            f"(paravt train {folder / SETTINGS} --run.resume=true), add --run.allow_changes=true "
            "if they are meant, or give another --run.name"
        )


def save_settings(folder: Path, config: TrainConfig, step: int | None) -> None:
    """Write the settings of a run; those that were replaced on purpose are kept beside.

    Args:
        folder: Of the run.
        config: Its settings from now on.
        step: Of the checkpoint that it resumes from; None for a new run.
    """
    path = folder / SETTINGS
    if step is not None and (found := changes(folder, config)):
        before = folder / f"config-until-{step:06d}.yaml"
        if path.is_file():
            path.replace(before)
        print(f"resuming with other settings: {'; '.join(found)} (there: {before})", flush=True)
    recipe.save(replace(config, run=replace(config.run, allow_changes=False)), folder)


def _deciding(config: TrainConfig) -> dict[str, Any]:
    deciding = without(plain(asdict(config)), MAY_CHANGE)
    if config.optimizer.decay != "constant" and not config.optimizer.decay_steps:
        deciding["run"]["steps"] = config.run.steps  # where the learning rate has fallen
    return deciding
