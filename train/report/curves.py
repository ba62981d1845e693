"""The curves of a training run: which metrics are drawn, and which of them share a plot.

In the report of a run (`train.report.page`) and in `paravt view`. Numbers in, markup out. Tests:
`pytest tests/report`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from train.report.charts import line_chart

CURVES = (
    "evidence_recall",
    "entropy",
    "kl",
    "clip_fraction",
    "ratio",
    "behaviour_mismatch",
    "grad_norm",
    "frames_seen",
)
"""Metrics with a chart of their own, where the run logged them."""
PARTS = {
    "Seconds of sampling": ("video", "encode", "prefill", "decode"),
    "Seconds of the update": ("forward", "backward", "vision", "proximal", "publish"),
}
"""Metrics `time/...` that are part of a longer stage, by the title of their chart."""


def by_number(name: str) -> tuple[str, float, str]:
    """How names of metrics are sorted: those that end with a number by its size.

    >>> sorted(["calls/K=16", "calls/K=4", "calls"], key=by_number)
    ['calls', 'calls/K=4', 'calls/K=16']
    """
    head, _, tail = name.rpartition("=")
    return (head, float(tail), "") if tail.isdecimal() and head else (name, -1.0, "")


def curves(steps: Sequence[Mapping[str, Any]]) -> str:
    """The charts of a run's steps, as `train.common.metrics_file.read_metrics` gives them."""
    logged: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for step in steps:
        place = step["step"] + 1
        for key, value in step.items():
            if value is not None:
                logged[key].append((place, value))

    def points(key: str) -> list[tuple[float, float]]:
        return logged.get(key, [])

    def family(prefix: str) -> dict[str, list[tuple[float, float]]]:
        names = sorted((k for k in logged if k.startswith(prefix)), key=by_number)
        return {name.removeprefix(prefix): logged[name] for name in names}

    charts = [
        line_chart("Reward", {"reward": points("reward")}),
        line_chart("Reward terms", family("reward/")),
        line_chart("Accuracy and compliance", {k: points(k) for k in ("accuracy", "compliance")}),
        line_chart("Calls", {"per rollout": points("calls"), "per turn": points("parallel_calls")}),
        line_chart("Validation", family("validation/")),
        line_chart("Accuracy at K", family("accuracy/")),
        line_chart("Calls at K", family("calls/")),
        line_chart("Tool Necessity Gap at K", family("tng/")),
    ]
    for key in CURVES:
        charts.append(line_chart(key.replace("_", " ").capitalize(), {key: points(key)}))
    seconds = family("time/")
    parts = {name for names in PARTS.values() for name in names}
    whole = {name: found for name, found in seconds.items() if name not in parts}
    charts.append(line_chart("Seconds of a step", whole))
    for title, names in PARTS.items():
        charts.append(line_chart(title, {name: seconds.get(name, []) for name in names}))
    return "".join(charts)
