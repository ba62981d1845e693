"""How a run shows its steps: redrawn in place on a terminal, one line a step elsewhere.

Opened by `train.loop.metrics.MetricsLogger`; see it with `paravt train`, or `paravt train | cat`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, TextIO

HEADLINE = ("reward", "accuracy", "compliance", "calls", "entropy", "kl", "time/step")
"""What the console shows of a step, where it is there."""


def printable(text: str) -> str:
    r"""Without control sequences: what a model or a data set wrote must not steer the terminal.

    >>> printable("\x1b[2J") == "\N{REPLACEMENT CHARACTER}[2J"
    True
    """
    return "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text)


def headline(metrics: Mapping[str, float]) -> list[tuple[str, str]]:
    """Name and printed value of what the console shows of a step."""
    return [(name, f"{metrics[name]:.3f}") for name in HEADLINE if name in metrics]


class Plain:
    """One line a step: for logs and pipes."""

    def __init__(self, total_steps: int, stream: TextIO) -> None:
        self.total_steps, self.stream = total_steps, stream

    def start(self, first_step: int) -> None:
        """Nothing to prepare."""

    def show(self, step: int, metrics: Mapping[str, float]) -> None:
        """Print a finished step."""
        shown = "  ".join(f"{name} {value}" for name, value in headline(metrics))
        print(f"step {step + 1}/{self.total_steps or '?'}  {shown}", file=self.stream, flush=True)

    def stop(self) -> None:
        """Nothing to end."""


class Live:
    """A progress bar over a table of the last steps, redrawn in place: for terminals."""

    def __init__(self, total_steps: int, shown_steps: int = 12) -> None:
        import rich.live

        self.total_steps, self.shown_steps = total_steps, shown_steps
        self.rows: list[tuple[int, Mapping[str, float]]] = []
        self.live = rich.live.Live(auto_refresh=False)

    def start(self, first_step: int) -> None:
        """Open the display; the clock starts here."""
        self.first_step, self.began = first_step, time.monotonic()
        self.live.start()

    def show(self, step: int, metrics: Mapping[str, float]) -> None:
        """Redraw with one more step."""
        self.rows = [*self.rows, (step, metrics)][-self.shown_steps :]
        self.live.update(self._drawn(step), refresh=True)

    def _drawn(self, step: int) -> Any:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table

        seconds = (time.monotonic() - self.began) / (step + 1 - self.first_step)
        left = max(self.total_steps - step - 1, 0) * seconds
        names = [name for name, _ in headline(self.rows[-1][1])]
        table = Table(title=f"step {step + 1}/{self.total_steps}, about {left:.0f} s left")
        for name in ("step", *names):
            table.add_column(name, justify="right")
        for number, metrics in self.rows:
            values = dict(headline(metrics))
            table.add_row(str(number + 1), *(values.get(name, "") for name in names))
        return Group(table, ProgressBar(total=max(self.total_steps, 1), completed=step + 1))

    def stop(self) -> None:
        """Leave the last drawing on the screen."""
        self.live.stop()
