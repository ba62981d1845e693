"""A run's steps as TensorBoard's event files: `tensorboard --logdir runs`.

Under `train.loop.trackers`, where `run.tensorboard` is set. Needs the extra `tensorboard`; no
server and no network. Tests: `pytest tests/loop/test_trackers.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from train.common.errors import ConfigError

FOLDER = "tensorboard"
"""In the run's folder."""


class TensorBoard:
    """Scalars of every step, each over its step.

    Args:
        writer: torch's `SummaryWriter`.
    """

    name = "TensorBoard"

    def __init__(self, writer: Any) -> None:
        self._writer = writer

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Record a step, on disk before the next."""
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self) -> None:
        """Close the file."""
        self._writer.close()


def start_tensorboard(folder: Path, first_step: int = 0) -> TensorBoard:
    """Event files in a run's folder; of a resumed run the steps that come again replace the old.

    Raises:
        ConfigError: TensorBoard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ConfigError(
            "run.tensorboard=true needs tensorboard: pip install 'paravt[tensorboard]', or "
            "--run.tensorboard=false"
        ) from error
    return TensorBoard(SummaryWriter(str(folder / FOLDER), purge_step=first_step))
