"""Processes: who this one is among those that `torchrun` started, and what they tell each other.

Under the learner and the trainer. `join` finds the other processes and lays them out as a mesh of
data parallel rows by sequence parallel columns: a row works on its own groups, the columns of a row
share one packed sequence (`train/distributed/sequence_parallel.py`). On one process `ALONE` answers
every call at once, and nothing here touches `torch.distributed`.

Start several with `torchrun --nproc-per-node 2 -m train train paragrpo_mini --agent.device=cpu`.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh

from train.common.errors import ConfigError
from train.config.parallel import ParallelConfig

GRACE = 15.0
"""Seconds by which torch's own time-out comes after ours, which says more (`watchdog.py`)."""
STAGE = 1_000_000
"""Ticks that fit into one stage."""
HAND_OVER = "hand over"
"""The stage of a process that has played and waits for the rollouts of the others."""


@dataclass
class Progress:
    """How far a process is: stages of steps, and ticks within a stage."""

    step: int = 0
    stage: str = "start"
    order: int = 0
    since: float = 0.0

    def at(self, stage: str, step: int) -> None:
        """The process enters a stage; all processes enter the same ones."""
        self.step, self.stage = step, stage
        self.order = (self.order // STAGE + 1) * STAGE
        self.since = time.monotonic()

    def tick(self) -> None:
        """One of the stage's rounds begins, which the training processes do in step."""
        self.order += 1
        self.since = time.monotonic()


@dataclass(frozen=True)
class Group:
    """Some of the processes, of which this one is number `rank`; `handle` is torch's."""

    rank: int = 0
    size: int = 1
    handle: dist.ProcessGroup | None = None

    def split(self, count: int, rank: int | None = None) -> slice:
        """Which of `count` things a process takes: even, contiguous, the first ones take one more.

        >>> [Group(rank, 3).split(7) for rank in range(3)]
        [slice(0, 3, None), slice(3, 5, None), slice(5, 7, None)]
        """
        rank = self.rank if rank is None else rank
        each, rest = divmod(count, self.size)
        start = rank * each + min(rank, rest)
        return slice(start, start + each + (rank < rest))


@dataclass(frozen=True)
class Processes:
    """This process among all of them.

    Attributes:
        world: All processes.
        training: Those that update; all of them unless the layout is `disaggregated`.
        data: The training processes that work on other groups than this one, in the same column.
        sequence: Those that share its packed sequences.
        mesh: Over the training processes, for FSDP; None on one process.
        patient: All processes once more, with `long_timeout`; None on one process.
        playing: The processes that play, where they are some of several; else None.
        trains: Whether this process updates.
        plays: Whether it collects rollouts.
        config: The settings.
        progress: How far this process is, for `train/distributed/watchdog.py`.
    """

    world: Group = Group()
    training: Group = Group()
    data: Group = Group()
    sequence: Group = Group()
    mesh: DeviceMesh | None = None
    trains: bool = True
    plays: bool = True
    config: ParallelConfig = field(default_factory=ParallelConfig)
    progress: Progress = field(default_factory=Progress, compare=False)
    patient: dist.ProcessGroup | None = None
    playing: dist.ProcessGroup | None = None

    @property
    def leads(self) -> bool:
        """Whether this process writes the log and the checkpoints: the first that trains."""
        return self.trains and self.training.rank == 0

    @property
    def leader(self) -> int:
        """The rank of the process that leads."""
        return self.config.generator_ranks if self.config.layout == "disaggregated" else 0

    @property
    def workers(self) -> Group:
        """The processes that collect rollouts, and the place of this one (0 where it does not)."""
        size = (
            self.config.generator_ranks
            if self.config.layout == "disaggregated"
            else self.world.size
        )
        return Group(self.world.rank if self.plays else 0, size, self.playing)

    def local_device(self, device: str) -> str:
        """The device of this process: `cuda` becomes its own card."""
        if device == "cuda" and self.world.size > 1:
            return f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
        return device

    def total(self, value: float) -> float:
        """The sum of a number over the training processes."""
        return float(self.sum(np.array([value], dtype=np.float64))[0])

    def sum(self, values: np.ndarray) -> np.ndarray:
        """The sum of an array over the training processes, in its dtype."""
        if self.training.size == 1:
            return values
        summed = torch.from_numpy(np.ascontiguousarray(values)).clone()
        dist.all_reduce(summed, group=self.training.handle)
        return summed.numpy()

    def gather(self, value: Any) -> list[Any]:
        """What every process has to say, by rank; pickled, so between our own processes only."""
        if self.world.size == 1:
            return [value]
        gathered: list[Any] = [None] * self.world.size
        dist.all_gather_object(gathered, value)
        return gathered

    def broadcast(self, value: Any, source: int, among: Group | None = None) -> Any:
        """What the process of rank `source` has to say, to all or to those of a group."""
        if (among or self.world).size == 1:
            return value
        told = [value if self.world.rank == source else None]
        handle = among.handle if among else None
        dist.broadcast_object_list(told, src=source, group=handle, device=torch.device("cpu"))
        return told[0]

    def from_workers(self, value: Any, among: Group | None = None) -> list[Any]:
        """What every process that plays has to say, by rank: to all, or to those of a group.

        All wait patiently, as some may play for long while others have nothing to play. One after
        another: `gather` makes room for the largest value once for every process.
        """
        among = among or replace(self.world, handle=self.patient)
        return [self.broadcast(value, rank, among) for rank in range(self.workers.size)]

    def barrier(self, patient: bool = False) -> None:
        """Wait until every process is here; `patient` where one of them may have long work."""
        if self.world.size > 1:
            dist.all_reduce(torch.zeros(1), group=self.patient if patient else None)


ALONE = Processes()
"""One process."""


def torchrun_agent() -> str:
    """The torchrun agent that started this process, the same over its restarts; "" if none did.

    It is known by its folder of logs, whose name is drawn once: run ids are "none" by default. With
    `--log-dir=/dev/null` there is no such folder, and nothing to know it by.
    """
    errors = os.environ.get("TORCHELASTIC_ERROR_FILE", "")  # <folder>/attempt_0/<rank>/error.json
    started = "TORCHELASTIC_RESTART_COUNT" in os.environ
    return str(Path(errors).parents[2]) if errors and started else ""


def join(config: ParallelConfig, device: str = "cpu") -> Processes:
    """Join the other processes, by the variables that torchrun sets; `ALONE` where there are none.

    Args:
        config: How the processes share the work.
        device: `cpu` or `cuda`; tensors on the CPU always travel by gloo.

    Raises:
        ConfigError: The processes cannot be laid out as configured.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    trainers = layout(config, world)
    if world == 1:
        return Processes(config=config)
    cuda = device.startswith("cuda")
    if cuda:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    limit = timedelta(seconds=config.timeout + GRACE)
    patience = timedelta(seconds=max(config.timeout, config.long_timeout) + GRACE)
    if not dist.is_initialized():
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if cuda else "gloo",
            store=_store(limit),
            rank=int(os.environ["RANK"]),
            world_size=world,
            timeout=patience if config.layout == "disaggregated" else limit,
        )
    patient = dist.new_group(backend="gloo", timeout=patience)
    playing = None
    if config.layout == "disaggregated":
        playing = dist.new_group(range(config.generator_ranks), backend="gloo", timeout=patience)
    kind, rank = "cuda" if cuda else "cpu", dist.get_rank()
    grid = torch.tensor(trainers).reshape(-1, config.sequence)
    square = DeviceMesh(kind, grid, mesh_dim_names=("data", "sequence"))
    flat = DeviceMesh(kind, grid.flatten(), mesh_dim_names=("training",))
    everyone = Group(rank, world)
    if rank not in trainers:
        return Processes(
            everyone,
            trains=False,
            config=config,
            training=Group(0, 0),
            patient=patient,
            playing=playing,
        )
    training, data, sequence = (
        Group(dist.get_rank(handle), dist.get_world_size(handle), handle)
        for handle in (flat.get_group(), square.get_group("data"), square.get_group("sequence"))
    )
    plays = config.layout == "colocated"
    return Processes(everyone, training, data, sequence, flat, True, plays, config, patient=patient)


def attempt() -> str:
    """Which start of the job this is, for keys in a store that outlives it; else "0".

    Agents of several nodes count differently: one whose processes were alive when those of another
    died counts no restart. Each start then needs a store of its own (`examples/train.slurm`).
    """
    return os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") if _hosted() else "0"


def _hosted() -> bool:
    """Whether torchrun's agent lends its store."""
    return os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"


def _store(limit: timedelta) -> dist.Store:
    """The store of torchrun's agent (or of process 0), with keys of its own for each restart.

    The agent of torch 2.13 keeps its store over restarts, and with it the addresses of dead
    processes.
    """
    store = dist.TCPStore(
        os.environ["MASTER_ADDR"],
        int(os.environ["MASTER_PORT"]),
        is_master=not _hosted() and os.environ["RANK"] == "0",
        timeout=limit,
        multi_tenant=True,
    )
    return dist.PrefixStore(f"paravt/{attempt()}", store)


def layout(config: ParallelConfig, world: int) -> list[int]:
    """Ranks that train.

    Raises:
        ConfigError: The processes do not divide as asked for, or one is to do what takes several.

    >>> layout(ParallelConfig(layout="disaggregated", generator_ranks=1, sequence=1), 4)
    [1, 2, 3]
    """
    if config.offload and world == 1:
        raise ConfigError(
            "parallel.offload=true keeps what is sharded on the CPU, and one process shards "
            "nothing: start more (torchrun --nproc-per-node N -m train train ...) or set "
            "--parallel.offload=false"
        )
    first = config.generator_ranks if config.layout == "disaggregated" else 0
    trainers = list(range(first, world))
    if not trainers:
        raise ConfigError(
            f"parallel.layout=disaggregated with generator_ranks={config.generator_ranks} leaves "
            f"none of {world} processes "
            "to train: start more of them (torchrun --nproc-per-node N -m train train ...)"
        )
    if len(trainers) % config.sequence:
        raise ConfigError(
            f"parallel.sequence={config.sequence} does not divide the {len(trainers)} processes "
            "that train: start a multiple (torchrun --nproc-per-node N -m train train ...) or set "
            "--parallel.sequence=1"
        )
    return trainers


def leave() -> None:
    """Leave the other processes."""
    if dist.is_initialized():
        dist.destroy_process_group()
