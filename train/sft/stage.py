"""One stage of the cold start: batches of trajectories, each token as good as any other.

The same packed learner as in reinforcement learning, with the negative log-likelihood as its loss
and a learning rate of its own schedule. Between the trajectories of a stage and the policy's
weights. Tests: `pytest tests/sft`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from agents.algorithm.config import PARAGRPOConfig
from agents.base import Trajectory
from agents.model.vlm import VisionLanguageModel
from train.config.learner import LearnerConfig, OptimizerConfig, PackingConfig
from train.config.sft import SFTConfig, StageConfig
from train.distributed.processes import ALONE, Processes
from train.learner.learner import Learner
from train.learner.meter import Meter
from train.packing.samples import Sample


@dataclass(frozen=True)
class Reached:
    """Where a stage is: steps that were taken, and what its next record holds already."""

    learner: Learner
    step: int = 0
    meter: Meter = field(default_factory=Meter)
    seconds: float = 0.0
    """Since it began."""


def likelihood_learner(
    vlm: VisionLanguageModel, config: SFTConfig, stage: StageConfig, processes: Processes = ALONE
) -> Learner:
    """A learner of likelihoods, whose learning rate rises and then falls to zero by a cosine."""
    learner = Learner(
        vlm,
        LearnerConfig(
            PARAGRPOConfig(loss="likelihood", aggregation="token_mean", kl_coefficient=0.0),
            OptimizerConfig(
                learning_rate=stage.learning_rate or config.learning_rate,
                weight_decay=config.weight_decay,
                decay_all=config.decay_all,
                max_grad_norm=config.grad_clip,
                freeze_vision=stage.freeze_vision,
            ),
            PackingConfig(micro_batch_tokens=config.micro_batch_tokens),
        ),
        processes=processes,
    )
    rising, steps = max(1, round(config.warmup_fraction * stage.steps)), stage.steps
    learner.scheduler = torch.optim.lr_scheduler.LambdaLR(
        learner.optimizer,
        lambda step: min(
            (step + 1) / rising, 0.5 * (1 + math.cos(math.pi * min(1.0, step / steps)))
        ),
    )
    return learner


def train_stage(
    vlm: VisionLanguageModel,
    config: SFTConfig,
    streams: Sequence[tuple[Iterator[Trajectory], int]],
    stage: StageConfig,
    log: Callable[[dict[str, Any]], None],
    processes: Processes = ALONE,
    save: Callable[[Reached], None] = lambda reached: None,
    resume: Callable[[Learner], Reached] | None = None,
    tell: Callable[[int], None] = lambda step: None,
) -> None:
    """Train on batches drawn from streams; cosine learning rate with a warm-up.

    Args:
        vlm: The policy; its weights change.
        config: Learning rates and clipping.
        streams: Trajectories and how many of them each batch takes.
        stage: Its name, steps and learning rate; whether the vision tower learns.
        log: Receives one record every `config.log_every` steps.
        processes: Those that share the updates; each draws the same batches.
        save: Called every `config.save_every` steps and at the end, with the policy's weights up to
            date.
        resume: Puts the learner where a checkpoint of this stage has it; the streams are there.
        tell: Called after every step with its number, from 1.
    """
    steps = stage.steps
    if not steps:
        return
    learner = likelihood_learner(vlm, config, stage, processes)
    reached = Reached(learner) if resume is None else resume(learner)
    vlm.model.train()
    since, meter = time.perf_counter() - reached.seconds, reached.meter
    for step in range(reached.step + 1, steps + 1):
        processes.progress.at(stage.name, step)
        drawn = [next(stream) for stream, count in streams for _ in range(count)]
        samples = [Sample(t, np.ones(len(t.branch_ids), np.float32)) for t in drawn]
        learner.optimize(samples, meter)
        if step % config.log_every == 0 or step == steps:
            metrics = meter.metrics()
            record = {"stage": stage.name, "step": step, "loss": round(metrics["loss"], 4)}
            log(record | {"seconds": round(time.perf_counter() - since, 1)})
            meter = Meter()
        tell(step)
        if step == steps or (config.save_every and step % config.save_every == 0):
            learner.weights.publish()
            save(Reached(learner, step, meter, time.perf_counter() - since))
    learner.weights.publish()
    learner.weights.retire()
    vlm.model.eval()
