"""The probe of `paravt diagnose`: groups that the last checkpoint plays, and what they say.

Beside the journey: loads the checkpoint of a run, plays a few groups of its training tasks, and
takes on them the terms, the gradient of each term, the advice and the PAC-Bayes figure. Nothing in
the run's folder changes. Tests: `pytest tests/lab/test_diagnostics.py`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from agents.config import Limits
from agents.model.agent import TransformersAgent
from agents.model.vlm import VisionLanguageModel
from train.common.errors import ConfigError
from train.config import recipe
from train.config.learner import LearnerConfig
from train.config.run import TrainConfig
from train.lab.diagnose.advice import Advice, advise
from train.lab.diagnose.drift import Row, drift_table
from train.lab.diagnose.gradients import Gradients, credited, measure_gradients, scores_of
from train.lab.diagnose.settings import ProbeSettings
from train.lab.diagnose.terms import Terms, measure_terms
from train.lab.diagnose.theory import FEWEST_SAMPLES, gaussian_divergence, pac_bayes
from train.learner import checkpoint, lora
from train.learner.learner import Learner
from train.rollout.difficulty import FILE as PASS_RATES
from train.rollout.difficulty import read_pass_rates, teachable
from train.rollout.play import Rollout, play
from train.rollout.selection import penalised, reward_weights
from train.rollout.starts import Start


@dataclass(frozen=True)
class Bound:
    """The PAC-Bayes figure, with what went into it.

    Attributes:
        distance: ||theta - theta_0|| of the weights.
        noise: s of the Gaussians around both.
        videos: n; questions on one video are not independent.
        delta: Probability with which the bound may fail.
        divergence: KL(Q || P).
        figure: The bound on E_train - E_test of Q.
    """

    distance: float
    noise: float
    videos: int
    delta: float
    divergence: float
    figure: float


@dataclass(frozen=True)
class Probe:
    """What the groups that the checkpoint played say."""

    weights: dict[str, float]
    terms: Terms
    gradients: Gradients
    advice: Advice
    bound: Bound | str
    """A text says why there is none."""
    drift: list[Row]
    """What first turns did and earned, and where the next updates push them."""


def play_probe(folder: Path, settings: ProbeSettings) -> Probe:
    """Play groups with the last checkpoint and take the gradients of their terms.

    Raises:
        ConfigError: No checkpoint, or no rollout that could be scored.
    """
    config = recipe.load(TrainConfig, folder / "config.yaml")
    saved = checkpoint.latest(folder)
    if saved is None:
        raise ConfigError(f"{folder} has no checkpoint to probe: --groups 0 reads the log alone")
    torch.set_num_threads(config.run.threads)
    # A divergence would need the reference policy; the probe looks at the reward terms.
    algorithm = replace(config.algorithm, kl_coefficient=0.0)
    learner = _learner(replace(config, algorithm=algorithm), saved)
    env = config.env.make(settings.groups * algorithm.group_size)
    try:
        limits = Limits.of(env.simulation.settings)
        agent = TransformersAgent(learner.vlm, config.agent, limits, settings.seed)
        tasks, preset = env.simulation.tasks, env.simulation.preset
        trained = trained_tasks(config, folder, tasks.ids)
        starts = probe_starts(trained, settings.groups, algorithm.group_size, settings.seed)
        played = [penalised(one, config.selection) for one in play(env, agent, starts)]
        videos = len({tasks.by_id(task_id).medium for task_id in trained})
    finally:
        env.close()
    size = algorithm.group_size
    groups: list[list[Rollout]] = [played[i : i + size] for i in range(0, len(played), size)]
    weights = {**preset.weights, **reward_weights(config.selection)}
    scores = scores_of(groups, weights)
    if scores is None:
        raise ConfigError(f"the probe played nothing that could be scored: {played[0].error}")
    batch, chosen = credited(groups, algorithm, weights), list(range(len(groups)))
    gradients = measure_gradients(learner, algorithm, weights, groups, batch, chosen)
    terms = measure_terms(scores)
    bound = _bound(config, saved, videos, settings)
    drift = drift_table(played, size, weights, algorithm.credit)
    return Probe(weights, terms, gradients, advise(terms.scales, gradients.cosines), bound, drift)


def trained_tasks(config: TrainConfig, folder: Path, ids: Sequence[str]) -> Sequence[str]:
    """The tasks that a run was trained on: those that its difficulty filter left.

    Args:
        config: The run's settings.
        folder: Where the run is, which may have been moved.
        ids: All tasks.

    Raises:
        ConfigError: The pass rates that it was filtered by cannot be read.
    """
    selection = config.selection
    if not selection.prior_file and not selection.prior_rollouts:
        return ids
    path = Path(selection.prior_file) if selection.prior_file else folder / PASS_RATES
    return teachable(read_pass_rates(path, ids)).ids


def _learner(config: TrainConfig, saved: Path) -> Learner:
    """A learner with a checkpoint's weights."""
    dtype, device = config.agent.dtype, config.agent.device
    source = config.agent.checkpoint if config.lora.rank else saved / checkpoint.MODEL
    vlm = VisionLanguageModel.load(source, dtype, device)
    if config.lora.rank:
        vlm = lora.add(vlm, config.lora, config.run.seed)
    settings = LearnerConfig(
        config.algorithm,
        replace(config.optimizer, decay="constant"),  # it takes no step
        config.packing,
        temperature=config.agent.temperature,
    )
    learner = Learner(vlm, settings)
    learner.weights.restore(checkpoint.load(saved)[0])
    return learner


def probe_starts(ids: Sequence[str], groups: int, size: int, seed: int) -> list[Start]:
    """Starts of `groups` groups: tasks in a drawn order, each with a seed that fixes its K."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(ids)).tolist()
    seeds = rng.integers(2**31, size=groups).tolist()
    drawn = [Start(ids[order[i % len(order)]], None, own) for i, own in enumerate(seeds)]
    return [start for start in drawn for _ in range(size)]


def _bound(config: TrainConfig, saved: Path, videos: int, settings: ProbeSettings) -> Bound | str:
    """The PAC-Bayes figure, or why there is none."""
    if videos < FEWEST_SAMPLES:
        return f"n = {videos} videos, and n < {FEWEST_SAMPLES}"
    try:
        before = VisionLanguageModel.load(config.agent.checkpoint, config.agent.dtype)
        after = VisionLanguageModel.load(saved / checkpoint.MODEL, config.agent.dtype)
        square = moved_square(before.model, after.model)
    except (OSError, ValueError) as error:
        return f"{config.agent.checkpoint}, where the run started: {error}"
    divergence = gaussian_divergence(square, settings.noise)
    figure = pac_bayes(divergence, videos, settings.delta)
    return Bound(math.sqrt(square), settings.noise, videos, settings.delta, divergence, figure)


def moved_square(before: torch.nn.Module, after: torch.nn.Module) -> float:
    """||theta - theta_0||^2 over the parameters of two models.

    Raises:
        ValueError: They have other parameters.
    """
    old, new = dict(before.named_parameters()), dict(after.named_parameters())
    if {k: p.shape for k, p in old.items()} != {k: p.shape for k, p in new.items()}:
        raise ValueError("its parameters are not those of the run: has it been replaced since?")
    return math.fsum(
        float((p.detach().double() - old[name].detach().double()).square().sum())
        for name, p in new.items()
    )
