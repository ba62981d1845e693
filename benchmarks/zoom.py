"""What looking by code is worth to a policy: its answers with and without a look.

Reads the evaluations of runs (`after.json`), made by these commands:

    paravt sft sft_code_mini
    paravt eval pyvision_image_mini --run.name=start --evaluation.temperature=0.7
    paravt eval pyvision_image_mini --run.name=start_greedy
    paravt eval pyvision_image_mini --run.name=start_no_tool --env.max_turns=0
    paravt train pyvision_image_mini
    paravt eval runs/pyvision_image_mini/config.yaml --run.name=trained --agent.checkpoint=...
    python benchmarks/zoom.py runs/start runs/start_greedy runs/start_no_tool runs/trained

A policy that may not call has not been taught to answer then; its own guesses, the episodes in
which it chose not to look, say what it knows without the tool. Intervals are 95 %, over pictures.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from train.evaluation.scores import EvalReport, mean
from train.lab.study.results import as_percent, as_points
from train.lab.study.statistics import average, calls, score, tool_gap

COLUMNS = ("run", "rows", "accuracy", "calls", "right with a look", "without", "difference")


def line(folder: Path) -> list[str]:
    """The cells of one evaluation."""
    report = EvalReport.load(folder / "after.json")
    looked = [row.score for row in report.rows if row.calls]
    guessed = [row.score for row in report.rows if not row.calls]
    called = average([report], calls)
    return [
        folder.name,
        str(len(report.rows)),
        as_percent(average([report], score)),
        f"{called.mean:.2f}" if called else "",
        _share(looked),
        _share(guessed),
        as_points(tool_gap([report], report.rows[0].frame_budget)),
    ]


def _share(scores: list[float]) -> str:
    return f"{100 * mean(scores):.1f} % of {len(scores)}" if scores else "none"


def main() -> None:
    """Print the table, and write where `--output` says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    rows = [COLUMNS, ("---",) * len(COLUMNS), *map(line, args.runs)]
    text = f"$ {shlex.join(['python', *sys.argv])}\n\n"
    text += "".join(f"| {' | '.join(row)} |\n" for row in rows)
    print(text, end="")
    if args.output:
        args.output.write_text(text)


if __name__ == "__main__":
    main()
