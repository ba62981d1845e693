"""How much freedom the thoughts of a run keep: its sampled surprisal at the start and at the end.

Credit on the tags alone is to leave the words of a thought alone. Their entropy is measured as the
mean of -log p over the sampled tokens of thoughts, which is an unbiased estimate of the entropy at
the sampling temperature, in nats a token; f and the calls stand beside it. Reads the rollouts that
runs keep (`run.keep_rollouts`) and their logs: `python benchmarks/thoughts.py RUN [RUN ...]`. Runs
whose names differ in a last `-SEED` alone are one line, with the range of their seeds.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from paravt_env.protocol.tags import Role
from train.common.metrics_file import read_metrics
from train.common.rollout_file import read_step

WIDTH = 5
"""Steps at either end that are one figure."""


def surprisal(folder: Path, steps: Sequence[int]) -> float:
    """Mean -log p of the sampled thought tokens in the rollouts that these steps kept, in nats."""
    values = [
        -logprob
        for step in steps
        for rollout in read_step(folder, step)
        for conversation in rollout["conversations"]
        if conversation["kind"] == "main"
        for role, logprob in zip(conversation["roles"], conversation["logprobs"], strict=True)
        if role == Role.think and logprob is not None
    ]
    return float(np.mean(values)) if values else float("nan")


def ends(folder: Path, last: int) -> list[tuple[float, float, float]]:
    """(surprisal, f, calls) over the first and the last `WIDTH` steps up to `last`."""
    steps = [row for row in read_metrics(folder) if "compliance" in row][:last]
    if not steps:
        raise SystemExit(f"{folder} has logged no step: give the folders of runs that trained")
    found = []
    for part in (steps[:WIDTH], steps[-WIDTH:]):
        freedom = surprisal(folder, [int(row["step"]) for row in part])
        means = (float(np.mean([row[key] for row in part])) for key in ("compliance", "calls"))
        found.append((freedom, *means))
    return found


def main() -> None:
    """Print a line for each group of runs."""
    parser = argparse.ArgumentParser(description="Surprisal of thoughts, f and calls of runs.")
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--last", type=int, default=10**9, help="leave out the steps from here on")
    asked = parser.parse_args()
    arms = defaultdict(list)
    for run in asked.runs:
        arms[run.name.rpartition("-")[0] or run.name].append(ends(run, asked.last))
    print(f"means of the first and of the last {WIDTH} steps; brackets: least to most of the seeds")
    print(f"{'arm':16}{'seeds':>6}  surprisal of thoughts, nats a token     f             calls")
    for arm, found in arms.items():
        values = np.array(found)  # seeds, ends, measures
        first, last = values.mean(0)
        low, high = values[:, 1].min(0), values[:, 1].max(0)
        cells = [
            f"{first[n]:.3f} -> {last[n]:.3f} [{low[n]:.3f}, {high[n]:.3f}]" for n in range(3)
        ]
        print(f"{arm:16}{len(found):6}  {'   '.join(cells)}")


if __name__ == "__main__":
    main()
