"""`paravt diagnose`: its options; `train/lab/diagnose/` measures and reports.

Tests: `pytest tests/commands tests/lab/test_diagnostics.py`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from train.lab.diagnose.settings import ProbeSettings


def run(parser: argparse.ArgumentParser, words: Sequence[str]) -> int:
    """Diagnose a run, write `diagnostics.json` and print the report."""
    parser.add_argument("folder", help="folder of a run of `paravt train`, such as runs/demo")
    own = ProbeSettings()
    parser.add_argument(
        "--groups", type=int, default=own.groups, help="groups that the probe plays; 0: no"
    )
    parser.add_argument(
        "--seed", type=int, default=own.seed, help="of the probe's tasks and sampling"
    )
    parser.add_argument(
        "--before",
        default="",
        metavar="[NAME=]JSON,...",
        help="evaluations of the policy before training; the set that was trained on comes first",
    )
    parser.add_argument(
        "--after", default="", metavar="[NAME=]JSON,...", help="the same sets after it"
    )
    parser.add_argument(
        "--noise",
        type=float,
        default=own.noise,
        help="s of the PAC-Bayes figure, in units of weights",
    )
    parser.add_argument("--delta", type=float, default=own.delta, help="its probability of failing")
    args = parser.parse_args(words)
    from train.lab.diagnose import diagnose  # torch: only once the options are known to be good

    print(diagnose.run(args))
    return 0
