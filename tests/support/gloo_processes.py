"""Several gloo processes for one test: functions that run in each and send back what they found.

The processes are forked from a server that has imported everything already, so that starting one
takes milliseconds. A worker is a function of a module on the test path: `worker(parallel, *args)`.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
import traceback
from collections.abc import Callable
from typing import Any

CONTEXT = multiprocessing.get_context("forkserver")


def preload() -> None:
    """What the server imports before its first process."""
    CONTEXT.set_forkserver_preload(["torch.distributed.fsdp", "train.loop.launch"])


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _process(queue: Any, rank: int, world: int, port: int, worker: Any, args: Any) -> None:
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world),
        MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port),
    )  # fmt: skip
    try:
        import torch

        torch.set_num_threads(1)
        queue.put((rank, worker(*args), ""))
    except BaseException:
        queue.put((rank, None, traceback.format_exc()))


def run(worker: Callable[..., Any], world: int, *args: Any) -> list[Any]:
    """What `worker(*args)` returns in each of `world` processes, by rank."""
    preload()
    queue, port = CONTEXT.Queue(), free_port()
    started = [
        CONTEXT.Process(target=_process, args=(queue, rank, world, port, worker, args))
        for rank in range(world)
    ]
    for process in started:
        process.start()
    try:
        results = {}
        for _ in started:
            rank, result, error = queue.get(timeout=1500)
            assert not error, f"process {rank}:\n{error}"
            results[rank] = result
    finally:
        for process in started:
            process.join(10)
            if process.is_alive():
                process.kill()
    return [results[rank] for rank in range(world)]
