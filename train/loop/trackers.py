"""Loggers beside `metrics.jsonl`: what each of them must have, and how one may fail.

Between `train.loop.metrics`, which writes every step to disk first, and W&B
(`train/loop/tracking.py`) or TensorBoard (`train/loop/tensorboard.py`). A logger that fails is told
once and gets nothing more; the run continues. Tests: `pytest tests/loop/test_trackers.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from train.config.run import RunConfig
from train.loop.tensorboard import start_tensorboard
from train.loop.tracking import first_line, start_wandb


class Sink(Protocol):
    """Where steps go, one by one."""

    name: str
    """In messages."""

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Record a step."""

    def close(self) -> None:
        """Write what is left."""


class Tracker:
    """Passes steps on to a sink, until that fails.

    Args:
        sink: Where they go.
        folder: The run's folder, for the message.
    """

    def __init__(self, sink: Sink, folder: Path) -> None:
        self._sink: Sink | None = sink
        self._folder = folder

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Record a step; a failure is told once, and nothing more is sent."""
        if self._sink is None:
            return
        try:
            self._sink.log(step, {name: float(value) for name, value in metrics.items()})
        except Exception as error:  # whatever it raises: the training is worth more than its copy
            self._give_up(self._sink, error)

    def close(self) -> None:
        """End the sink."""
        if self._sink is None:
            return
        try:
            self._sink.close()
        except Exception as error:
            self._give_up(self._sink, error)

    def _give_up(self, sink: Sink, error: Exception) -> None:
        self._sink = None
        print(
            f"paravt: {sink.name} failed and gets no more steps ({first_line(error)}); "
            f"{self._folder / 'metrics.jsonl'} has all of them",
            flush=True,
        )


def start_trackers(
    run: RunConfig, folder: Path, config: Mapping[str, Any], first_step: int = 0
) -> list[Tracker]:
    """The loggers that a run asks for.

    Args:
        run: Its settings.
        folder: Of the run; it is made.
        config: Resolved settings, stored with a W&B run.
        first_step: Step that a resumed run continues from.

    Raises:
        ConfigError: One cannot be started as it was asked for.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sinks: list[Sink | None] = [start_wandb(run, folder, config)]
    if run.tensorboard:
        sinks.append(start_tensorboard(folder, first_step))
    return [Tracker(sink, folder) for sink in sinks if sink is not None]
