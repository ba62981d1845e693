"""`paravt study NAME`: run what is missing, then write the table and the figure.

Calls `train.lab.study.study`, then `train.lab.study.report`, which know nothing of each other.
Tests: `pytest tests/commands tests/lab/test_study.py`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from train.commands.options import whole
from train.lab.study.settings import load


def run(parser: argparse.ArgumentParser, words: Sequence[str]) -> int:
    """Run what is missing of a study, write its table and figure, print the table."""
    parser.add_argument(
        "name",
        help="packaged study (collapse, paradox, prior, regimes, strong) or path of a YAML file",
    )
    parser.add_argument("--arms", nargs="+", default=[], help="default: the study's main arms")
    parser.add_argument("--seeds", type=whole(0), nargs="+", help="default: the study's")
    parser.add_argument("--quick", action="store_true", help="few steps, one seed")
    parser.add_argument("--jobs", type=whole(1), default=2, help="processes at a time")
    parser.add_argument("--folder", help="default: runs/NAME, or runs/NAME-quick")
    args = parser.parse_args(words)
    study = load(args.name)
    # torch: only once the study is known to be good
    from train.lab.study import report
    from train.lab.study import study as runs

    suffix = "-quick" if args.quick else ""
    folder = Path(args.folder or f"runs/{Path(args.name).stem}{suffix}")
    seeds = args.seeds or (study.seeds[:1] if args.quick else study.seeds)
    runs.run(study, folder, args.arms, seeds, args.quick, args.jobs)
    found = runs.all_cells(study, folder, seeds, args.quick)
    table, figure, text = report.write(study, found, folder)
    print(f"\n{text}\n{table} and {figure} written")
    return 0
