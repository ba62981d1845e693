"""Evaluations as text: the progress line, the table of a report, the comparison of two.

After `train.evaluation.scores`, printed by `paravt eval`, `paravt merge` and `paravt compare`.
Tests: `pytest tests/evaluation/test_evaluate_command.py`.
"""

from __future__ import annotations

from typing import Any

from paravt_env.tasksets.base import say_left_out
from train.common.console import Work
from train.evaluation.bootstrap import Interval
from train.evaluation.compare import Comparison
from train.evaluation.scores import EvalReport


class EvalBar:
    """How far an evaluation is, with its accuracy so far; one for all sets of a suite."""

    def __init__(self) -> None:
        self._work: Work | None = None
        self._last = 0

    def __call__(self, done: int, total: int, accuracy: float, errors: int) -> None:
        """Show the samples that are done: at the start, and after each of them.

        A count that does not grow is the start of another evaluation.
        """
        if self._work is None or total != self._work.total or done <= self._last:
            self._work = Work("evaluated", total, done)
        self._last = done
        failed = f", {errors} errors" if errors else ""
        self._work.show(done, f"accuracy {accuracy:.3f}{failed}" if done else "")


def table(report: EvalReport) -> str:
    """The summary as lines of text: accuracy with its interval, baselines, format, calls, cost.

    `evidence` is the evidence recall: "-" where no row has gold evidence.
    """
    summary = report.summary()
    lines = [
        f"{'':30}{'rows':>5}  {'accuracy':24}{'majority':>9}{'blind':>7}{'format':>8}{'tools':>7}"
        f"{'calls':>7}{'frames':>8}{'evidence':>10}{'errors':>8}"
    ]

    def line(name: str, part: dict[str, Any]) -> str:
        item = part["accuracy"]
        accuracy = f"{item['mean']:.3f} [{item['low']:.3f}, {item['high']:.3f}]"
        blind, evidence = (
            "-" if part[key] is None else f"{part[key]:.3f}" for key in ("blind", "evidence_recall")
        )
        return (
            f"{name[:30]:30}{item['rows']:5d}  {accuracy:24}{part['majority']:9.3f}{blind:>7}"
            f"{part['compliance']:8.2f}{part['tool_rate']:7.2f}{part['calls']:7.2f}"
            f"{part['frames_seen']:8.1f}{evidence:>10}{part['errors']:8d}"
        )

    lines.append(line("all", summary["overall"]))
    for breakdown, label in (
        ("frame_budget", "K = "),
        ("family", "family "),
        ("category", "category "),
        ("kind", "kind "),
        ("duration_group", "video "),
    ):
        groups = summary[breakdown]
        if len(groups) > 1 or breakdown in ("frame_budget", "family", "category"):
            lines += [line(f"{label}{key or '(none)'}", part) for key, part in groups.items()]
    if len(summary["category"]) > 1:
        lines.append(f"{'mean of the categories':37}{_bracket(summary['macro'])}")
    for name, item in summary["grounding"].items():
        lines.append(f"{name:30}{item['rows']:5d}  {_bracket(item)}")
    used = summary["overall"]["usage"]
    if used:
        each = ", ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in used.items())
        lines.append(f"an episode used: {each}")
    overall = summary["overall"]
    if overall.get("untagged"):
        lines.append(f"untagged: {overall['untagged']} answers were read from text without a tag")
    if overall.get("lapses"):
        named = ", ".join(f"{count} {name}" for name, count in sorted(overall["lapses"].items()))
        lines.append(f"repaired calls: {named}")
    for errors, where in (("errors", ""), ("blind_errors", " without frames")):
        if summary[errors]:
            named = ", ".join(f"{count} {kind}" for kind, count in summary[errors].items())
            lines.append(f"errors{where}, counted as wrong: {named}")
    if report.left_out:
        lines.append(say_left_out(report.left_out))
    return "\n".join(lines)


def _bracket(item: dict[str, Any]) -> str:
    return f"{item['mean']:.3f} [{item['low']:.3f}, {item['high']:.3f}]"


def comparison_table(comparison: Comparison) -> str:
    """The paired differences as lines of text, in points; a star where zero is excluded."""
    lines = [
        f"{comparison.second} minus {comparison.first}: points with their paired interval "
        "(* excludes zero)",
        f"{'':28}{'rows':>5}{'first':>8}{'second':>8}  difference",
    ]
    for name, part in comparison.parts.items():
        change: Interval = part.difference
        star = " *" if change.excludes_zero else ""
        lines.append(
            f"{name[:28]:28}{change.rows:5d}{100 * part.first:8.1f}{100 * part.second:8.1f}"
            f"  {100 * change.mean:+.1f} [{100 * change.low:+.1f}, {100 * change.high:+.1f}]{star}"
        )
    for name, change in comparison.others.items():
        lines.append(f"{name:28}{change.mean:+.3f} [{change.low:+.3f}, {change.high:+.3f}]")
    lines.append(
        f"{comparison.better} rows better, {comparison.worse} worse, {comparison.equal} equal"
    )
    return "\n".join(lines)
