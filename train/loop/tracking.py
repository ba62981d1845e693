"""A run at Weights & Biases, which may fail without ending the training that it watches.

Under `train.loop.metrics`, which writes every step to `metrics.jsonl` first. Tests: `pytest
tests/loop/test_metrics.py`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

from paravt_env.common.files import write_whole
from train.common.errors import ConfigError

STEP = "step"
"""The metric that all others are drawn over, as in `metrics.jsonl`: W&B's own count only rises, and
it drops the steps that a resumed run repeats."""
PATIENCE = 30.0
"""Seconds that `auto` waits for W&B before it goes offline."""
LAST_WORDS = 300.0
"""Seconds that the end of a run waits for W&B to take what is left."""


class Tracker:
    """Passes steps on to a W&B run, until that fails.

    Args:
        run: From `start_wandb`.
        folder: The run's folder, for the message.
    """

    def __init__(self, run: Any, folder: Path) -> None:
        self._run, self._folder = run, folder
        run.define_metric(STEP, hidden=True)
        run.define_metric("*", step_metric=STEP)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Record a step; a failure of W&B is told once, and nothing more is sent."""
        if self._run is None:
            return
        try:
            self._run.log({STEP: step, **{name: float(value) for name, value in metrics.items()}})
        except Exception as error:  # whatever W&B raises: the training is worth more than its copy
            self._give_up(error)

    def close(self) -> None:
        """End the W&B run."""
        if self._run is None:
            return
        try:
            self._run.finish()
        except Exception as error:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        self._run = None
        print(
            f"paravt: W&B failed and gets no more steps ({_first_line(error)}); "
            f"{self._folder / 'metrics.jsonl'} has all of them",
            flush=True,
        )


def start_wandb(mode: str, folder: Path, config: Mapping[str, Any]) -> Any:
    """A W&B run, or None where it is `disabled`. Never asks for a key.

    `auto` is online where the environment has `WANDB_API_KEY` and W&B takes it, and offline
    elsewhere; one line says so where W&B could not be reached or refused the key. Offline runs stay
    in the run's folder until `wandb sync` is called. A resumed run keeps its id.

    Raises:
        ConfigError: wandb is not installed, or `online` without a key, or W&B cannot be reached.
    """
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

    def start(how: Literal["online", "offline"], **settings: Any) -> Any:
        return wandb.init(
            project="paravt",
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

    if mode == "offline" or not key:
        return start("offline")
    try:
        return start("online", **({"init_timeout": PATIENCE} if mode == "auto" else {}))
    except wandb.Error as error:
        if mode == "online":
            raise ConfigError(
                f"W&B cannot be used ({_first_line(error)}): --run.wandb=offline logs into "
                f"{folder}, --run.wandb=disabled does without"
            ) from error
        print(
            f"paravt: W&B cannot be used ({_first_line(error)}): logging offline; "
            f"`wandb sync {folder / 'wandb'}/offline-run-*` sends it later",
            flush=True,
        )
        wandb.teardown()  # its service still holds the run's id
        return start("offline")


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
