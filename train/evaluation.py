"""The commands around an evaluation: `paravt eval`, `paravt merge`, `paravt compare`.

The last doors before the report: they measure or read, print tables, write JSON and HTML, and say
by their exit status whether every sample could be scored. Tests: `pytest
tests/test_evaluate_command.py`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from train.charts import frames_chart, grid
from train.compare import compare, find_report
from train.ledger import Shard
from train.measure import evaluated_agent, measure, measure_suite
from train.merge import merge
from train.recipe import save
from train.report import read_overview, render, write_report
from train.scores import EvalReport
from train.tables import comparison_table, print_progress, table

if TYPE_CHECKING:
    from train.config import TrainConfig

FAILED = 1
"""Exit status where a sample or a set could not be evaluated."""


def run_evaluation(config: TrainConfig) -> int:
    """`paravt eval`: measure, print the table, write `after.json` and `report.html`.

    Returns:
        0, or `FAILED` if a sample (or a set of a suite) could not be scored.
    """
    folder = config.run.path
    if not (folder / "config.yaml").exists():
        save(config, folder)
    if config.evaluation.suite:
        return _run_suite(config)
    report = measure(config, evaluated_agent(config), folder / "after.json", print_progress)
    print(table(report))
    if Shard.parse(config.evaluation.shard).count > 1:
        print(f"\nshard {config.evaluation.shard} done; with all of them: paravt merge {folder}")
        return _status(report)
    if config.evaluation.sweep:
        print(f"\n{_write_curve(report, folder)}")
    print(f"\n{folder / 'after.json'}\n{write_report(folder)}")
    return _status(report)


def _run_suite(config: TrainConfig) -> int:
    suite = measure_suite(config, print_progress)
    folder = config.run.path / suite.name
    if Shard.parse(config.evaluation.shard).count > 1:
        print(f"\nshard {config.evaluation.shard} done; with all of them: paravt merge {folder}")
        return FAILED if suite.failed else 0
    for outcome in suite.outcomes:
        if outcome.report is not None:
            write_report(folder / outcome.entry.name)
    print(suite.table())
    path = folder / f"{suite.name}.json"
    _write_json(path, suite.summary())
    print(f"\n{path}")
    return FAILED if suite.failed else 0


def run_merge(args: argparse.Namespace) -> int:
    """`paravt merge`: one report of all shards of each evaluation under a folder."""
    status = 0
    for path, report in merge(Path(args.folder)):
        print(f"{path}\n{table(report)}\n")
        if path.name == "after.json":
            print(write_report(path.parent))
        status = status or _status(report)
    return status


def run_compare(args: argparse.Namespace) -> int:
    """`paravt compare`: the paired differences of two evaluations; never fails on their errors."""
    paths = [find_report(Path(place)) for place in (args.first, args.second)]
    first, second = (EvalReport.load(path) for path in paths)
    comparison = compare(first, second, (args.first, args.second))
    print(comparison_table(comparison))
    if args.json:
        _write_json(Path(args.json), comparison.summary())
    if args.html:
        title = f"{args.first} and {args.second}"
        page = render(title, first, second, [], "", read_overview, args.examples)
        Path(args.html).write_text(page, encoding="utf-8")
    return 0


def _status(report: EvalReport) -> int:
    return FAILED if report.errors else 0


def _write_curve(report: EvalReport, folder: Path) -> Path:
    """Accuracy over frames as `frames.svg`."""
    points = {
        budget: report.accuracy(rows) for budget, rows in report.groups("frame_budget").items()
    }
    path = folder / "frames.svg"
    chart = frames_chart("Accuracy over overview frames", {"accuracy": points})
    path.write_text(grid([chart], 1), encoding="utf-8")
    return path


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1, allow_nan=False), encoding="utf-8")
