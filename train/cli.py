"""The `paravt` command: everything from one episode to a study, by name in `COMMANDS`.

A command's file in `train/commands/` is imported when the command runs, so
that `paravt --help` answers at once, and `play` and `data` run with the core installation alone.
Try `paravt play --agent oracle`. Tests: `pytest tests/commands/test_cli.py`.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import NamedTuple

from train.commands.status import status_of
from train.common.console import without_foreign_bars

Runner = Callable[[argparse.ArgumentParser, Sequence[str]], int]
"""Takes a parser that has the command's name and title, adds its options, reads the words that
follow the name, does what they ask and returns the exit status."""


class Command(NamedTuple):
    """What `paravt --help` says of a command, and what runs it."""

    title: str
    run: Runner


def at(place: str) -> Runner:
    """The runner at `module:function`, imported no sooner than it is called."""

    def run(parser: argparse.ArgumentParser, words: Sequence[str]) -> int:
        module, _, function = place.partition(":")
        return getattr(importlib.import_module(module), function)(parser, words)

    return run


COMMANDS = {
    "play": Command(
        "Play a few episodes with a scripted agent and print them (core installation).",
        at("train.commands.play:run"),
    ),
    "data": Command(
        "Make a task set, list or check any tasks, measure looking (core installation).",
        at("train.commands.data:run"),
    ),
    "sft": Command(
        "Teach a checkpoint by oracle-written traces (the cold start) or published conversations.",
        at("train.commands.sft:run"),
    ),
    "train": Command("Train a policy with PARA-GRPO.", at("train.commands.train:run")),
    "eval": Command(
        "Evaluate a checkpoint (or another agent) on a split or a suite and print the table.",
        at("train.commands.evaluation:run_evaluation"),
    ),
    "answer": Command(
        "Let an agent answer questions without known answers, about your own videos.",
        at("train.commands.answer:run"),
    ),
    "merge": Command(
        "Join the shards of evaluations under a folder into their reports.",
        at("train.commands.evaluation:run_merge"),
    ),
    "compare": Command(
        "Compare two evaluations of the same tasks, row by row.",
        at("train.commands.evaluation:run_compare"),
    ),
    "report": Command(
        "Write a run's report.html: its training, its evaluation, or both.",
        at("train.commands.evaluation:run_report"),
    ),
    "view": Command(
        "Look at runs in a browser: curves, rollouts token by token, episodes of your own.",
        at("train.commands.view:run"),
    ),
    "replay": Command(
        "Print recorded episodes and write their page, replay.html (core installation).",
        at("train.commands.replay:run"),
    ),
    "study": Command(
        "Compare arms of a study over seeds: train, evaluate, write its table and its figure.",
        at("train.commands.study:run"),
    ),
    "diagnose": Command(
        "What a run's reward terms do to its gradients, and whether it carries over.",
        at("train.commands.diagnose:run"),
    ),
    "plan": Command(
        "Predict memory and time of a run on GPUs, and the largest setting that fits.",
        at("train.commands.plan:run"),
    ),
    "push": Command(
        "Write a policy with its card and recipe into a folder, and upload it if that is asked.",
        at("train.commands.push:run"),
    ),
    "serve": Command(
        "Serve the environment to other people's trainers, over OpenEnv's protocol.",
        at("train.commands.serve:run"),
    ),
    "demo": Command(
        "The whole journey in minutes: videos, cold start, PARA-GRPO, evaluation, report.",
        at("train.commands.demo:run"),
    ),
}


class Version(argparse.Action):
    """Prints the installed version, which is looked up no sooner than it is asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        """Print and exit.

        Raises:
            PackageNotFoundError: The project was put on a path, but never installed.
        """
        print(f"paravt {version('paravt')}")
        parser.exit()


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status (`train.commands.status` says which there are)."""
    words = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(
        prog="paravt",
        description="Long-video question answering: environment, policies, PARA-GRPO.",
        epilog="paravt COMMAND --help says more.",
    )
    parser.add_argument("--version", action=Version, nargs=0, help="print the version")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, command in COMMANDS.items():
        commands.add_parser(name, help=command.title, add_help=False)
    name = parser.parse_args(words[:1]).command
    command = COMMANDS[name]
    without_foreign_bars()
    own = argparse.ArgumentParser(prog=f"paravt {name}", description=command.title)
    return status_of(name, lambda: command.run(own, words[1:]))


if __name__ == "__main__":
    sys.exit(main())
