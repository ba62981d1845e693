"""One run a folder: the process that leads locks it, and all of them stop where another job has it.

Around a run of `paravt train` and `paravt sft`. Tests: `pytest tests/common/test_lock.py
tests/loop/test_run_folder.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from train.common.errors import ConfigError
from train.common.lock import folder_lock
from train.distributed.processes import Processes


@contextmanager
def exclusive(folder: Path, processes: Processes) -> Iterator[None]:
    """Hold the folder of a run for its processes, which call this together.

    Raises:
        ConfigError: Another job has it.
    """
    with ExitStack() as held:
        refused = ""
        if processes.leads:
            try:
                held.enter_context(folder_lock(folder))
            except ConfigError as error:
                refused = str(error)
        if refused := processes.broadcast(refused, processes.leader):
            raise ConfigError(refused)
        yield
