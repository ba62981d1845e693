"""The `paravt` command: `play`, `data`, `sft`, `train`, `eval`, `report`, `demo`.

The door to every room. Heavy modules are imported by the command that needs them, so that `paravt
--help` answers at once, and `play` and `data` run with the core installation alone. Try `paravt
play --agent oracle`.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Callable, Sequence

from paravt_env.task import TaskError
from train.errors import ConfigError

TRAIN_EXTRA = ("torch", "transformers", "tokenizers", "safetensors", "jsonargparse", "yaml", "rich")
"""Distributions' import names whose absence means that the train extra is not installed."""

RECIPE_HELP = """usage: paravt {command} [RECIPE] [--key.sub VALUE ...] [--print-config]

{title}

RECIPE        name of a packaged recipe ({recipes}),
              or path of a YAML file; --config RECIPE says the same
--key.sub     overrides one setting; --print-config lists all of them
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; mistakes of the caller end with one line and status 2."""
    words = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(
        prog="paravt",
        description="Long-video question answering: environment, policies, PARA-GRPO.",
        epilog="paravt COMMAND --help says more.",
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, run in COMMANDS.items():
        commands.add_parser(name, help=(run.__doc__ or "").splitlines()[0], add_help=False)
    command = parser.parse_args(words[:1]).command
    try:
        return COMMANDS[command](words[1:])
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in TRAIN_EXTRA:
            raise
        return _fail(f"{command} needs {missing}: pip install 'paravt[train]'")
    except (ConfigError, TaskError, OSError) as error:
        return _fail(str(error))


def _fail(message: str) -> int:
    print(f"paravt: error: {message}", file=sys.stderr)
    return 2


def _parser(command: str, run: Callable[..., int]) -> argparse.ArgumentParser:
    return argparse.ArgumentParser(prog=f"paravt {command}", description=run.__doc__)


def play(argv: Sequence[str]) -> int:
    """Play a few episodes with a scripted agent and print them (core installation)."""
    parser = _parser("play", play)
    parser.add_argument("--agent", default="random", help="random, uniform, oracle or majority")
    parser.add_argument("--tasks", default="synthetic", help="task set or JSONL manifest")
    parser.add_argument("--split", default="val")
    parser.add_argument("--videos", type=int, help="videos of the synthetic set")
    parser.add_argument("--task-id", help="default: drawn at random")
    parser.add_argument("--frame-budget", type=int, help="overview frames K")
    parser.add_argument("--episodes", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    from train.playing import show_episodes

    for text in show_episodes(args):
        print(text)
    return 0


def data(argv: Sequence[str]) -> int:
    """Make the synthetic world, list tasks, measure what looking is worth (core installation)."""
    parser = _parser("data", data)
    parser.add_argument("action", choices=("make", "list", "stats"))
    parser.add_argument("--tasks", default="synthetic", help="task set or JSONL manifest")
    parser.add_argument("--split", help="train, val or test; make does all three, the others test")
    parser.add_argument("--videos", type=int, help="videos of a split")
    parser.add_argument("--limit", type=int, default=20, help="tasks that list prints")
    parser.add_argument("--frame-budgets", type=int, nargs="+", default=[4, 8, 16, 32, 64])
    args = parser.parse_args(argv)
    importlib.import_module("train.data").run(args)
    return 0


def _settings(kind_name: str, argv: Sequence[str], run: Callable[..., int], default: str) -> object:
    """The config of a command, or None where it only had to be printed."""
    words = list(argv)
    command = {sft: "sft", train: "train", evaluate: "eval", demo: "demo"}[run]
    if "-h" in words or "--help" in words:
        from train.recipe import recipe_names

        title = (run.__doc__ or "").splitlines()[0]
        known = ", ".join(recipe_names())
        print(RECIPE_HELP.format(command=command, title=title, recipes=known), end="")
        return None
    from train import config, recipe

    name = default
    if words and not words[0].startswith("--") and "=" not in words[0]:
        name = words.pop(0)
    for place, word in enumerate(words):
        if word == "--config" and place + 1 < len(words):
            name = words[place + 1]
            del words[place : place + 2]
            break
        if word.startswith("--config="):
            name = words.pop(place).partition("=")[2]
            break
    only_print = "--print-config" in words
    words = [word for word in words if word != "--print-config"]
    settings = recipe.load(getattr(config, kind_name), name, words)
    if only_print:
        print(recipe.as_yaml(settings), end="")
        return None
    return settings


def sft(argv: Sequence[str]) -> int:
    """Teach a checkpoint the protocol from oracle-written traces: the cold start."""
    settings = _settings("SFTConfig", argv, sft, "sft_mini")
    if settings is not None:
        importlib.import_module("train.sft").run(settings)
    return 0


def train(argv: Sequence[str]) -> int:
    """Train a policy with PARA-GRPO."""
    settings = _settings("TrainConfig", argv, train, "paragrpo_mini")
    if settings is not None:
        importlib.import_module("train.trainer").train(settings)
    return 0


def evaluate(argv: Sequence[str]) -> int:
    """Evaluate a checkpoint (or a scripted agent) on a split and print the table."""
    settings = _settings("TrainConfig", argv, evaluate, "paragrpo_mini")
    if settings is not None:
        importlib.import_module("train.playing").run_evaluation(settings)
    return 0


def report(argv: Sequence[str]) -> int:
    """Write a run's report.html again."""
    parser = _parser("report", report)
    parser.add_argument("folder", help="folder of a run, such as runs/demo")
    parser.add_argument("--examples", type=int, default=6, help="rollouts that are shown")
    args = parser.parse_args(argv)
    print(importlib.import_module("train.report").write_report(args.folder, args.examples))
    return 0


def demo(argv: Sequence[str]) -> int:
    """The whole journey in minutes: videos, cold start, PARA-GRPO, evaluation, report."""
    settings = _settings("TrainConfig", argv, demo, "demo")
    if settings is not None:
        importlib.import_module("train.demo").run(settings)
    return 0


COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "play": play,
    "data": data,
    "sft": sft,
    "train": train,
    "eval": evaluate,
    "report": report,
    "demo": demo,
}


if __name__ == "__main__":
    sys.exit(main())
