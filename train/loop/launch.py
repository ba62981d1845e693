"""From settings to a run: check them, build policy, learner, environments and workers, then train.

In front of the training loop (`train/loop/trainer.py`), in every process of a run. A run whose
folder holds a checkpoint is taken up where it stopped, or refused; after a failure torchrun starts
the processes again, and they resume from the last checkpoint, unless they were refused before.
Command: `paravt train paragrpo_mini`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import torch

from agents.algorithm.credit import KL_TERM
from agents.config import AgentConfig, Limits
from agents.model.agent import agent_factory
from agents.model.vlm import VisionLanguageModel
from paravt_env.common.files import write_whole
from paravt_env.task import TaskSet
from paravt_env.tasksets.base import left_out, say_left_out
from paravt_env.vector import LongVideoVectorEnv
from train.common.errors import ConfigError
from train.config.env import EnvConfig
from train.config.learner import LearnerConfig
from train.config.run import TrainConfig
from train.distributed.exclusive import exclusive
from train.distributed.processes import Processes, join, leave, torchrun_agent
from train.distributed.watchdog import Watchdog
from train.learner import checkpoint, lora
from train.learner.guard import MARK, why_stopped
from train.learner.learner import Learner
from train.loop.checks import AGENTS, check, check_saved, groups_of, last_saved, restarted
from train.loop.kept import save_settings
from train.loop.metrics import MetricsLogger
from train.loop.observers import Observer, Validation
from train.loop.rollout_log import RolloutLog
from train.loop.state import RunState
from train.loop.trackers import start_trackers
from train.loop.trainer import Trainer
from train.rollout.difficulty import FILE, Pool, task_pool
from train.rollout.selection import OVER_LONG, Selected, reward_weights
from train.rollout.starts import Starts, sets_of
from train.workers.ahead import Ahead
from train.workers.collector import Collector
from train.workers.lanes import divide
from train.workers.pipeline import Pipeline
from train.workers.rollout_workers import RolloutWorkers, make_workers
from train.workers.source import InTurn, Source


def train(config: TrainConfig, observers: Sequence[Observer] = ()) -> Path:
    """A training run from its settings to the trained checkpoint.

    Args:
        config: All settings.
        observers: Measure every step, beside the validation of `run.eval_every`.

    Returns:
        The folder of the trained policy, in the standard format.

    Raises:
        ConfigError: Nothing to resume, a finished run in the way, or settings that cannot run.
    """
    torch.set_num_threads(config.run.threads)
    processes = join(config.parallel, config.agent.device)
    try:
        with Watchdog(processes, lambda: _how_to_resume(config.run.path)):
            trained = _train(config, processes, observers)
            # Process 0 may host the store that the others watch, until their engines have ended.
            processes.barrier()
            return trained
    finally:
        leave()


def _train(config: TrainConfig, processes: Processes, observers: Sequence[Observer]) -> Path:
    if config.diagnostics.every and not observers:
        raise ConfigError(
            "diagnostics.every: not measured here: `paravt train` does it, and a script hands "
            "train(config, observers=train.lab.diagnose.observer.observers_of(config))"
        )
    with ExitStack() as resources:
        saved, resume = _admitted(config, processes, resources)
        if config.run.eval_every:
            check_validation(config)
        learner = _learner(config, processes, saved)
        workers = _workers(config, processes, learner.vlm, resources)
        if config.run.eval_every:
            observers = (validation(config, learner.vlm, resources), *observers)
        missing = say_left_out(left_out(workers.lanes[0].env.simulation.tasks))
        if missing and processes.leads:
            print(f"paravt: {missing}", flush=True)
        pool = _pool(config, processes, workers, saved, resume)
        collector = Collector(
            workers,
            _starts(config, pool, workers.lanes[0].env.simulation.tasks),
            config.selection,
            config.algorithm.groups,
            processes,
            meeting=not (config.run.asynchronous and processes.world.size > 1),
        )
        keep = config.run.keep_checkpoints
        state = RunState(config.run.path, config.run.seed, learner, collector, pool, keep)
        version = 0
        if saved is not None:
            version = state.restore(saved)
            workers.weights_changed(version)
        terms = workers.lanes[0].env.simulation.preset.weights
        if config.run.keep_rollouts:
            observers = (*observers, _rollout_log(config, processes, workers, version))
        trainer = Trainer(
            config.run,
            config.algorithm,
            all_weights(terms, config),
            _source(config, processes, collector, version),
            workers,
            learner,
            state,
            observers,
            _logger(config, processes, version, resources),
            version,
        )
        return trainer.run()


def _admitted(
    config: TrainConfig, processes: Processes, resources: ExitStack
) -> tuple[Path | None, bool]:
    """The checkpoint to resume from, if any, and whether the run is resumed; else it is refused.

    From here on the folder is locked for this run.
    """
    folder = config.run.path
    saved = last_saved(folder, processes)
    agents = sorted(filter(None, set(processes.gather(torchrun_agent()))))
    own = restarted(folder, agents), why_stopped(folder)
    again, stopped = processes.broadcast(own, processes.leader)
    if again and stopped:
        raise ConfigError(f"{stopped}; then resume with --run.resume=true")
    resume = config.run.resume or again
    check(config, processes, saved, resume)
    resources.enter_context(exclusive(folder, processes))
    if last_saved(folder, processes) != saved:
        raise ConfigError(f"another process has just trained into {folder}: start again")
    if saved is not None:
        check_saved(config, processes)
    processes.barrier()
    if processes.leads:
        (folder / MARK).unlink(missing_ok=True)
        save_settings(folder, config, None if saved is None else checkpoint.step_of(saved))
        if agents:
            write_whole(folder / AGENTS, json.dumps(agents))
    return saved, resume


def _how_to_resume(folder: Path) -> str:
    saved = checkpoint.latest(folder)
    if saved is None:
        return "There is no checkpoint yet"
    return (
        f"The last checkpoint is {saved}: torchrun starts again from it if --max-restarts allows; "
        f"else resume with: paravt train {folder / 'config.yaml'} --run.resume=true"
    )


def _learner(config: TrainConfig, processes: Processes, saved: Path | None) -> Learner:
    """The learner of the start's weights, or of a checkpoint's, with its reference policy."""
    start = config.agent.checkpoint
    source = start if saved is None else str(saved / checkpoint.MODEL)
    dtype, device = config.agent.dtype, processes.local_device(config.agent.device)
    vlm = VisionLanguageModel.load(start if config.lora.rank else source, dtype, device)
    reference = None
    if config.lora.rank:
        vlm = lora.add(vlm, config.lora, config.run.seed)
    elif config.algorithm.kl_coefficient > 0 and processes.trains:
        reference = VisionLanguageModel.load(start, dtype, device)
    settings = LearnerConfig(
        algorithm=config.algorithm,
        optimizer=config.optimizer,
        packing=config.packing,
        faults=config.faults,
        temperature=config.agent.temperature,
        seed=config.run.seed,
        staleness=config.run.staleness if config.run.asynchronous else 0,
        steps=config.run.steps * config.algorithm.epochs * config.algorithm.minibatches,
        folder=config.run.path,
    )
    return Learner(vlm, settings, reference, processes)


def _workers(
    config: TrainConfig, processes: Processes, vlm: VisionLanguageModel, resources: ExitStack
) -> RolloutWorkers:
    """This process's lanes; one that only trains starts no engine."""
    envs = [
        resources.enter_context(closing(make_env(config, groups * config.algorithm.group_size)))
        for groups in divide(groups_of(config, processes), config.run.lanes)
    ]
    agent = playing_agent(config.agent, processes)
    seed = config.run.seed + processes.world.rank
    apart = config.run.asynchronous and processes.world.size == 1
    try:
        workers = make_workers(agent, vlm, envs, seed, apart)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    return resources.enter_context(closing(workers))


def playing_agent(config: AgentConfig, processes: Processes) -> AgentConfig:
    """How this process plays; one that only trains starts no engine."""
    engine = config.engine if processes.plays else "transformers"
    return replace(config, engine=engine, device=processes.local_device(config.device))


def make_env(
    config: TrainConfig, rows: int, split: str | None = None, budgets: tuple[int, ...] = ()
) -> LongVideoVectorEnv:
    """The environment of the settings; what is wrong with them is the caller's `ConfigError`."""
    try:
        return config.env.make(rows, split, budgets)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def validated_env(config: TrainConfig) -> EnvConfig:
    """The environment of the settings over the tasks that are validated on."""
    env, run = replace(config.env, split=config.run.eval_split), config.run
    if not run.eval_set:
        return env
    return replace(env, tasks=run.eval_set, tasks_kwargs=run.eval_set_kwargs)


def check_validation(config: TrainConfig) -> None:
    """Refuse to validate on a split that is not there, or that holds tasks that are trained on.

    Raises:
        ConfigError: What is wrong, and what to do.
    """
    split = config.run.eval_split
    remedy = (
        "name a split of tasks that are not trained on in run.eval_split, or another task set in "
        "run.eval_set, or set run.eval_every=0"
    )
    try:
        trained = config.env.load_tasks()
        held = validated_env(config).load_tasks()
    except ValueError as error:
        said = f"run.eval_every validates on the split {split!r}: {error}; {remedy}"
        raise ConfigError(said) from error
    asked, validated = (
        [(one.medium, one.prompt) for one in map(tasks.__getitem__, range(len(tasks)))]
        for tasks in (trained, held)
    )
    both = sum(map(set(asked).__contains__, validated))
    if both:
        raise ConfigError(
            f"run.eval_every validates on the split {split!r}, and {both} of its {len(held)} tasks "
            f"are trained on (lines of a manifest that name no split are in all of them): {remedy}"
        )


def validation(config: TrainConfig, vlm: VisionLanguageModel, resources: ExitStack) -> Validation:
    """Measures the learner's weights on the validation split."""
    settings = replace(
        config.evaluation,
        split=config.run.eval_split,
        tasks=config.run.eval_tasks,
        stop_after_errors=0,
    )
    rows = min(settings.num_envs, config.run.eval_tasks)
    apart = replace(config, env=validated_env(config))
    env = make_env(apart, rows, budgets=settings.frame_budgets)
    resources.callback(env.close)
    playing: AgentConfig = replace(config.agent, temperature=settings.temperature)
    limits = Limits.of(env.simulation.settings)
    agent = agent_factory(config.agent.engine)(vlm, playing, limits, settings.seed)
    return Validation(agent, env, settings, config.run.eval_every)


def _rollout_log(
    config: TrainConfig, processes: Processes, workers: RolloutWorkers, version: int
) -> RolloutLog:
    """Keeps rollouts of every step, on the process that leads."""
    folder = config.run.path if processes.leads else None
    tasks = workers.lanes[0].env.simulation.tasks
    keep, turns = config.run.keep_rollouts, config.env.max_turns
    return RolloutLog(folder, keep, turns, tasks.by_id, version)


def _pool(
    config: TrainConfig,
    processes: Processes,
    workers: RolloutWorkers,
    saved: Path | None,
    resume: bool,
) -> Pool:
    """The tasks to train on, the same in every process; measured once, before a run."""
    known = saved is not None or (resume and (config.run.path / FILE).exists())
    known = processes.broadcast(known, processes.leader)
    ids = workers.lanes[0].env.simulation.tasks.ids
    play = partial(workers.play, size=1)
    pool = task_pool(config.selection, config.run, ids, play, workers.rows, processes, known)
    return processes.broadcast(pool, processes.leader)


def _starts(config: TrainConfig, pool: Pool, tasks: TaskSet) -> Starts:
    """Which tasks are played, of a mixture by the weights of its sets."""
    try:
        sets = sets_of(pool.ids, tasks)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    return Starts(pool.ids, config.run.seed, config.algorithm.group_size, sets)


def _source(
    config: TrainConfig, processes: Processes, collector: Collector, version: int
) -> Source[Selected]:
    """Where the batches come from: in turn, ahead in a thread, or from the other processes."""
    collect, sync, state = collector.collect, collector.workers.weights_changed, collector.state
    if not config.run.asynchronous:
        return InTurn(collect, sync, state, version)
    bound = config.run.staleness
    if processes.world.size > 1:
        return Pipeline(collect, sync, bound, state, collector.follow, processes, version)
    patience, heartbeat = config.parallel.long_timeout, collector.workers.heartbeat
    return Ahead(collect, sync, bound, state, version, patience, heartbeat)


def _logger(
    config: TrainConfig, processes: Processes, version: int, resources: ExitStack
) -> MetricsLogger | None:
    """Where the leader's metrics go."""
    if not processes.leads:
        return None
    folder = config.run.path
    logger = MetricsLogger(
        folder,
        trackers=start_trackers(config.run, folder, asdict(config), version),
        total_steps=config.run.steps,
        first_step=version,
    )
    return resources.enter_context(logger)


def all_weights(terms: Mapping[str, float], config: TrainConfig) -> dict[str, float]:
    """The weights of the preset's terms, and of those that selection adds.

    Raises:
        ConfigError: A term of the preset has the name of one that training adds.
    """
    added = reward_weights(config.selection)
    taken = {OVER_LONG, KL_TERM} & terms.keys()
    if taken:
        raise ConfigError(
            f"env.reward: training adds a term {min(taken)!r} of its own: call yours otherwise"
        )
    return {**terms, **added}
