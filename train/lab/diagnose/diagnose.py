"""`paravt diagnose RUN`: the TA-MDP diagnostics of a finished or stopped run, in one report.

After the journey: reads what the run logged, plays a few groups with its last checkpoint, takes the
gradient of each reward term on them (`train/lab/diagnose/gradients.py`), and lays the PAC-Bayes
figure beside the transfer that evaluations measured. Prints the report and writes it as
`diagnostics.json`. Which of the numbers prove anything says `docs/diagnostics.md`.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from agents.algorithm.credit import PARAGRPO
from agents.config import Limits
from agents.model.agent import TransformersAgent
from agents.model.vlm import VisionLanguageModel
from paravt_env.common.files import write_whole
from train.common.errors import ConfigError
from train.common.metrics_file import read_metrics
from train.config import recipe
from train.config.run import TrainConfig
from train.evaluation.compare import find_report
from train.evaluation.scores import EvalReport, mean, paired_difference
from train.lab.diagnose.gradients import measure_gradients, scores_of
from train.lab.diagnose.report import (
    RECENT,
    Bound,
    Probe,
    Training,
    Transfer,
    as_plain,
    describe_bound,
    describe_probe,
    describe_training,
    describe_transfers,
)
from train.lab.diagnose.terms import (
    CHOICES,
    FEWEST_SAMPLES,
    PREFIX,
    advise,
    convergence_slope,
    gaussian_divergence,
    measure_terms,
    pac_bayes,
)
from train.learner import lora
from train.learner.learner import Learner
from train.loop import checkpoint
from train.rollout.difficulty import FILE as PASS_RATES
from train.rollout.difficulty import read_pass_rates, teachable
from train.rollout.play import Rollout, Start, play
from train.rollout.selection import penalised, reward_weights

FILE = "diagnostics.json"


def run(args: argparse.Namespace) -> str:
    """Diagnose a run and write `diagnostics.json`; returns the report.

    Raises:
        ConfigError: The folder is no run, or an option is out of range.
    """
    folder = Path(args.folder)
    if not (folder / "config.yaml").is_file():
        raise ConfigError(f"{folder} is no run: it holds no config.yaml; see `paravt train`")
    if args.groups < 0 or args.groups == 1:
        raise ConfigError("--groups must be 0 (no probe) or at least 2 (two halves)")
    if not args.noise > 0 or not 0 < args.delta < 1:
        raise ConfigError("--noise must be positive and --delta between 0 and 1")
    transfers = read_transfers(args.before, args.after)
    training = read_training(read_metrics(folder))
    probe = play_probe(folder, args) if args.groups else None
    content = {
        "probe": as_plain(probe) if probe else None,
        "training": as_plain(training),
        "transfer": [as_plain(one) for one in transfers],
    }
    text = json.dumps(content, indent=1, allow_nan=False)
    write_whole(folder / FILE, text)
    parts = [
        *(describe_probe(probe) if probe else ["no probe (--groups 0): the log alone"]),
        *describe_training(training),
        *(describe_bound(probe, training) if probe else []),
        *describe_transfers(transfers),
    ]
    return "\n".join([*parts, "", f"{folder / FILE}"])


def read_training(steps: Sequence[Mapping[str, Any]]) -> Training:
    """What the logged steps say of the whole run."""
    advised = dict.fromkeys(CHOICES, 0)
    for _, place in _logged(steps, f"{PREFIX}advice"):
        advised[CHOICES[int(place)]] += 1
    products = _logged(steps, f"{PREFIX}grad_product")
    norms = [(step, norm**2) for step, norm in _logged(steps, "grad_norm")]
    return Training(
        steps=len(steps),
        accuracy=_recent(steps, "accuracy"),
        flat=_recent(steps, "groups/zero_variance"),
        slope=convergence_slope(*_columns(products)),
        biased_slope=convergence_slope(*_columns(norms)),
        advised={choice: count for choice, count in advised.items() if count},
    )


def _logged(steps: Sequence[Mapping[str, Any]], name: str) -> list[tuple[int, float]]:
    return [(step["step"], step[name]) for step in steps if step.get(name) is not None]


def _columns(pairs: Sequence[tuple[int, float]]) -> tuple[list[int], list[float]]:
    return [step for step, _ in pairs], [value for _, value in pairs]


def _recent(steps: Sequence[Mapping[str, Any]], name: str) -> float | None:
    values = [value for _, value in _logged(steps[-RECENT:], name)]
    return mean(values) if values else None


def read_transfers(before: str, after: str) -> list[Transfer]:
    """Evaluations before and after training, in pairs: `[NAME=]JSON,...` each.

    Raises:
        ConfigError: A file is missing, or the two lists do not belong together.
    """
    first, second = (_reports(listed) for listed in (before, after))
    if len(first) != len(second):
        raise ConfigError(
            f"--before has {len(first)} evaluations, --after {len(second)}: give the same task "
            "sets in the same order"
        )
    transfers = []
    for (name, old), (other, new) in zip(first, second, strict=True):
        label = name if name == other else f"{name} -> {other}"
        try:
            change = paired_difference(old, new)
        except ValueError as error:
            raise ConfigError(f"{label}: {error}") from error
        transfers.append(Transfer(label, old.accuracy(), new.accuracy(), change))
    return transfers


def _reports(listed: str) -> list[tuple[str, EvalReport]]:
    found = []
    for item in filter(None, listed.split(",")):
        name, equals, place = item.partition("=")
        path = find_report(Path(place if equals else name))
        try:
            report = EvalReport.load(path)
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{path} is no evaluation of `paravt eval`: {error}") from error
        found.append((name if equals else path.stem, report))
    return found


def play_probe(folder: Path, args: argparse.Namespace) -> Probe:
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
    env = config.env.make(args.groups * algorithm.group_size)
    try:
        limits = Limits.of(env.simulation.settings)
        agent = TransformersAgent(learner.vlm, config.agent, limits, args.seed)
        tasks, preset = env.simulation.tasks, env.simulation.preset
        trained = trained_tasks(config, folder, tasks.ids)
        starts = probe_starts(trained, args.groups, algorithm.group_size, args.seed)
        played = [penalised(one, config.selection) for one in play(env, agent, starts)]
        videos = len({tasks.by_id(task_id).video for task_id in trained})
    finally:
        env.close()
    size = algorithm.group_size
    groups: list[list[Rollout]] = [played[i : i + size] for i in range(0, len(played), size)]
    weights = {**preset.weights, **reward_weights(config.selection)}
    scores = scores_of(groups, weights)
    if scores is None:
        raise ConfigError(f"the probe played nothing that could be scored: {played[0].error}")
    method: PARAGRPO[Rollout] = PARAGRPO(algorithm, weights, lambda: groups, lambda batch: {})
    batch, _ = method.credit(groups)
    chosen = list(range(len(groups)))
    gradients = measure_gradients(learner, algorithm, weights, groups, batch, chosen)
    terms = measure_terms(scores)
    bound = _bound(config, saved, videos, args)
    return Probe(weights, terms, gradients, advise(terms.scales, gradients.cosines), bound)


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
    learner = Learner(vlm, config.algorithm, config.agent.temperature)
    learner.weights.restore(checkpoint.load(saved)[0])
    return learner


def probe_starts(ids: Sequence[str], groups: int, size: int, seed: int) -> list[Start]:
    """Starts of `groups` groups: tasks in a drawn order, each with a seed that fixes its K."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(ids)).tolist()
    seeds = rng.integers(2**31, size=groups).tolist()
    drawn = [Start(ids[order[i % len(order)]], None, own) for i, own in enumerate(seeds)]
    return [start for start in drawn for _ in range(size)]


def _bound(config: TrainConfig, saved: Path, videos: int, args: argparse.Namespace) -> Bound | str:
    """The PAC-Bayes figure, or why there is none."""
    if videos < FEWEST_SAMPLES:
        return f"n = {videos} videos, and n < {FEWEST_SAMPLES}"
    try:
        before = VisionLanguageModel.load(config.agent.checkpoint, config.agent.dtype)
        after = VisionLanguageModel.load(saved / checkpoint.MODEL, config.agent.dtype)
        square = moved_square(before.model, after.model)
    except (OSError, ValueError) as error:
        return f"{config.agent.checkpoint}, where the run started: {error}"
    divergence = gaussian_divergence(square, args.noise)
    figure = pac_bayes(divergence, videos, args.delta)
    return Bound(math.sqrt(square), args.noise, videos, args.delta, divergence, figure)


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
