"""How long work is shown: redrawn in place on a terminal, as lines elsewhere, with an estimate.

A run's steps (`train.loop.metrics.MetricsLogger`), and `Work` for everything that is counted: an
evaluation, a cold start, a study. See it with `paravt train`, or `paravt train | cat`.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from typing import Any, TextIO

from paravt_env.common.progress import Pace, in_words

HEADLINE = (
    "reward", "accuracy", "compliance", "calls", "entropy", "kl", "validation/accuracy",
    "time/step",
)  # fmt: skip
"""What the console shows of a step, where it is there."""


def printable(text: str) -> str:
    r"""Without control sequences: what a model or a data set wrote must not steer the terminal.

    >>> printable("\x1b[2J") == "\N{REPLACEMENT CHARACTER}[2J"
    True
    """
    return "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text)


def in_bytes(size: int) -> str:
    """A size in round numbers.

    >>> in_bytes(900), in_bytes(2_500_000)
    ('900 bytes', '2.5 MB')
    """
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= scale:
            return f"{size / scale:.1f} {unit}"
    return f"{size} bytes"


def headline(metrics: Mapping[str, float]) -> list[tuple[str, str]]:
    """Name and printed value of what the console shows of a step."""
    return [(name, f"{metrics[name]:.3f}") for name in HEADLINE if name in metrics]


class Plain:
    """One line a step: for logs and pipes."""

    def __init__(self, total_steps: int, stream: TextIO) -> None:
        self.total_steps, self.stream = total_steps, stream

    def start(self, first_step: int) -> None:
        """The clock of the estimate starts here."""
        self.pace = Pace(self.total_steps, first_step)

    def show(self, step: int, metrics: Mapping[str, float]) -> None:
        """Print a finished step."""
        shown = "  ".join(f"{name} {value}" for name, value in headline(metrics))
        left = self.pace.left(step + 1)
        line = f"step {step + 1}/{self.total_steps or '?'}  {shown}{'  ' + left if left else ''}"
        print(line, file=self.stream, flush=True)

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
        left = in_words(max(self.total_steps - step - 1, 0) * seconds)
        names = [name for name, _ in headline(self.rows[-1][1])]
        table = Table(title=f"step {step + 1}/{self.total_steps}, about {left} left")
        for name in ("step", *names):
            table.add_column(name, justify="right")
        for number, metrics in self.rows:
            values = dict(headline(metrics))
            table.add_row(str(number + 1), *(values.get(name, "") for name in names))
        return Group(table, ProgressBar(total=max(self.total_steps, 1), completed=step + 1))

    def stop(self) -> None:
        """Leave the last drawing on the screen."""
        self.live.stop()


class Work:
    """Counted work: a bar on a terminal, elsewhere a line at least every half minute.

    Args:
        what: What is done, in a word or two.
        total: How much.
        done: What was there before.
        stream: Where to; standard output.
        pace: Replaces the clock.
    """

    def __init__(
        self,
        what: str,
        total: int,
        done: int = 0,
        stream: TextIO | None = None,
        pace: Pace | None = None,
    ) -> None:
        self.what, self.total = what, total
        self.stream = stream or sys.stdout
        self.pace = pace or Pace(total, done)
        self._bar: Any = None

    def show(self, done: int, note: str = "") -> None:
        """Tell how far the work is, with a note of what came out so far."""
        if self.stream.isatty():
            self._draw(done, note)
        elif self.pace.due(done):
            said = (f"{self.what} {done}/{self.total}", note, self.pace.left(done))
            print(f"  {', '.join(filter(None, said))}", file=self.stream, flush=True)
        if done >= self.total:
            self.close()

    def close(self) -> None:
        """Leave the last drawing on the screen."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _draw(self, done: int, note: str) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        if self._bar is None:
            columns = (
                "  {task.description}",
                "{task.completed}/{task.total}",
                "{task.fields[note]}",
            )
            texts = [TextColumn(text, markup=False) for text in columns]
            self._bar = Progress(
                texts[0], BarColumn(24), *texts[1:], TimeRemainingColumn(),
                console=Console(file=self.stream),
            )  # fmt: skip
            self._bar.start()
            self._bar.add_task(self.what, total=self.total, note=note)
        self._bar.update(self._bar.task_ids[0], completed=done, note=note)


def without_foreign_bars() -> None:
    """Keep the progress bars of Hugging Face's libraries out of our own lines.

    Called before they are imported. `HF_HUB_DISABLE_PROGRESS_BARS=0` in the environment shows them,
    which tells how far the download of a large checkpoint is.
    """
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
