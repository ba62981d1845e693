"""The frame of a chart: axes with round numbers, a legend, and data coordinates in pixels.

Under `train.report.charts`, which draws into it. Numbers in, markup out; every text is escaped
here, because some of it was written by a model. Run the examples with `python -m doctest
train/report/plot.py`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

WIDTH, HEIGHT = 340, 220
LEFT, RIGHT, TOP, BOTTOM = 44, 12, 44, 26
LINE = 13
"""Height of a further line of the legend."""


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round numbers that cover [low, high], at most `most` of them inside.

    >>> ticks(0.0, 1.0)
    [0.0, 0.25, 0.5, 0.75, 1.0]
    >>> ticks(3.0, 3.0)
    [3.0]
    """
    if not high > low:
        return [low]
    raw = (high - low) / (most - 1)
    scale = 10 ** math.floor(math.log10(raw))
    step = next(scale * s for s in (1, 2, 2.5, 5, 10) if scale * s >= raw * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(index * step, 10) for index in range(first, last + 1)]


def axis(low: float, high: float) -> tuple[float, float]:
    """A range of some height around the values; near zero, or for one value, it starts at zero."""
    if math.isclose(low, high):  # a mean of equal values rounds
        low = high
    if 0 <= low < 0.6 * high or 0 < low == high:
        low = 0.0
    margin = 0.06 * (high - low) or 0.1 * abs(high) or 1.0
    return (low if low == 0 else low - margin), high + margin


def number(value: float) -> str:
    """A value as axes and titles show it: four digits.

    >>> number(0.25), number(4.5e-7)
    ('0.25', '4.5e-7')
    """
    return f"{value:.4g}".replace("e-0", "e-").replace("e+0", "e")


def text(x: float, y: float, content: str, anchor: str = "middle", colour: str = "") -> str:
    """Escaped text at a place, in pixels."""
    style = f' fill="{colour}"' if colour else ""
    where = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f'<text class="tick" {where}{style}>{escape(content)}</text>'


class Plot:
    """Data coordinates to pixels, and the frame around a plot, below a legend of several names."""

    def __init__(
        self, title: str, x: tuple[float, float], y: tuple[float, float], names: Sequence[str] = ()
    ) -> None:
        self.x_range, self.y_range = x, y
        self.names = _legend(names) if len(names) > 1 else {}
        self.top = TOP + LINE * max((line for _, line in self.names.values()), default=0)
        self.parts = [
            f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
            f'aria-label="{escape(title)}">',
            f'<text class="title" x="{LEFT}" y="16">{escape(title)}</text>',
        ]
        for value in ticks(*y):
            height = self.y(value)
            self.parts.append(
                f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{height}" y2="{height}"/>'
                + text(LEFT - 6, height + 3.5, number(value), "end")
            )

    def x(self, value: float) -> float:
        """Pixels from the left."""
        low, high = self.x_range
        part = (value - low) / (high - low) if high > low else 0.5
        return round(LEFT + part * (WIDTH - LEFT - RIGHT), 1)

    def y(self, value: float) -> float:
        """Pixels from the top."""
        low, high = self.y_range
        part = (value - low) / (high - low)
        return round(HEIGHT - BOTTOM - part * (HEIGHT - BOTTOM - self.top), 1)

    def path(self, points: Sequence[tuple[float, float]]) -> str:
        """A line's points in pixels, as the attribute of a polyline."""
        (left, right), (low, high) = self.x_range, self.y_range
        wide = (WIDTH - LEFT - RIGHT) / (right - left) if right > left else 0.0
        start = LEFT if wide else LEFT + 0.5 * (WIDTH - LEFT - RIGHT)
        tall, floor = (HEIGHT - BOTTOM - self.top) / (high - low), HEIGHT - BOTTOM
        return " ".join(
            f"{start + wide * (x - left):.1f},{floor - tall * (y - low):.1f}" for x, y in points
        )

    def x_tick(self, position: float, label: str) -> None:
        """A label below the plot, at pixels from the left."""
        self.parts.append(text(position, HEIGHT - 8, label))

    def legend(self, colours: Sequence[str]) -> None:
        """Write the names, each in its colour."""
        for (name, (left, line)), colour in zip(self.names.items(), colours, strict=False):
            self.parts.append(text(left, 32 + LINE * line, name, "start", colour))

    def svg(self) -> str:
        """The finished plot."""
        return "".join([*self.parts, "</svg>"])


def _legend(names: Sequence[str]) -> dict[str, tuple[float, int]]:
    """Where each name stands: its left end and its line; what does not fit begins a new line.

    >>> _legend(["one", "two", "a name that is as long as the whole plot"])["two"][1]
    0
    >>> _legend(["one", "two", "a name that is as long as the whole plot"]).popitem()[1]
    (44.0, 1)
    """
    places: dict[str, tuple[float, int]] = {}
    left, line = float(LEFT), 0
    for name in names:
        width = 6.2 * len(name) + 10
        if places and left + width > WIDTH - RIGHT + 10:
            left, line = float(LEFT), line + 1
        places[name] = left, line
        left += width
    return places
