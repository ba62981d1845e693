"""`paravt play`: a few episodes of a scripted agent, printed (core installation).

The journey's first half for a newcomer, without a model. Tests: `pytest tests/commands`.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence

from paravt_env.vector import LongVideoVectorEnv
from train.commands.options import whole
from train.common.console import printable
from train.common.errors import ConfigError
from train.evaluation.agents import scripted_agent
from train.rollout.play import Rollout, play
from train.rollout.starts import Start


def run(parser: argparse.ArgumentParser, words: Sequence[str]) -> int:
    """Play and print."""
    parser.add_argument("--agent", default="random", help="random, uniform, oracle or majority")
    parser.add_argument("--tasks", default="synthetic", help="task set or JSONL manifest")
    parser.add_argument("--split", default="val")
    parser.add_argument("--videos", type=whole(1), help="videos of the synthetic or atari set")
    parser.add_argument("--task-id", help="default: sampled at random")
    parser.add_argument("--frame-budget", type=whole(0), help="overview frames K")
    parser.add_argument("--episodes", type=whole(1), default=1)
    parser.add_argument("--seed", type=whole(0), default=0)
    for text in episodes(parser.parse_args(words)):
        print(text)
    return 0


def episodes(args: argparse.Namespace) -> Iterator[str]:
    """The episodes, as text.

    Raises:
        ConfigError: Unknown task set, agent or split; more frames than an observation holds.
    """
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
