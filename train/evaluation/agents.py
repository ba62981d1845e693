"""Agents by name: `paravt play` prints their episodes, `train.evaluation.measure` evaluates them.

On the journey this is where a config becomes an acting agent. Scripted agents need the core
installation alone; a checkpoint needs the train extra, which is imported only then.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING

from agents.base import Agent
from agents.config import AgentConfig, Limits
from agents.scripted import SCRIPTED
from paravt_env.common.names import known_name
from paravt_env.settings import EnvSettings
from paravt_env.vector import LongVideoVectorEnv
from train.common.console import printable
from train.common.errors import ConfigError
from train.rollout.play import Rollout, play
from train.rollout.starts import Start

if TYPE_CHECKING:
    from agents.text.conversation import ConversationAgent


def scripted_agent(name: str, env: LongVideoVectorEnv, seed: int = 0) -> Agent:
    """A scripted agent for `env`; the oracle is given the tasks openly.

    Raises:
        ConfigError: Unknown name.
    """
    try:
        return SCRIPTED[known_name("agent", name, SCRIPTED)](env, seed)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def load_agent(config: AgentConfig, env: EnvSettings, seed: int = 0) -> ConversationAgent:
    """The agent of `config.checkpoint` through `config.engine`, told the environment's limits."""
    from agents.model.agent import TransformersAgent

    if not config.checkpoint:
        raise ConfigError("agent.checkpoint is empty: give a folder or a hub name")
    limits = Limits.of(env)
    if config.engine != "transformers":
        from agents.vllm.agent import VLLMAgent

        return VLLMAgent.load(config, limits, seed)
    return TransformersAgent.load(config, limits, seed)


def show_episodes(args: argparse.Namespace) -> Iterator[str]:
    """The episodes of `paravt play`, as text."""
    options = {} if args.videos is None else {"videos": args.videos}
    try:
        env = LongVideoVectorEnv(1, args.tasks, split=args.split, tasks_kwargs=options)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    agent = scripted_agent(args.agent, env, args.seed)
    most = env.simulation.settings.capacity
    if args.frame_budget is not None and args.frame_budget > most:
        raise ConfigError(f"--frame-budget {args.frame_budget}: at most {most}")
    try:
        for episode in range(args.episodes):
            start = Start(args.task_id, args.frame_budget, args.seed + episode)
            (rollout,) = play(env, agent, [start])
            task = env.task_of(0)
            yield printable(describe(rollout, task.prompt, task.answer))
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
