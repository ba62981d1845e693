"""What is known of one run so far: its steps, the heads and lists of its kept rollouts, its curves.

Under `train.viewer.runs`. Both files are read from where the last reading ended. Of the index only
the heads are read; the rest of a line is read once a list shows or filters its rollouts. Tests:
`pytest tests/viewer/test_runs.py`.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from train.common.metrics_file import FILE as METRICS
from train.common.rollout_file import FOLDER, INDEX, IndexLine, index_lines
from train.report.curves import curves
from train.viewer.listing import Listed, from_index
from train.viewer.tail import Tail, last_lines

RECENT_BYTES = 64 * 1024
"""Bytes at the end of `metrics.jsonl` that the list of runs reads."""


@dataclass
class Run:
    """What is known of a run so far."""

    folder: Path
    steps: list[dict[str, Any]] = field(default_factory=list)
    kept: dict[int, IndexLine] = field(default_factory=dict)
    """The heads of the steps that kept rollouts."""

    charts: tuple[int, str] = (-1, "")
    """The curves as they were last drawn, and of how many steps."""

    def __post_init__(self) -> None:
        """Begin at the start of both files."""
        self._metrics = Tail(self.folder / METRICS)
        self._index = Tail(self.folder / FOLDER / INDEX)
        self._listed: dict[int, tuple[Listed, ...]] = {}

    def read_steps(self) -> list[dict[str, Any]]:
        """The logged steps, with those that came since."""
        again, lines = self._metrics.read()
        if again:
            self.steps.clear()
            self.charts = (-1, "")
        self.steps += steps_of(lines)
        return self.steps

    def read_index(self) -> None:
        """Read the heads that came since."""
        again, lines = self._index.read()
        if again:
            self.kept.clear()
            self._listed.clear()
        for line in index_lines(lines):
            self.kept[line.step] = line
            self._listed.pop(line.step, None)

    def listed(self, step: int) -> tuple[Listed, ...]:
        """The rollouts of a step; none where its line of the index is damaged."""
        if step not in self._listed and step in self.kept:
            try:
                rows = from_index(self.kept[step].rows())
            except (TypeError, ValueError, OverflowError):
                rows = ()
            self._listed[step] = rows
        return self._listed.get(step, ())

    def draw(self) -> str:
        """The curves of all steps; drawn again only when there are more."""
        if self.charts[0] != len(self.read_steps()):
            self.charts = (len(self.steps), curves(self.steps))
        return self.charts[1]


def recent_steps(folder: Path, count: int) -> list[dict[str, Any]]:
    """The last logged steps of a run, without reading what came before them."""
    lines = last_lines(folder / METRICS, RECENT_BYTES).splitlines()
    return steps_of(b"\n".join(lines[-count:]))


def steps_of(lines: bytes) -> list[dict[str, Any]]:
    r"""The steps of whole lines of `metrics.jsonl`; other lines, and values, are left out.

    >>> steps_of(b'{"step": 2, "reward": 0.5, "kl": null, "loss": NaN}\nnonsense\n')
    [{'step': 2, 'reward': 0.5}]
    """
    found = []
    for line in lines.splitlines():
        try:
            logged = json.loads(line)
            step = {
                name: value
                for name, value in logged.items()
                if type(value) in (int, float) and math.isfinite(value)
            }
            step["step"] = int(step["step"])
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
            continue  # cut short by a crash
        found.append(step)
    return found
