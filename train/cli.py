"""The `paravt` command: everything from one episode to a study, by name in `COMMANDS`.

The door to every room. Heavy modules are imported by the command that needs them, so that `paravt
--help` answers at once, and `play` and `data` run with the core installation alone. Try `paravt
play --agent oracle`.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Callable, Sequence

from paravt_env.task import TaskError
from train.common.errors import ConfigError

TRAIN_EXTRA = ("torch", "transformers", "tokenizers", "safetensors", "jsonargparse", "yaml", "rich")
"""Distributions' import names whose absence means that the train extra is not installed."""

FAILURES = (
    ("agents.base", "AgentError"),
    ("train.workers.weight_sync", "SyncError"),
    ("train.learner.staleness", "StalenessError"),
)
"""Errors of engines, by the module that holds the class."""

CONTINUED = ("data", "eval", "study")
"""Commands that go on where Ctrl-C stopped them; `train` says itself how it is continued."""

RECIPE_HELP = """usage: paravt {command} [RECIPE] [--key.sub VALUE ...] [--print-config]

{title}

RECIPE        name of a packaged recipe ({recipes}),
              or path of a YAML file; --config RECIPE says the same
--key.sub     overrides one setting; --print-config lists all of them
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; what the caller can set right ends with one line and status 2.

    Such are wrong settings, files that are not there, engines that fail. Ctrl-C ends with 130.
    """
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
    except BrokenPipeError:  # `paravt ... | head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        kept = ": what is finished is kept, and the same command goes on from there"
        print(f"\nparavt: stopped{kept if command in CONTINUED else ''}", file=sys.stderr)
        return 130
    except ImportError as error:
        if error.name is not None:  # Python's own, a bug; ours say what to install
            raise
        return _fail(str(error))
    except (ConfigError, TaskError, OSError) as error:
        return _fail(str(error))
    except RuntimeError as error:
        if not isinstance(error, _failures()):
            raise
        return _fail(str(error))


def _failures() -> tuple[type[Exception], ...]:
    """What ends a run and is no bug: an engine, its weights, or rollouts that are too old.

    Only modules that are loaded can have raised it, and none is loaded for this.
    """
    return tuple(getattr(sys.modules[m], name) for m, name in FAILURES if m in sys.modules)


def _fail(message: str) -> int:
    print(f"paravt: error: {message}", file=sys.stderr)
    return 2


def _parser(command: str, run: Callable[..., int]) -> argparse.ArgumentParser:
    return argparse.ArgumentParser(prog=f"paravt {command}", description=run.__doc__)


def _whole(least: int) -> Callable[[str], int]:
    """The type of an option that is a whole number of at least `least`.

    >>> _whole(1)("3")
    3
    """

    def read(text: str) -> int:
        if not text.strip().removeprefix("+").isdecimal() or int(text) < least:
            message = f"{text!r} is not a whole number of at least {least}"
            raise argparse.ArgumentTypeError(message)
        return int(text)

    return read


def play(argv: Sequence[str]) -> int:
    """Play a few episodes with a scripted agent and print them (core installation)."""
    parser = _parser("play", play)
    parser.add_argument("--agent", default="random", help="random, uniform, oracle or majority")
    parser.add_argument("--tasks", default="synthetic", help="task set or JSONL manifest")
    parser.add_argument("--split", default="val")
    parser.add_argument("--videos", type=_whole(1), help="videos of the synthetic or atari set")
    parser.add_argument("--task-id", help="default: drawn at random")
    parser.add_argument("--frame-budget", type=_whole(0), help="overview frames K")
    parser.add_argument("--episodes", type=_whole(1), default=1)
    parser.add_argument("--seed", type=_whole(0), default=0)
    args = parser.parse_args(argv)
    from train.evaluation.agents import show_episodes

    for text in show_episodes(args):
        print(text)
    return 0


def data(argv: Sequence[str]) -> int:
    """Make a task set, list or check any tasks, measure looking (core installation)."""
    parser = _parser("data", data)
    parser.add_argument("action", choices=("make", "list", "stats", "validate", "materialize"))
    parser.add_argument(
        "sources",
        nargs="*",
        help="make, stats: synthetic or atari; list, validate: task sets or JSONL manifests; "
        "materialize: ParaVT-Parquet files or folders of them",
    )
    parser.add_argument("--tasks", default="synthetic", help="task set or JSONL manifest")
    parser.add_argument("--root", help="folder of the videos")
    parser.add_argument("--output", help="materialize: folder of the new files")
    parser.add_argument(
        "--open",
        action="store_true",
        help="validate: read each video, too: its ends, an overview, a crop in the middle",
    )
    parser.add_argument(
        "--thorough", action="store_true", help="validate: --open, and 20 random windows of each"
    )
    parser.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="another argument of the task set, such as annotations=FILE or hub=true",
    )
    parser.add_argument("--split", help="default: all of them in make, else test")
    parser.add_argument("--videos", type=_whole(1), help="videos of a split")
    parser.add_argument("--limit", type=_whole(0), default=20, help="tasks that list prints")
    parser.add_argument("--frame-budgets", type=_whole(0), nargs="+", default=[4, 8, 16, 32, 64])
    args = parser.parse_args(argv)
    return importlib.import_module("train.commands.data").run(args)


def _settings(kind_name: str, argv: Sequence[str], run: Callable[..., int], default: str) -> object:
    """The config of a command, or None where it only had to be printed."""
    words = list(argv)
    command = {sft: "sft", train: "train", evaluate: "eval", demo: "demo"}[run]
    if "-h" in words or "--help" in words:
        from train.config.recipe import recipe_names

        title = (run.__doc__ or "").splitlines()[0]
        known = ", ".join(recipe_names())
        print(RECIPE_HELP.format(command=command, title=title, recipes=known), end="")
        return None
    from train.config import recipe
    from train.config import run as config

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


def _short(word: str) -> str:
    """A short option of `paravt eval` with its group.

    >>> _short("--shard=1/4"), _short("--env.max_crops=1")
    ('--evaluation.shard=1/4', '--env.max_crops=1')
    """
    name = word.removeprefix("--").partition("=")[0]
    known = word.startswith("--") and name in EVAL_SHORT
    return f"--evaluation.{word.removeprefix('--')}" if known else word


def sft(argv: Sequence[str]) -> int:
    """Teach a checkpoint by oracle-written traces (the cold start) or published conversations."""
    settings = _settings("SFTConfig", argv, sft, "sft_mini")
    if settings is not None:
        importlib.import_module("train.sft.sft").run(settings)
    return 0


def train(argv: Sequence[str]) -> int:
    """Train a policy with PARA-GRPO."""
    settings = _settings("TrainConfig", argv, train, "paragrpo_mini")
    if settings is not None:
        importlib.import_module("train.loop.launch").train(settings)
    return 0


EVAL_SHORT = ("suite", "sweep", "shard", "mode", "policy", "blind")
"""Settings of the evaluation that `paravt eval` takes without their group: `--shard 1/4`."""


def evaluate(argv: Sequence[str]) -> int:
    """Evaluate a checkpoint (or another agent) on a split or a suite and print the table."""
    words = [_short(word) for word in argv]
    suite = any(word.partition("=")[0] == "--evaluation.suite" for word in words)
    settings = _settings("TrainConfig", words, evaluate, "paravt7" if suite else "paragrpo_mini")
    if settings is not None:
        return importlib.import_module("train.commands.evaluation").run_evaluation(settings)
    return 0


def merge(argv: Sequence[str]) -> int:
    """Join the shards of evaluations under a folder into their reports."""
    parser = _parser("merge", merge)
    parser.add_argument("folder", help="folder of a run, such as runs/paragrpo_mini")
    return importlib.import_module("train.commands.evaluation").run_merge(parser.parse_args(argv))


def compare(argv: Sequence[str]) -> int:
    """Compare two evaluations of the same tasks, row by row."""
    parser = _parser("compare", compare)
    parser.add_argument("first", help="folder of a run, or a report (after.json)")
    parser.add_argument("second", help="another one; differences are second minus first")
    parser.add_argument("--json", help="write the comparison to this file")
    parser.add_argument("--html", help="write a page with both to this file")
    parser.add_argument("--examples", type=_whole(0), default=6, help="rollouts of the page")
    return importlib.import_module("train.commands.evaluation").run_compare(parser.parse_args(argv))


def report(argv: Sequence[str]) -> int:
    """Write a run's report.html again."""
    parser = _parser("report", report)
    parser.add_argument("folder", help="folder of a run, such as runs/demo")
    parser.add_argument("--examples", type=_whole(0), default=6, help="rollouts that are shown")
    args = parser.parse_args(argv)
    print(importlib.import_module("train.report.page").write_report(args.folder, args.examples))
    return 0


def study(argv: Sequence[str]) -> int:
    """Compare arms of a study over seeds: train, evaluate, write its table and its figure."""
    parser = _parser("study", study)
    parser.add_argument("name", help="packaged study (paradox, regimes) or path of a YAML file")
    parser.add_argument("--arms", nargs="+", default=[], help="default: the study's main arms")
    parser.add_argument("--seeds", type=_whole(0), nargs="+", help="default: the study's")
    parser.add_argument("--quick", action="store_true", help="few steps, one seed")
    parser.add_argument("--jobs", type=_whole(1), default=2, help="processes at a time")
    parser.add_argument("--folder", help="default: runs/NAME, or runs/NAME-quick")
    args = parser.parse_args(argv)
    importlib.import_module("train.lab.study.study").command(args)
    return 0


def replay(argv: Sequence[str]) -> int:
    """Print recorded episodes and write their page, replay.html (core installation)."""
    parser = _parser("replay", replay)
    parser.add_argument("folder", help="what RecordEpisodes wrote")
    parser.add_argument("--episode", type=_whole(0), help="number of one episode; default: all")
    parser.add_argument("--open", action="store_true", help="open the page in a browser")
    print(importlib.import_module("train.report.replay").replay(parser.parse_args(argv)))
    return 0


def diagnose(argv: Sequence[str]) -> int:
    """What a run's reward terms do to its gradients, and whether it carries over."""
    from train.lab.diagnose.diagnose import arguments, run

    parser = _parser("diagnose", diagnose)
    arguments(parser)
    print(run(parser.parse_args(argv)))
    return 0


def plan(argv: Sequence[str]) -> int:
    """Predict memory and time of a run on GPUs, and the largest setting that fits."""
    from train.lab.plan.report import arguments, run

    parser = _parser("plan", plan)
    arguments(parser)
    print(run(parser.parse_args(argv)))
    return 0


def demo(argv: Sequence[str]) -> int:
    """The whole journey in minutes: videos, cold start, PARA-GRPO, evaluation, report."""
    settings = _settings("TrainConfig", argv, demo, "demo")
    if settings is not None:
        importlib.import_module("train.commands.demo").run(settings)
    return 0


COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "play": play,
    "data": data,
    "sft": sft,
    "train": train,
    "eval": evaluate,
    "merge": merge,
    "compare": compare,
    "report": report,
    "replay": replay,
    "study": study,
    "diagnose": diagnose,
    "plan": plan,
    "demo": demo,
}


if __name__ == "__main__":
    sys.exit(main())
