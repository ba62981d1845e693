"""A run at Weights & Biases: online where there is a key, else in the run's folder.

Under `train.loop.trackers`, which sees to it that a failure does not end the training. Tests:
`pytest tests/loop/test_trackers.py`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

from paravt_env.common.files import write_whole
from train.common.errors import ConfigError
from train.config.run import RunConfig

STEP = "step"
"""The metric that all others are drawn over, as in `metrics.jsonl`: W&B's own count only rises, and
it drops the steps that a resumed run repeats."""
PATIENCE = 30.0
"""Seconds that `auto` waits for W&B before it goes offline."""
LAST_WORDS = 300.0
"""Seconds that the end of a run waits for W&B to take what is left."""


class WandbRun:
    """Steps of a W&B run.

    Args:
        run: From `wandb.init`.
    """

    name = "W&B"

    def __init__(self, run: Any) -> None:
        self._run = run
        run.define_metric(STEP, hidden=True)
        run.define_metric("*", step_metric=STEP)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Record a step."""
        self._run.log({STEP: step, **metrics})

    def close(self) -> None:
        """End the W&B run."""
        self._run.finish()


def start_wandb(run: RunConfig, folder: Path, config: Mapping[str, Any]) -> WandbRun | None:
    """A W&B run, or None where it is `disabled`. Never asks for a key.

    `auto` is online where the environment has `WANDB_API_KEY` and W&B takes it, and offline
    elsewhere; one line says so where W&B could not be reached or refused the key. Offline runs stay
    in the run's folder until `wandb sync` is called. A resumed run keeps its id.

    Raises:
        ConfigError: wandb is not installed, or `online` without a key, or W&B cannot be reached.
    """
    mode = run.wandb
    if mode == "disabled":
        return None
    key = bool(os.environ.get("WANDB_API_KEY"))
    if mode == "online" and not key:
        raise ConfigError("run.wandb=online needs WANDB_API_KEY; offline and disabled need none")
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    os.environ.setdefault("WANDB_DISABLE_WEAVE", "true")  # it mistakes our `agents`
    try:
        import wandb
    except ImportError as error:
        raise ConfigError(
            f"run.wandb={mode} needs wandb: pip install 'paravt[train]', or --run.wandb=disabled"
        ) from error
    identity = folder / "wandb-id.txt"
    if not identity.is_file():
        write_whole(identity, uuid4().hex[:8])

    def start(how: Literal["online", "offline"], **settings: Any) -> WandbRun:
        started = wandb.init(
            project=run.wandb_project,
            entity=run.wandb_entity or None,
            tags=list(run.wandb_tags) or None,
            name=folder.name,
            id=identity.read_text(encoding="utf-8").strip(),
            resume="allow",
            dir=str(folder),
            config=dict(config),
            mode=how,
            settings=wandb.Settings(
                silent=True, console="off", disable_git=True, finish_timeout=LAST_WORDS, **settings
            ),
        )
        return WandbRun(started)

    if mode == "offline" or not key:
        return start("offline")
    try:
        return start("online", **({"init_timeout": PATIENCE} if mode == "auto" else {}))
    except wandb.Error as error:
        if mode == "online":
            raise ConfigError(
                f"W&B cannot be used ({first_line(error)}): --run.wandb=offline logs into "
                f"{folder}, --run.wandb=disabled does without"
            ) from error
        print(
            f"paravt: W&B cannot be used ({first_line(error)}): logging offline; "
            f"`wandb sync {folder / 'wandb'}/offline-run-*` sends it later",
            flush=True,
        )
        wandb.teardown()  # its service still holds the run's id
        return start("offline")


def first_line(error: Exception) -> str:
    """What an error says, without what follows."""
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
