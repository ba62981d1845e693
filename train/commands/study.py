"""`paravt study`: its options; `train/lab/study/` runs the arms and writes the table.

Tests: `pytest tests/commands tests/lab/test_study.py`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from train.commands.options import whole


def run(parser: argparse.ArgumentParser, words: Sequence[str]) -> int:
    """Run what is missing of a study, write its table and figure, print the table."""
    parser.add_argument("name", help="packaged study (paradox, regimes) or path of a YAML file")
    parser.add_argument("--arms", nargs="+", default=[], help="default: the study's main arms")
    parser.add_argument("--seeds", type=whole(0), nargs="+", help="default: the study's")
    parser.add_argument("--quick", action="store_true", help="few steps, one seed")
    parser.add_argument("--jobs", type=whole(1), default=2, help="processes at a time")
    parser.add_argument("--folder", help="default: runs/NAME, or runs/NAME-quick")
    args = parser.parse_args(words)
    from train.lab.study.study import command  # torch: only once the options are known to be good

    command(args)
    return 0
