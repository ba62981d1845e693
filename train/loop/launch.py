"""From settings to a run: check them, build policy, learner, environments and players, then train.

In front of the training loop (`train/loop/trainer.py`), in every process of a run. A run whose
folder holds a checkpoint is taken up where it stopped, or refused; after a failure torchrun starts
the processes again, and they go on from the last checkpoint, unless they were refused before.
Command: `paravt train paragrpo_mini`.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import torch

from agents.config import AgentConfig, Limits
from agents.model.agent import TransformersAgent
from agents.model.vlm import VisionLanguageModel
from agents.vllm.arguments import check_card
from agents.vllm.engine import EngineError
from paravt_env.common.files import write_whole
from paravt_env.vector import LongVideoVectorEnv
from train.common.errors import ConfigError
from train.config import recipe
from train.config.run import TrainConfig
from train.distributed import processes as parallel
from train.distributed.processes import Parallel
from train.distributed.watchdog import Watch
from train.evaluation.evaluate import evaluate
from train.learner import lora
from train.learner.guard import MARK, why_stopped
from train.learner.learner import Learner
from train.loop import checkpoint
from train.loop.metrics import MetricsLogger
from train.loop.trainer import Trainer
from train.rollout.difficulty import FILE, task_pool
from train.workers.ahead import divide
from train.workers.rollout_workers import Players, make_players

VALIDATION = "val"
"""Split that is evaluated during training; every task set calls it so."""
AGENTS = "agents.json"
"""In the run's folder: the torchrun agents of the job that was last let into it."""


def _agent(
    vlm: VisionLanguageModel, config: AgentConfig, env: LongVideoVectorEnv, seed: int
) -> TransformersAgent:
    limits = Limits.of(env.simulation.settings)
    return TransformersAgent(vlm, config, limits, seed)


def _validation(
    config: TrainConfig, vlm: VisionLanguageModel, env: LongVideoVectorEnv
) -> Callable[[], dict[str, float]]:
    """Measures the agent's weights on the validation split at the evaluation's temperature."""
    settings = replace(config.evaluation, split=VALIDATION, tasks=config.run.eval_tasks)
    greedy = _agent(
        vlm, replace(config.agent, temperature=settings.temperature), env, settings.seed
    )

    def validate() -> dict[str, float]:
        greedy.sampler.generator.manual_seed(settings.seed)
        greedy.weights_changed(greedy.version + 1)
        overall = evaluate(greedy, env, env.simulation.tasks, settings).summary()["overall"]
        return {
            "validation/accuracy": overall["accuracy"]["mean"],
            "validation/compliance": overall["compliance"],
            "validation/calls": overall["calls"],
        }

    return validate


def train(config: TrainConfig) -> Path:
    """A training run from its settings to the trained checkpoint.

    Returns:
        The folder of the trained policy, in the standard format.

    Raises:
        ConfigError: Nothing to resume, or a finished run in the way.
    """
    torch.set_num_threads(config.run.threads)
    folder = config.run.path
    processes = parallel.start(config.parallel, config.agent.device)
    try:
        with Watch(processes, lambda: _how_to_go_on(folder)):
            trained = _train(config, processes)
            # Process 0 may host the store that the others watch, until their engines have ended.
            processes.barrier()
            return trained
    finally:
        parallel.stop()


def _how_to_go_on(folder: Path) -> str:
    saved = checkpoint.latest(folder)
    if saved is None:
        return "There is no checkpoint yet"
    return (
        f"The last checkpoint is {saved}: torchrun starts again from it if --max-restarts allows; "
        f"else go on with: paravt train {folder / 'config.yaml'} --run.resume=true"
    )


def _saved(folder: Path, processes: Parallel) -> Path | None:
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


def _restarted(folder: Path, agents: Collection[str]) -> bool:
    """Whether a job that was let into the run's folder has been started again by torchrun.

    Its count of restarts does not say so, as it also starts again what was refused. One agent that
    is still there is enough: others may have come with new machines.
    """
    try:
        admitted = json.loads((folder / AGENTS).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return False
    return not set(agents).isdisjoint(admitted)


def _check(
    config: TrainConfig, processes: Parallel, saved: Path | None, resume: bool = False
) -> None:
    """Refuse what cannot be run, before anything is loaded; `resume` lets a run go on."""
    folder, several = config.run.path, processes.world.size > 1
    if config.run.resume and saved is None:
        raise ConfigError(f"{folder} has no checkpoint: start without --run.resume")
    if saved is not None and not resume:
        raise ConfigError(
            f"{folder} holds a run: add --run.resume=true to go on, or give another --run.name"
        )
    if not config.agent.checkpoint:
        raise ConfigError("agent.checkpoint is empty: give a folder or a hub name")
    groups = _groups(config, processes)
    if config.run.lanes > groups:
        raise ConfigError(
            f"run.lanes={config.run.lanes}: each process plays {groups} of algorithm.groups="
            f"{config.algorithm.groups}, and a lane plays at least one: set run.lanes to at most "
            f"{groups}"
        )
    if several and config.run.asynchronous and config.parallel.layout != "split":
        raise ConfigError(
            "run.asynchronous with several processes: some must play while the others update, so "
            "give parallel.layout=split too"
        )
    if config.agent.engine == "vllm":
        try:
            check_card(config.agent.device)
        except EngineError as error:
            raise ConfigError(str(error)) from error
    if several and config.agent.engine != "transformers":
        _check_servers(config)
    if several and config.diagnostics.every and config.diagnostics.groups:
        raise ConfigError(
            "diagnostics.groups compares gradients, which needs a run of one process: set it to 0"
        )


def _groups(config: TrainConfig, processes: Parallel) -> int:
    """The most groups of a batch that a process plays."""
    return -(-config.algorithm.groups // processes.players.size)


def _check_servers(config: TrainConfig) -> None:
    """Refuse engines that several processes cannot have.

    An engine in each process goes with `colocated`, a server beside those that train with `split`.
    """
    engine, settings, layout = config.agent.engine, config.agent.vllm, config.parallel.layout
    if engine == "vllm" and layout == "split":
        raise ConfigError(
            "agent.engine=vllm with parallel.layout=split: an engine of its own is for processes "
            "that play and train, so give parallel.layout=colocated, or agent.engine=vllm_server"
        )
    if engine == "vllm_server" and layout == "colocated":
        raise ConfigError(
            "agent.engine=vllm_server with parallel.layout=colocated: servers play beside the "
            "processes that train, so give parallel.layout=split, or agent.engine=vllm for an "
            "engine in each process"
        )
    if engine == "vllm":
        if settings.tensor_parallel > 1:
            raise ConfigError(
                f"agent.vllm.tensor_parallel={settings.tensor_parallel} with "
                "parallel.layout=colocated: each process has an engine of its own on its own card, "
                "so set agent.vllm.tensor_parallel=1; a policy that needs several cards plays in a "
                "server (parallel.layout=split, agent.engine=vllm_server and agent.vllm.url)"
            )
        return
    if settings.url and config.parallel.servers > 1:
        raise ConfigError(
            f"parallel.servers={config.parallel.servers} would share the server at "
            f"{settings.url}: leave agent.vllm.url empty, so that each starts its own, or set "
            "parallel.servers=1"
        )
    if not settings.url and (settings.tensor_parallel > 1 or settings.sync != "memory"):
        raise ConfigError(
            "a server that a process of the split layout starts has the card of that process: "
            "set agent.vllm.tensor_parallel=1 and agent.vllm.sync=memory"
        )


def _playing(config: AgentConfig, processes: Parallel) -> AgentConfig:
    """How this process plays; one that only trains starts no engine."""
    engine = config.engine if processes.plays else "transformers"
    return replace(config, engine=engine, device=processes.local_device(config.device))


def _learner(config: TrainConfig, processes: Parallel, saved: Path | None) -> Learner:
    """The learner of the start's weights, or of a checkpoint's, with its reference policy."""
    algorithm, start, seed = config.algorithm, config.agent.checkpoint, config.run.seed
    source = start if saved is None else str(saved / checkpoint.MODEL)
    dtype, device = config.agent.dtype, processes.local_device(config.agent.device)
    vlm = VisionLanguageModel.load(start if config.lora.rank else source, dtype, device)
    reference = None
    if config.lora.rank:
        vlm = lora.add(vlm, config.lora, seed)
    elif algorithm.kl_coefficient > 0 and processes.trains:
        reference = VisionLanguageModel.load(start, dtype, device)
    return Learner(
        vlm,
        algorithm,
        config.agent.temperature,
        reference,
        seed,
        processes,
        config.faults,
        config.run.path,
        config.run.staleness if config.run.asynchronous else 0,
        config.agent.engine == "transformers",
    )


def _make_env(
    config: TrainConfig, rows: int, split: str | None = None, budgets: tuple[int, ...] = ()
) -> LongVideoVectorEnv:
    """The environment of the settings; what is wrong with them is the caller's `ConfigError`."""
    try:
        return config.env.make(rows, split, budgets)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def _train(config: TrainConfig, processes: Parallel) -> Path:
    folder = config.run.path
    saved = _saved(folder, processes)
    agents = sorted(filter(None, set(processes.gather(parallel.agent()))))
    own = _restarted(folder, agents), why_stopped(folder)
    restarted, stopped = processes.broadcast(own, processes.leader)
    if restarted and stopped:
        raise ConfigError(f"{stopped}; then go on with --run.resume=true")
    resume = config.run.resume or restarted
    _check(config, processes, saved, resume)
    processes.barrier()
    if processes.leads:
        (folder / MARK).unlink(missing_ok=True)
        recipe.save(config, folder)
        if agents:
            write_whole(folder / AGENTS, json.dumps(agents))
    learner = _learner(config, processes, saved)
    envs: list[LongVideoVectorEnv] = []
    players: Players | None = None
    try:
        for part in divide(_groups(config, processes), config.run.lanes):
            envs.append(_make_env(config, part * config.algorithm.group_size))
        playing = _playing(config.agent, processes)
        seed = config.run.seed + processes.world.rank
        apart = config.run.asynchronous and processes.world.size == 1
        players = make_players(playing, learner.vlm, tuple(envs), seed, apart)
        validate = None
        if config.run.eval_every:
            rows = min(config.evaluation.num_envs, config.run.eval_tasks)
            budgets = config.evaluation.frame_budgets
            envs.append(_make_env(config, rows, VALIDATION, budgets))
            validate = _validation(config, learner.vlm, envs[-1])
        ids = envs[0].simulation.tasks.ids
        measured = saved is not None or (resume and (folder / FILE).exists())
        measured = processes.broadcast(measured, processes.leader)
        play = partial(players.play, size=1)
        pool = task_pool(config, ids, play, players.rows, processes, measured)
        pool = processes.broadcast(pool, processes.leader)
        logging: AbstractContextManager[MetricsLogger | None] = nullcontext()
        if processes.leads:
            logging = MetricsLogger(
                folder,
                wandb=config.run.wandb,
                total_steps=config.run.steps,
                first_step=checkpoint.step_of(saved) if saved else 0,
                config=asdict(config),
            )
        with logging as logger:
            trainer = Trainer(config, players, learner, logger, validate, pool)
            if saved is not None:
                trainer.restore(*checkpoint.load(saved))
            return trainer.run()
    finally:
        if players is not None:
            players.close()
        for env in envs:
            env.close()
