"""The training loop: collect, credit, update, log; checkpoint, validate, resume.

Runs PARA-GRPO (`agents/paragrpo.py`) over the vectorised environment. A run that was stopped and
resumed gives the same numbers as one that was not: a checkpoint holds the weights, the optimizer,
the schedule, every generator and the order of the tasks. Ctrl-C saves and says how to go on.

Command: `paravt train paragrpo_mini`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch

from agents.base import AgentConfig, Limits
from agents.paragrpo import PARAGRPO, Batch
from agents.transformers_agent import TransformersAgent
from agents.vlm import VisionLanguageModel
from paravt_env.vector import LongVideoVectorEnv
from train import checkpoint, recipe
from train.config import TrainConfig
from train.errors import ConfigError
from train.evaluate import evaluate
from train.interrupt import Interrupt
from train.learner import Learner
from train.metrics import MetricsLogger, aggregate_rollouts
from train.rollout import Rollout, Start, play

VALIDATION = "val"
"""Split that is evaluated during training; every task set calls it so."""


class TaskOrder:
    """Endless passes over the tasks, each in a new order.

    >>> order = TaskOrder(3, np.random.default_rng(0))
    >>> sorted(order.take(3)), len(order.take(4))
    ([0, 1, 2], 4)
    """

    def __init__(self, tasks: int, rng: np.random.Generator) -> None:
        self.tasks, self.rng = tasks, rng
        self.remaining: list[int] = []

    def take(self, count: int) -> list[int]:
        """Indices of the next `count` tasks; a new pass begins where one ends."""
        while len(self.remaining) < count:
            self.remaining += self.rng.permutation(self.tasks).tolist()
        taken, self.remaining = self.remaining[:count], self.remaining[count:]
        return taken


class Trainer:
    """One run in memory.

    Args:
        config: All settings.
        env: `groups * group_size` rows over the training tasks.
        agent: Plays; shares its weights with the learner.
        learner: Updates them.
        logger: Where the metrics of each step go.
        validate: Measures the policy after a step; its metrics join the step's.
    """

    def __init__(
        self,
        config: TrainConfig,
        env: LongVideoVectorEnv,
        agent: TransformersAgent,
        learner: Learner,
        logger: MetricsLogger,
        validate: Callable[[], dict[str, float]] | None = None,
    ) -> None:
        self.config, self.env, self.agent, self.learner = config, env, agent, learner
        self.logger, self.validate = logger, validate
        self.rng = np.random.default_rng(config.run.seed)
        self.order = TaskOrder(len(env.simulation.tasks), self.rng)
        self.step = 0
        weights = env.simulation.preset.weights
        self.algorithm = PARAGRPO(config.algorithm, weights, self.collect, self._update)
        self._interrupt = Interrupt()
        self._generators = self._generator_states()

    def collect(self) -> list[list[Rollout]]:
        """Play one batch: for each group a task, and a seed that fixes its frame budget."""
        groups, size = self.config.algorithm.groups, self.config.algorithm.group_size
        ids = self.env.simulation.tasks.ids
        seeds = self.rng.integers(2**31, size=groups).tolist()
        starts = [
            Start(ids[task], None, seed)
            for task, seed in zip(self.order.take(groups), seeds, strict=True)
            for _ in range(size)
        ]
        rollouts = play(self.env, self.agent, starts)
        return [rollouts[i : i + size] for i in range(0, len(rollouts), size)]

    def _update(self, batch: Batch) -> dict[str, float]:
        self._interrupt.hold()
        return self.learner.update(batch)

    def run(self) -> Path:
        """Train until the last step.

        Returns:
            The folder of the trained policy.

        Raises:
            SystemExit: Ctrl-C, after the run was saved.
        """
        settings = self.config.run
        with self._interrupt:
            try:
                while self.step < settings.steps:
                    self._one_step()
            except KeyboardInterrupt:
                raise SystemExit(self._stopped()) from None
            return self._save() / checkpoint.MODEL

    def _one_step(self) -> None:
        """Collect and update; from the update to the log nothing is cut short."""
        began, before, settings = perf_counter(), self._counters(), self.config.run
        self._generators = self._generator_states()
        try:
            groups, metrics = self.algorithm.step()
            self.step += 1
            self._generators = self._generator_states()
            self.agent.weights_changed(self.step)
            if self.validate and settings.eval_every and self.step % settings.eval_every == 0:
                metrics |= self.validate()
            metrics |= {k: v - before.get(k, 0.0) for k, v in self._counters().items()}
            metrics |= aggregate_rollouts([rollout for group in groups for rollout in group])
            metrics["time/step"] = perf_counter() - began
            self.logger.log(self.step - 1, metrics)
            every = settings.checkpoint_every
            if every and self.step % every == 0 and self.step < settings.steps:
                self._save()
        finally:
            self._interrupt.release()

    def _stopped(self) -> int:
        """Save, say how to go on, and give the exit status of Ctrl-C."""
        run = self.config.run.path
        if self._interrupt.forced:
            folder = checkpoint.latest(run)
            said = f"stopped in the middle of an update; the last checkpoint is {folder}"
        else:
            folder = self._save()
            said = f"stopped after step {self.step}, saved {folder}"
        if folder is not None:
            said += f"\ngo on with: paravt train {run / 'config.yaml'} --run.resume=true"
        print(f"\n{said}", flush=True)
        return 130

    def _counters(self) -> dict[str, float]:
        """Totals since the start whose growth in a step is logged."""
        stats, simulation = self.agent.sampler.stats, self.env.simulation
        return {
            "frames_decoded": float(simulation.video.store.decoded),
            "frames_encoded_sampling": float(stats.frames_encoded),
            "tokens_sampled": float(stats.tokens_sampled),
            "time/video": simulation.video_seconds,
            **{f"time/{stage}": seconds for stage, seconds in stats.seconds.items()},
        }

    def _generator_states(self) -> dict[str, Any]:
        """Every generator and the task order, as they are now."""
        return {
            "starts": self.rng.bit_generator.state,
            "minibatches": self.learner.rng.bit_generator.state,
            "sampling": self.agent.sampler.generator.get_state(),
            "torch": torch.get_rng_state(),
            "order": list(self.order.remaining),
        }

    def _save(self) -> Path:
        """Write the checkpoint of the steps finished; a step that was cut short leaves no trace."""
        states = dict(self._generators)
        tensors = {f"generator.{name}": states.pop(name) for name in ("sampling", "torch")}
        return checkpoint.save(
            self.config.run.path,
            self.step,
            self.agent.vlm.save,
            tensors | checkpoint.optimizer_tensors(self.learner.optimizer),
            {
                "step": self.step,
                "tasks": self.order.tasks,
                "optimizer": checkpoint.optimizer_groups(self.learner.optimizer),
                "scheduler": self.learner.scheduler.state_dict(),
                **states,
            },
        )

    def restore(self, tensors: Mapping[str, torch.Tensor], state: Mapping[str, Any]) -> None:
        """Take up a checkpoint whose weights the agent has already loaded."""
        if state["tasks"] != self.order.tasks:
            raise ConfigError(
                f"the checkpoint was trained on {state['tasks']} tasks, "
                f"this set has {self.order.tasks}"
            )
        self.step = state["step"]
        self.rng.bit_generator.state = state["starts"]
        self.learner.rng.bit_generator.state = state["minibatches"]
        self.order.remaining = list(state["order"])
        self.agent.sampler.generator.set_state(tensors["generator.sampling"])
        torch.set_rng_state(tensors["generator.torch"])
        checkpoint.restore_optimizer(self.learner.optimizer, tensors, state["optimizer"])
        self.learner.scheduler.load_state_dict(state["scheduler"])
        self.agent.weights_changed(self.step)
        self._generators = self._generator_states()


def _agent(
    vlm: VisionLanguageModel, config: AgentConfig, env: LongVideoVectorEnv, seed: int
) -> TransformersAgent:
    limits = Limits.of(env.simulation.settings)
    return TransformersAgent(vlm, config, limits, seed)


def _validation(
    config: TrainConfig, agent: TransformersAgent, env: LongVideoVectorEnv
) -> Callable[[], dict[str, float]]:
    """Measures the agent's weights on the validation split at the evaluation's temperature."""
    settings = replace(config.evaluation, split=VALIDATION, tasks=config.run.eval_tasks)
    greedy = _agent(
        agent.vlm, replace(agent.config, temperature=settings.temperature), env, settings.seed
    )

    def validate() -> dict[str, float]:
        greedy.sampler.generator.manual_seed(settings.seed)
        greedy.weights_changed(agent.version)
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
    saved = checkpoint.latest(folder)
    if config.run.resume and saved is None:
        raise ConfigError(f"{folder} has no checkpoint: start without --run.resume")
    if saved is not None and not config.run.resume:
        raise ConfigError(
            f"{folder} holds a run: add --run.resume=true to go on, or give another --run.name"
        )
    if not config.agent.checkpoint:
        raise ConfigError("agent.checkpoint is empty: give a folder or a hub name")
    recipe.save(config, folder)
    algorithm, start = config.algorithm, config.agent.checkpoint
    source = start if saved is None else str(saved / checkpoint.MODEL)
    dtype, device, seed = config.agent.dtype, config.agent.device, config.run.seed
    vlm = VisionLanguageModel.load(source, dtype, device)
    reference = None
    if algorithm.kl_coefficient > 0:
        reference = VisionLanguageModel.load(start, dtype, device)
    learner = Learner(vlm, algorithm, config.agent.temperature, reference, seed)
    envs: list[LongVideoVectorEnv] = []
    tensors, state = ({}, {}) if saved is None else checkpoint.load(saved)
    try:
        envs.append(config.env.make(algorithm.groups * algorithm.group_size))
        agent = _agent(vlm, config.agent, envs[0], seed)
        validate = None
        if config.run.eval_every:
            rows = min(config.evaluation.num_envs, config.run.eval_tasks)
            budgets = config.evaluation.frame_budgets
            envs.append(config.env.make(rows, VALIDATION, budgets))
            validate = _validation(config, agent, envs[1])
        with MetricsLogger(
            folder,
            wandb=config.run.wandb,
            total_steps=config.run.steps,
            first_step=state.get("step", 0),
            config=asdict(config),
        ) as logger:
            trainer = Trainer(config, envs[0], agent, learner, logger, validate)
            if saved is not None:
                trainer.restore(tensors, state)
            return trainer.run()
    finally:
        for env in envs:
            env.close()
