"""`paravt study NAME`: run what is missing, then write the table and the figure.

Above the rest of this room: calls `train.lab.study.study`, then `train.lab.study.report`, which
know nothing of each other. Tests: `pytest tests/lab/test_study.py`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from train.lab.study.report import write
from train.lab.study.settings import load
from train.lab.study.study import all_cells, run


def command(args: argparse.Namespace) -> None:
    """`paravt study NAME`: run what is missing, write the table and the figure, print the table."""
    study = load(args.name)
    suffix = "-quick" if args.quick else ""
    folder = Path(args.folder or f"runs/{Path(args.name).stem}{suffix}")
    seeds = args.seeds or (study.seeds[:1] if args.quick else study.seeds)
    run(study, folder, args.arms, seeds, args.quick, args.jobs)
    found = all_cells(study, folder, seeds, args.quick)
    table, figure, text = write(study, found, folder)
    print(f"\n{text}\n{table} and {figure} written")
