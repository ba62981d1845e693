"""Checks before a run: what cannot be run is refused before anything is loaded.

And where a run is found: its last checkpoint, on which all processes agree, and whether torchrun
has started it again. Tests: `pytest tests/loop tests/distributed`.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from agents.vllm.arguments import check_card
from agents.vllm.engine import EngineError
from train.common.errors import ConfigError
from train.config.checks import check_trained_dtype
from train.config.run import TrainConfig
from train.distributed.processes import Processes
from train.learner import checkpoint
from train.loop.kept import refuse_changes

AGENTS = "agents.json"
"""In the run's folder: the torchrun agents of the job that was last let into it."""


def last_saved(folder: Path, processes: Processes) -> Path | None:
    """The last checkpoint, if any, on which all processes agree."""
    saved = checkpoint.latest(folder)
    found: dict[str, list[str]] = defaultdict(list)
    for rank, name in enumerate(processes.gather(saved.name if saved else "none")):
        found[name].append(str(rank))
    if len(found) > 1:
        seen = "; ".join(f"{name} (process {', '.join(ranks)})" for name, ranks in found.items())
        raise ConfigError(
            f"the processes find different last checkpoints in {folder}: {seen}; is run.folder on "
            "a file system that all machines share?"
        )
    return saved


def restarted(folder: Path, agents: Collection[str]) -> bool:
    """Whether a job that was let into the run's folder has been started again by torchrun.

    Its count of restarts does not say so, as it also starts again what was refused. One agent that
    is still there is enough: others may have come with new machines.
    """
    try:
        admitted = json.loads((folder / AGENTS).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return False
    return not set(agents).isdisjoint(admitted)


def check(
    config: TrainConfig, processes: Processes, saved: Path | None, resume: bool = False
) -> None:
    """Refuse what cannot be run, before anything is loaded; `resume` lets a run continue."""
    folder, several = config.run.path, processes.world.size > 1
    if config.run.resume and saved is None:
        raise ConfigError(f"{folder} has no checkpoint: start without --run.resume")
    if saved is not None and not resume:
        raise ConfigError(
            f"{folder} holds a run: add --run.resume=true to resume, or give another --run.name"
        )
    if not config.agent.checkpoint:
        raise ConfigError("agent.checkpoint is empty: give a folder or a hub name")
    check_trained_dtype(config.agent.dtype)
    groups = groups_of(config, processes)
    if config.run.lanes > groups:
        raise ConfigError(
            f"run.lanes={config.run.lanes}: each process plays {groups} of algorithm.groups="
            f"{config.algorithm.groups}, and a lane plays at least one: set run.lanes to at most "
            f"{groups}"
        )
    if several and config.run.asynchronous and config.parallel.layout != "disaggregated":
        raise ConfigError(
            "run.asynchronous with several processes: some must play while the others update, so "
            "give parallel.layout=disaggregated too"
        )
    if config.agent.engine == "vllm":
        try:
            check_card(config.agent.device)
        except EngineError as error:
            raise ConfigError(str(error)) from error
    if several and config.agent.engine in ("vllm", "vllm_server"):
        _check_servers(config)
    if several and config.diagnostics.every and config.diagnostics.groups:
        raise ConfigError(
            "diagnostics.groups compares gradients, which needs a run of one process: set it to 0"
        )


def check_saved(config: TrainConfig, processes: Processes) -> None:
    """Refuse to resume from a broken checkpoint, or with settings that changed and were not meant.

    Raises:
        ConfigError: What is broken, or changed, and what to do.
    """
    refused = ""
    if processes.leads:
        try:
            refuse_changes(config.run.path, config)
            checkpoint.check_newest(config.run.path)
        except ConfigError as error:
            refused = str(error)
    everyone = replace(processes.world, handle=processes.patient)  # it may read 100 GB meanwhile
    if refused := processes.broadcast(refused, processes.leader, everyone):
        raise ConfigError(refused)


def groups_of(config: TrainConfig, processes: Processes) -> int:
    """The most groups of a batch that a process plays."""
    return -(-config.algorithm.groups // processes.workers.size)


def _check_servers(config: TrainConfig) -> None:
    """Refuse engines that several processes cannot have.

    An engine in each process goes with `colocated`, a server beside those that train with
    `disaggregated`.
    """
    engine, settings, layout = config.agent.engine, config.agent.vllm, config.parallel.layout
    if engine == "vllm" and layout == "disaggregated":
        raise ConfigError(
            "agent.engine=vllm with parallel.layout=disaggregated: an engine of its own is for "
            "processes "
            "that play and train, so give parallel.layout=colocated, or agent.engine=vllm_server"
        )
    if engine == "vllm_server" and layout == "colocated":
        raise ConfigError(
            "agent.engine=vllm_server with parallel.layout=colocated: servers play beside the "
            "processes that train, so give parallel.layout=disaggregated, or agent.engine=vllm "
            "for an "
            "engine in each process"
        )
    if engine == "vllm":
        if settings.tensor_parallel > 1:
            raise ConfigError(
                f"agent.vllm.tensor_parallel={settings.tensor_parallel} with "
                "parallel.layout=colocated: each process has an engine of its own on its own card, "
                "so set agent.vllm.tensor_parallel=1; a policy that needs several cards plays in a "
                "server (parallel.layout=disaggregated, agent.engine=vllm_server and "
                "agent.vllm.url)"
            )
        return
    if settings.url and config.parallel.generator_ranks > 1:
        raise ConfigError(
            f"parallel.generator_ranks={config.parallel.generator_ranks} would share the server at "
            f"{settings.url}: leave agent.vllm.url empty, so that each starts its own, or set "
            "parallel.generator_ranks=1"
        )
    if not settings.url and (settings.tensor_parallel > 1 or settings.sync != "memory"):
        raise ConfigError(
            "a server that a process of the disaggregated layout starts has the card of that "
            "process: "
            "set agent.vllm.tensor_parallel=1 and agent.vllm.sync=memory"
        )
