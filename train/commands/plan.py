"""`paravt plan`: its options; `train/lab/plan/` predicts. What is left out is the recipe's.

Tests: `pytest tests/commands tests/lab/test_plan.py`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from train.lab.plan import report
from train.lab.plan.costs import SHAPES


def run(parser: argparse.ArgumentParser, words: Sequence[str]) -> int:
    """Print the plan of a run, or how well earlier ones were predicted."""
    parser.add_argument(
        "--recipe", help="the longest rollouts of that recipe's settings, its model, its GPUs"
    )
    parser.add_argument("--model", help=f"{', '.join(SHAPES)}; default: the recipe's, or 8b")
    for name, what in (
        ("gpus", "cards, of all nodes; default: the recipe's (parallel.gpus), or 1"),
        ("servers", "of them, cards that only play"),
        ("frames", "overview frames"),
        ("group", "rollouts of a group"),
        ("groups", "groups of a step"),
        ("completion", "tokens of a rollout"),
        ("sequence", "cards that share a packed sequence"),
        ("lora", "rank of the adapters; 0 trains everything"),
        ("budget", "tokens of a micro-batch (packing.micro_batch_tokens)"),
    ):
        parser.add_argument(f"--{name}", type=int, help=what)
    parser.add_argument("--freeze-vision", action="store_true", default=None)
    parser.add_argument("--offload", action="store_true", default=None, help="moments on the CPU")
    parser.add_argument("--no-recompute", dest="recompute", action="store_false", default=None)
    parser.add_argument("--no-reshard", dest="reshard", action="store_false", default=None)
    parser.add_argument("--no-reference", dest="reference", action="store_false", default=None)
    parser.add_argument("--card-gb", type=float, help="memory of a card; default 141")
    parser.add_argument("--measured", help="constants that benchmarks/gpu.py --json wrote")
    parser.add_argument(
        "--check",
        help="compare that file's rows with the prediction from --measured, or from its other rows",
    )
    print(report.run(parser.parse_args(words)))
    return 0
