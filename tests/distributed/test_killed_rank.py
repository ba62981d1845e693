"""Four processes under torchrun's agent: one that is killed is named in one line, once."""

import os
import re
import signal
import time

import pytest
from support.gloo_processes import preload

from train.config.parallel import ParallelConfig
from train.distributed.processes import join
from train.distributed.watchdog import Watchdog

WORLD = 4


def job(folder, dead, alone):
    """One process of a job that goes through steps; `dead` is killed in the middle of one.

    Args:
        folder: Where each process writes what it says.
        dead: Rank of that process.
        alone: Whether the others are busy by themselves, and hear of it from torchrun only.
    """
    rank = int(os.environ["RANK"])
    os.dup2(os.open(folder / f"{rank}.txt", os.O_WRONLY | os.O_CREAT), 2)
    processes = join(ParallelConfig(timeout=60))
    with Watchdog(processes, lambda: "Go on so.", beat=0.2):
        for step in range(1000):
            processes.progress.at("update", step)
            processes.barrier()
            if step == 3 and rank == dead:
                os.kill(os.getpid(), signal.SIGKILL)
            if step == 3 and alone:
                time.sleep(60)
            time.sleep(0.05)


def said(folder):
    """What the processes said, without torch's warnings."""
    texts = {rank: (folder / f"{rank}.txt").read_text() for rank in range(WORLD)}
    assert "Traceback" not in "".join(texts.values())
    return [
        line for text in texts.values() for line in text.splitlines() if line.startswith("paravt:")
    ]


@pytest.mark.parametrize("alone", [False, True])
@pytest.mark.parametrize("dead", [0, 2])
def test_one_line_names_the_dead_process_and_nobody_else(tmp_path, dead, alone):
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    preload()
    settings = LaunchConfig(
        min_nodes=1, max_nodes=1, nproc_per_node=WORLD, run_id=f"{dead}{alone}", max_restarts=0,
        monitor_interval=0.1, start_method="forkserver", rdzv_backend="c10d",
        rdzv_endpoint="127.0.0.1:0",
    )  # fmt: skip
    with pytest.raises(ChildFailedError):
        elastic_launch(settings, job)(tmp_path, dead, alone)
    (line,) = said(tmp_path)  # where it was last seen is polled, so it may lag behind
    assert re.fullmatch(
        rf"paravt: stopped: process {dead} of 4 gives no sign of life; last seen in step \d, "
        r"[\w ]+\. Go on so\.",
        line,
    )
