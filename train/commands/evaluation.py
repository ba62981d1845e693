"""The commands around an evaluation: `paravt eval`, `merge`, `compare` and `report`.

The last doors before the report: they measure or read, print tables, write JSON and HTML, and say
by their exit status whether every sample could be scored. Tests: `pytest
tests/evaluation/test_evaluate_command.py`.
"""

from __future__ import annotations

import argparse
import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from paravt_env.common.files import write_whole
from train.commands.options import recipe_settings, whole
from train.common.console import in_bytes, printable
from train.common.errors import ConfigError
from train.config.evaluation import Shard
from train.config.recipe import load
from train.config.run import TrainConfig
from train.config.suites import SUITES
from train.evaluation.agents import evaluated_agent
from train.evaluation.compare import compare, find_report, shared
from train.evaluation.conditions import conditions
from train.evaluation.elsewhere import scored_by_lmms_eval
from train.evaluation.measure import measure, measure_suite, save_settings
from train.evaluation.scores import EvalReport
from train.evaluation.shards import merge
from train.evaluation.suite import SetOutcome, SuiteReport, differences
from train.evaluation.tables import EvalBar, comparison_table, table
from train.evaluation.token_files import kept_tokens
from train.report.charts import frames_chart, grid
from train.report.page import render, write_html, write_report
from train.report.rollouts import read_overview

FAILED = 1
"""Exit status where a sample or a set could not be evaluated."""


SHORT = ("suite", "sweep", "shard", "mode", "policy", "blind")
"""Settings of the evaluation that `paravt eval` takes without their group: `--shard 1/4`."""


def run_evaluation(parser: argparse.ArgumentParser, words: Sequence[str]) -> int:
    """`paravt eval`: read the settings, then evaluate."""
    named = [with_group(word) for word in words]
    config = recipe_settings(parser, TrainConfig, named, default_recipe(named))
    return 0 if config is None else evaluate(config)


def default_recipe(words: Sequence[str]) -> str:
    """The recipe where none is named: that of a suite, of chat models, or of ParaVT-Mini.

    >>> default_recipe(["--evaluation.policy", "openai"]), default_recipe(["--evaluation.seed=1"])
    ('chat', 'paragrpo_mini')
    """
    given: dict[str, str] = {}
    for place, word in enumerate(words):
        name, equals, value = word.removeprefix("--").partition("=")
        given[name] = value if equals else "".join(words[place + 1 : place + 2])
    if "evaluation.suite" in given:
        return "paravt7"
    return "chat" if given.get("evaluation.policy") == "openai" else "paragrpo_mini"


def with_group(word: str) -> str:
    """A short option of `paravt eval` with its group.

    >>> with_group("--shard=1/4"), with_group("--env.max_crops=1")
    ('--evaluation.shard=1/4', '--env.max_crops=1')
    """
    name = word.removeprefix("--").partition("=")[0]
    known = word.startswith("--") and name in SHORT
    return f"--evaluation.{word.removeprefix('--')}" if known else word


def evaluate(config: TrainConfig) -> int:
    """Measure, print the table, write `after.json`, its settings and `report.html`.

    Returns:
        0, or `FAILED` if a sample (or a set of a suite) could not be scored.
    """
    folder = config.run.path
    if config.evaluation.suite:
        return _evaluate_suite(config)
    report = measure(config, evaluated_agent(config), folder / "after.json", EvalBar())
    print(printable(f"{table(report)}\n{conditions(config)}"))
    if Shard.parse(config.evaluation.shard).count > 1:
        print(_shard_done(config.evaluation.shard, folder))
        return _status(report)
    pages = _write_pages(report, folder)
    print(f"\n{finished(folder / 'after.json', pages)}")
    return _status(report)


def finished(report: Path, pages: Sequence[Path]) -> str:
    """Where an evaluation is, and what to type next.

    Args:
        report: Its rows and settings.
        pages: What was drawn of it.
    """
    lines = [f"rows: {report}", *(f"page: {page}" for page in pages)]
    count, size = kept_tokens(report)
    if count:
        lines.append(f"tokens of {count} rollouts: {in_bytes(size)} (evaluation.keep_tokens)")
    folder = shlex.quote(str(report.parent))
    return "\n".join(
        [
            *lines,
            "next:",
            f"  paravt view {folder}   # its rollouts in the browser",
            f"  paravt compare OTHER_RUN {folder}   # paired with another evaluation",
        ]
    )


def _shard_done(shard: str, folder: Path) -> str:
    joined = f"paravt merge {shlex.quote(str(folder))}"
    return f"\nshard {shard} is done, its rows are in {folder}\nnext:\n  {joined}   # all shards"


def _evaluate_suite(config: TrainConfig) -> int:
    suite = measure_suite(config, EvalBar())
    folder = config.run.path / suite.name
    path = folder / f"{suite.name}.json"
    save_settings(config, path)
    if Shard.parse(config.evaluation.shard).count > 1:
        print(_shard_done(config.evaluation.shard, folder))
        return FAILED if suite.failed else 0
    for outcome in suite.outcomes:
        if outcome.report is not None:
            print(*_write_pages(outcome.report, folder / outcome.entry.name), sep="\n")
    return _tell_suite(suite, path)


def _tell_suite(suite: SuiteReport, path: Path) -> int:
    print(printable(suite.table()))
    _write_json(path, suite.summary())
    folder = shlex.quote(str(path.parent))
    print(f"\ntable: {path}\nnext:\n  paravt view {folder}   # rollouts in the browser")
    return FAILED if suite.failed else 0


def run_merge(parser: argparse.ArgumentParser, words: Sequence[str]) -> int:
    """`paravt merge`: one report of all shards of each evaluation, and suite, under a folder."""
    parser.add_argument("folder", help="folder of a run, such as runs/paragrpo_mini")
    status, args = 0, parser.parse_args(words)
    merged = merge(Path(args.folder))
    for path, report in merged:
        print(printable(f"{path}\n{table(report)}\n"))
        if path.name == "after.json":
            print(*_write_pages(report, path.parent), "", sep="\n")
        status = status or _status(report)
    suites = list(_suites(merged))
    for path, suite in suites:
        status = _tell_suite(suite, path) or status
    if not suites:
        print(f"next:\n  paravt view {shlex.quote(args.folder)}   # rollouts in the browser")
    return status


def _suites(merged: Sequence[tuple[Path, EvalReport]]) -> Iterator[tuple[Path, SuiteReport]]:
    """The suites whose sets were merged, with the path of each table; a set may be missing.

    In what the protocol differs from the published one is read from the settings that the shards
    left beside that table.
    """
    sets: dict[tuple[Path, str], dict[str, EvalReport]] = {}
    for path, report in merged:
        name = report.settings.get("suite")
        if name in SUITES and path.name == "after.json":
            sets.setdefault((path.parent.parent, name), {})[path.parent.name] = report
    for (folder, name), reports in sets.items():
        outcomes = []
        for entry in SUITES[name]:
            found = reports.get(entry.name)
            outcomes.append(SetOutcome(entry, found, "" if found else "no rows of it are there"))
        settings = folder / f"{name}.yaml"
        said = [f"not known: {settings} is missing"]
        if settings.is_file():
            said = list(differences(load(TrainConfig, settings)))
        yield folder / f"{name}.json", SuiteReport(name, tuple(outcomes), tuple(said))


def run_compare(parser: argparse.ArgumentParser, words: Sequence[str]) -> int:
    """`paravt compare`: the paired differences of two evaluations; never fails on their errors."""
    parser.add_argument("first", help="folder of a run, or a report (after.json)")
    parser.add_argument("second", help="another one; differences are second minus first")
    parser.add_argument(
        "--common", action="store_true", help="the samples of both alone, as those a person played"
    )
    parser.add_argument(
        "--lmms-eval",
        metavar="PYTHON",
        default="",
        help="have both scored by lmms-eval, which this other Python has (docs/adapters.md)",
    )
    parser.add_argument("--lmms-task", default="", help="its task, such as videomme")
    parser.add_argument("--lmms-metric", default="", help="where that task has several")
    parser.add_argument("--lmms-tasks", default="", help="folder with task files of your own")
    parser.add_argument("--json", help="write the comparison to this file")
    parser.add_argument("--html", help="write a page with both to this file")
    parser.add_argument("--examples", type=whole(0), default=6, help="rollouts of the page")
    args = parser.parse_args(words)
    paths = [find_report(Path(place)) for place in (args.first, args.second)]
    if bool(args.lmms_eval) != bool(args.lmms_task):
        raise ConfigError("give --lmms-eval PYTHON and --lmms-task NAME together")
    if args.lmms_eval:
        of_task = (args.lmms_eval, args.lmms_task, args.lmms_metric, args.lmms_tasks)
        first, second = (scored_by_lmms_eval(path, *of_task) for path in paths)
        print(f"scored by {second.settings['scorer']}")
    else:
        first, second = (EvalReport.load(path) for path in paths)
    if args.common:
        first, second, left_out = shared(first, second)
        print(f"{len(first.rows)} samples of both, {left_out} rows of one of them left out")
    comparison = compare(first, second, (args.first, args.second))
    print(printable(comparison_table(comparison)))
    if args.json:
        _write_json(Path(args.json), comparison.summary())
    if args.html:
        title = f"{args.first} and {args.second}"
        page = render(title, first, second, [], {}, read_overview, args.examples)
        write_html(Path(args.html), page)
    print(f"\n{compared(paths, [Path(to) for to in (args.json, args.html) if to])}")
    return 0


def compared(reports: Sequence[Path], written: Sequence[Path]) -> str:
    """Where a comparison was written, and how to see the rows that flipped.

    Args:
        reports: Both evaluations.
        written: Files of the comparison.
    """
    lines = [f"written: {path}" for path in written]
    folders = dict.fromkeys(shlex.quote(str(path.parent)) for path in reports)
    lines.append("next:")
    if not written:
        lines.append("  again with --html compare.html   # the same as a page, with rollouts")
    lines.append(f"  paravt view {' '.join(folders)}   # Compare: curves, rows that flipped")
    return "\n".join(lines)


def run_report(parser: argparse.ArgumentParser, words: Sequence[str]) -> int:
    """`paravt report`: the page of a run's folder again."""
    parser.add_argument("folder", help="folder of a run, such as runs/demo")
    parser.add_argument("--examples", type=whole(0), default=6, help="rollouts that are shown")
    args = parser.parse_args(words)
    page = write_report(args.folder, args.examples)
    folder = shlex.quote(str(args.folder))
    print(f"page: {page}\nnext:\n  paravt view {folder}   # every kept rollout, in the browser")
    return 0


def _status(report: EvalReport) -> int:
    return FAILED if report.failed else 0


def _write_pages(report: EvalReport, folder: Path) -> list[Path]:
    """Write a folder's page, and of a sweep the curve; returns where they are."""
    curve = [_write_curve(report, folder)] if report.settings.get("sweep") else []
    return [*curve, write_report(folder)]


def _write_curve(report: EvalReport, folder: Path) -> Path:
    """Accuracy over frames as `frames.svg`."""
    points = {
        budget: report.accuracy(rows) for budget, rows in report.groups("frame_budget").items()
    }
    path = folder / "frames.svg"
    chart = frames_chart("Accuracy over overview frames", {"accuracy": points})
    write_whole(path, grid([chart], 1))
    return path


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(content, indent=1, allow_nan=False))
