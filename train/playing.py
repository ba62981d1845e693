"""Agents by name, for the commands: `paravt play` prints episodes, `paravt eval` measures a policy.

On the journey this is where a config becomes an acting agent. Scripted agents need the core
installation alone; a checkpoint needs the train extra, which is imported only then.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agents.base import Agent, AgentConfig, Limits
from agents.scripted import SCRIPTED
from paravt_env.names import known_name
from paravt_env.settings import EnvSettings
from paravt_env.vector import LongVideoVectorEnv
from train.errors import ConfigError
from train.evaluate import evaluate
from train.rollout import Rollout, Start, play
from train.scores import EvalReport

if TYPE_CHECKING:
    from agents.transformers_agent import TransformersAgent
    from train.config import EvalConfig, SFTConfig, TrainConfig


def scripted_agent(name: str, env: LongVideoVectorEnv, seed: int = 0) -> Agent:
    """A scripted agent for `env`; the oracle is given the tasks openly.

    Raises:
        ConfigError: Unknown name.
    """
    try:
        return SCRIPTED[known_name("agent", name, SCRIPTED)](env, seed)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def load_agent(config: AgentConfig, env: EnvSettings, seed: int = 0) -> TransformersAgent:
    """The agent of `config.checkpoint`, told the limits of the environment."""
    from agents.transformers_agent import TransformersAgent

    if not config.checkpoint:
        raise ConfigError("agent.checkpoint is empty: give a folder or a hub name")
    limits = Limits.of(env)
    return TransformersAgent.load(config, limits, seed)


def show_episodes(args: argparse.Namespace) -> Iterator[str]:
    """The episodes of `paravt play`, as text."""
    options = {} if args.videos is None else {"videos": args.videos}
    try:
        env = LongVideoVectorEnv(1, args.tasks, split=args.split, tasks_kwargs=options)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    agent = scripted_agent(args.agent, env, args.seed)
    try:
        for episode in range(args.episodes):
            start = Start(args.task_id, args.frame_budget, args.seed + episode)
            (rollout,) = play(env, agent, [start])
            yield describe(rollout, env.task_of(0).prompt, env.task_of(0).answer)
    finally:
        env.close()


def describe(rollout: Rollout, question: str, gold: str) -> str:
    """An episode as text: question, turns with their crops, answer, reward terms."""
    lines = [f"task {rollout.task_id}, K = {rollout.frame_budget}", question]
    if rollout.error:
        return "\n".join([*lines, f"  error: {rollout.error}", ""])
    for number, turn in enumerate(rollout.turns, 1):
        if turn["completion"]:
            lines.append(f"  turn {number}: {turn['completion'].strip()}")
        for crop in turn["crops"]:
            start, end = crop["window"]
            lines.append(
                f"  turn {number}: crop {start:.1f}-{end:.1f} s: {crop['status']}, "
                f"{crop['frames']} frames"
            )
    terms = ", ".join(f"{name} {value:.2f}" for name, value in rollout.terms.items())
    lines.append(f"  answer {rollout.answer!r}, gold {gold!r}, {rollout.stop_reason}; {terms}")
    return "\n".join([*lines, ""])


def measure(
    config: TrainConfig | SFTConfig,
    agent_for: Callable[[LongVideoVectorEnv], Agent],
    path: Path,
    progress: Callable[[int, int], None] | None = None,
) -> EvalReport:
    """Evaluate on `config.evaluation.split` and save the report at `path`."""
    settings = config.evaluation
    env = config.env.make(settings.num_envs, settings.split, settings.frame_budgets)
    try:
        result = evaluate(agent_for(env), env, env.simulation.tasks, settings, progress)
    finally:
        env.close()
    result.save(path)
    return result


def evaluated_agent(
    config: TrainConfig | SFTConfig, checkpoint: str = ""
) -> Callable[[LongVideoVectorEnv], Agent]:
    """Makes the agent under evaluation: the scripted policy of the settings, or the checkpoint."""
    settings: EvalConfig = config.evaluation
    if settings.policy:
        return lambda env: scripted_agent(settings.policy, env, settings.seed)
    agent = replace(
        config.agent,
        temperature=settings.temperature,
        checkpoint=checkpoint or config.agent.checkpoint,
    )
    return lambda env: load_agent(agent, config.env, settings.seed)


def run_evaluation(config: TrainConfig) -> EvalReport:
    """`paravt eval`: measure, save `after.json` in the run's folder, print the table."""
    path = config.run.path / "after.json"
    result = measure(config, evaluated_agent(config), path, print_progress)
    print(table(result))
    print(f"\n{path} written in {result.seconds:.0f} s; `paravt report {config.run.path}` draws it")
    return result


def print_progress(done: int, total: int) -> None:
    """One line that says how far an evaluation is."""
    print(f"  evaluated {done}/{total}", flush=True)


def table(report: EvalReport) -> str:
    """The summary as lines of text: accuracy with its interval, majority, compliance, calls."""
    summary = report.summary()
    lines = [
        f"{'':24}{'rows':>5}  {'accuracy':24}{'majority':>9}{'format':>8}{'calls':>7}{'errors':>8}"
    ]

    def line(name: str, part: dict[str, Any]) -> str:
        item = part["accuracy"]
        accuracy = f"{item['mean']:.3f} [{item['low']:.3f}, {item['high']:.3f}]"
        return (
            f"{name:24}{item['rows']:5d}  {accuracy:24}{part['majority']:9.3f}"
            f"{part['compliance']:8.2f}{part['calls']:7.2f}{part['errors']:8d}"
        )

    lines.append(line("all", summary["overall"]))
    for breakdown, label in (("frame_budget", "K = "), ("family", ""), ("category", "")):
        lines += [line(f"{label}{key}"[:24], part) for key, part in summary[breakdown].items()]
    if summary["errors"]:
        lines.append(f"errors: {summary['errors']}")
    return "\n".join(lines)
