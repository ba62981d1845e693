"""The report's charts as inline SVG: lines over steps, means with intervals, a video's time line.

Last stretch of the journey: numbers in, markup out; no script, no style sheet from outside, no I/O.
Every text is escaped here, because some of it was written by a model. Run the examples with `python
-m doctest train/report/charts.py`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import NamedTuple

from train.evaluation.bootstrap import Interval

COLOURS = (
    "#0b6e99", "#d9730d", "#448361", "#9065b0", "#c14c8a", "#6b7280", "#b08900", "#2aa198",
    "#8c564b", "#1f2933",
)  # fmt: skip
BEFORE, AFTER, GOLD, FAILED = "#8a94a6", "#0b6e99", "#448361", "#c4554d"
WIDTH, HEIGHT = 340, 220
LEFT, RIGHT, TOP, BOTTOM = 44, 12, 44, 26
LINE = 13
"""Height of a further line of the legend."""
SMOOTHING = 9
"""Steps of the running mean that is drawn over the raw values."""


class Span(NamedTuple):
    """A stretch of a video in seconds."""

    start: float
    end: float
    label: str = ""
    ok: bool = True


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


def _axis(low: float, high: float) -> tuple[float, float]:
    """A range of some height around the values; near zero, or for one value, it starts at zero."""
    if math.isclose(low, high):  # a mean of equal values rounds
        low = high
    if 0 <= low < 0.6 * high or 0 < low == high:
        low = 0.0
    margin = 0.06 * (high - low) or 0.1 * abs(high) or 1.0
    return (low if low == 0 else low - margin), high + margin


def _number(value: float) -> str:
    return f"{value:.4g}"


def _text(x: float, y: float, text: str, anchor: str = "middle", colour: str = "") -> str:
    style = f' style="fill:{colour}"' if colour else ""
    where = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f'<text class="tick" {where}{style}>{escape(text)}</text>'


class _Plot:
    """Data coordinates to pixels, and the frame around a plot, below a legend of several names."""

    def __init__(
        self, title: str, x: tuple[float, float], y: tuple[float, float], names: Sequence[str] = ()
    ) -> None:
        self.x_range, self.y_range = x, y
        self.names = _legend(names) if len(names) > 1 else {}
        self.top = TOP + LINE * max((line for _, line in self.names.values()), default=0)
        self.parts = [
            f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
            f'<text class="title" x="{LEFT}" y="16">{escape(title)}</text>',
        ]
        for value in ticks(*y):
            height = self.y(value)
            self.parts.append(
                f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{height}" y2="{height}"/>'
                + _text(LEFT - 6, height + 3.5, _number(value), "end")
            )

    def x(self, value: float) -> float:
        low, high = self.x_range
        part = (value - low) / (high - low) if high > low else 0.5
        return round(LEFT + part * (WIDTH - LEFT - RIGHT), 1)

    def y(self, value: float) -> float:
        low, high = self.y_range
        part = (value - low) / (high - low)
        return round(HEIGHT - BOTTOM - part * (HEIGHT - BOTTOM - self.top), 1)

    def x_tick(self, position: float, label: str) -> None:
        self.parts.append(_text(position, HEIGHT - 8, label))

    def legend(self, colours: Sequence[str]) -> None:
        for (name, (left, line)), colour in zip(self.names.items(), colours, strict=False):
            self.parts.append(_text(left, 32 + LINE * line, name, "start", colour))

    def svg(self) -> str:
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


def running_mean(values: Sequence[float], width: int = SMOOTHING) -> list[float]:
    """Mean of the last `width` values at each place (of fewer at the start).

    >>> running_mean([2.0, 4.0, 6.0], 2)
    [2.0, 3.0, 5.0]
    """
    windows = (values[max(0, i + 1 - width) : i + 1] for i in range(len(values)))
    return [math.fsum(window) / len(window) for window in windows]


def line_chart(title: str, series: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """Lines over training steps: the values faint, their running mean strong.

    Args:
        title: Above the plot.
        series: Points (step, finite value) of each line, by name.
    """
    drawn = {name: points for name, points in series.items() if points}
    if not drawn:
        return ""
    xs = [x for points in drawn.values() for x, _ in points]
    ys = [y for points in drawn.values() for _, y in points]
    plot = _Plot(title, (min(xs), max(xs)), _axis(min(ys), max(ys)), list(drawn))
    colours = [COLOURS[i % len(COLOURS)] for i in range(len(drawn))]
    for (name, points), colour in zip(drawn.items(), colours, strict=True):
        smooth = running_mean([y for _, y in points])
        for values, kind in (([y for _, y in points], "raw"), (smooth, "line")):
            path = " ".join(
                f"{plot.x(x)},{plot.y(y)}" for (x, _), y in zip(points, values, strict=True)
            )
            plot.parts.append(
                f'<polyline class="{kind}" points="{path}" style="stroke:{colour}">'
                f"<title>{escape(name)}: {_number(smooth[-1])}</title></polyline>"
            )
    for step in ticks(min(xs), max(xs)):
        plot.x_tick(plot.x(step), _number(step))
    plot.legend(colours)
    return plot.svg()


def recent_mean(
    points: Sequence[tuple[float, float]], step: float, width: int = SMOOTHING
) -> float | None:
    """Mean of the values of the last `width` steps up to `step`; None where none has one.

    >>> recent_mean([(1, 2.0), (2, 4.0), (9, 8.0)], 3), recent_mean([(1, 2.0)], 40)
    (3.0, None)
    """
    values = [y for x, y in points if step - width < x <= step]
    return math.fsum(values) / len(values) if values else None


def seeds_chart(
    title: str, runs: Mapping[str, Sequence[Sequence[tuple[float, float]]]], width: int = SMOOTHING
) -> str:
    """Lines over training steps: the mean of several seeds, in a band from the least to the most.

    Each seed's curve is its `recent_mean`; where a seed has none, the others go on without it.

    Args:
        title: Above the plot.
        runs: Points (step, finite value) of each seed, by name. A name keeps its place's colour,
            and has no line where it has no points.
        width: Steps of the mean.
    """
    curves: dict[str, list[tuple[float, float, float, float]]] = {}
    for name, seeds in runs.items():
        for x in sorted({x for points in seeds for x, _ in points}):
            found = [recent_mean(points, x, width) for points in seeds]
            ys = [y for y in found if y is not None]
            mean = math.fsum(ys) / len(ys)
            curves.setdefault(name, []).append((x, min(ys), mean, max(ys)))
    if not curves:
        return ""
    drawn = [point for points in curves.values() for point in points]
    xs = [x for x, *_ in drawn]
    values = _axis(min(low for _, low, _, _ in drawn), max(high for *_, high in drawn))
    plot = _Plot(title, (min(xs), max(xs)), values, list(curves))
    places = {name: place for place, name in enumerate(runs)}
    colours = [COLOURS[places[name] % len(COLOURS)] for name in curves]

    def path(points: Iterable[tuple[float, float]]) -> str:
        return " ".join(f"{plot.x(x)},{plot.y(y)}" for x, y in points)

    for (name, points), colour in zip(curves.items(), colours, strict=True):
        if any(low < high for _, low, _, high in points):
            least = [(x, low) for x, low, _, _ in points]
            most = [(x, high) for x, _, _, high in reversed(points)]
            plot.parts.append(
                f'<polygon class="band" points="{path(least + most)}" style="fill:{colour}"/>'
            )
        plot.parts.append(
            f'<polyline class="line" points="{path((x, y) for x, _, y, _ in points)}" '
            f'style="stroke:{colour}"><title>{escape(name)}: {_number(points[-1][2])}'
            "</title></polyline>"
        )
    for step in ticks(min(xs), max(xs)):
        plot.x_tick(plot.x(step), _number(step))
    plot.legend(colours)
    return plot.svg()


def interval_chart(title: str, groups: Mapping[str, Mapping[str, Interval]]) -> str:
    """Means with their intervals, side by side for each group (a frame budget, say).

    Args:
        title: Above the plot.
        groups: Group -> name (before, after) -> interval.
    """
    intervals = [item for group in groups.values() for item in group.values()]
    if not intervals:
        return ""
    names = list(dict.fromkeys(name for group in groups.values() for name in group))
    colours = [BEFORE, AFTER] if len(names) == 2 else list(COLOURS[: len(names)])
    low, high = min(item.low for item in intervals), max(item.high for item in intervals)
    plot = _Plot(title, (-0.5, len(groups) - 0.5), _axis(low, high), names)
    for place, (group, members) in enumerate(groups.items()):
        plot.x_tick(plot.x(place), group)
        for name, item in members.items():
            side = names.index(name)
            x = round(plot.x(place) + 12 * (side - (len(names) - 1) / 2), 1)
            low_y, high_y = plot.y(item.low), plot.y(item.high)
            plot.parts.append(
                f'<g style="stroke:{colours[side]};fill:{colours[side]}">'
                f"<title>{escape(name)} {escape(group)}: {item.mean:.3f} "
                f"[{item.low:.3f}, {item.high:.3f}], n = {item.rows}</title>"
                f'<line class="whisker" x1="{x}" x2="{x}" y1="{low_y}" y2="{high_y}"/>'
                f'<circle cx="{x}" cy="{plot.y(item.mean)}" r="4"/></g>'
            )
    plot.legend(colours)
    return plot.svg()


def frames_chart(title: str, curves: Mapping[str, Mapping[int, Interval]]) -> str:
    """Means with their intervals over the number of frames, on a logarithmic axis, joined by lines.

    Args:
        title: Above the plot.
        curves: Name -> frames (0 stands left of 1) -> interval.
    """
    drawn = {name: dict(sorted(points.items())) for name, points in curves.items() if points}
    intervals = [item for points in drawn.values() for item in points.values()]
    if not intervals:
        return ""
    budgets = sorted({frames for points in drawn.values() for frames in points})
    places = {frames: math.log2(frames) if frames else -1.0 for frames in budgets}
    low, high = min(item.low for item in intervals), max(item.high for item in intervals)
    margin = 0.04 * (max(places.values()) - min(places.values()))
    ends = (min(places.values()) - margin, max(places.values()) + margin)
    plot = _Plot(title, ends, _axis(low, high), list(drawn))
    colours = [COLOURS[i % len(COLOURS)] for i in range(len(drawn))]
    for (name, points), colour in zip(drawn.items(), colours, strict=True):
        path = " ".join(f"{plot.x(places[k])},{plot.y(item.mean)}" for k, item in points.items())
        plot.parts.append(
            f'<polyline class="line" points="{path}" style="stroke:{colour};fill:none"/>'
        )
        for frames, item in points.items():
            x = plot.x(places[frames])
            plot.parts.append(
                f'<g style="stroke:{colour};fill:{colour}"><title>{escape(name)} {frames} frames: '
                f"{item.mean:.3f} [{item.low:.3f}, {item.high:.3f}], n = {item.rows}</title>"
                f'<line class="whisker" x1="{x}" x2="{x}" y1="{plot.y(item.low)}" '
                f'y2="{plot.y(item.high)}"/><circle cx="{x}" cy="{plot.y(item.mean)}" r="3"/></g>'
            )
    for frames in budgets:
        plot.x_tick(plot.x(places[frames]), str(frames))
    plot.legend(colours)
    return plot.svg()


def timeline(
    duration: float, overview: Sequence[float], lanes: Mapping[str, Sequence[Span]]
) -> str:
    """A video's time line: instants of the overview frames, and one lane of spans a name.

    Args:
        duration: Of the video, seconds.
        overview: Instants of the overview frames, seconds.
        lanes: Spans by lane; those that did not run (`ok` false) are drawn hollow.
    """
    width, left, lane_height = 720, 70, 18
    height = lane_height * (len(lanes) + 1) + 24

    def x(seconds: float) -> float:
        part = min(max(seconds / duration, 0.0), 1.0) if duration > 0 else 0.0
        return round(left + part * (width - left - 14), 1)

    def name(text: str, y: float) -> str:
        return _text(left - 8, y + 12, text, "end")

    parts = [
        f'<svg class="timeline" viewBox="0 0 {width} {height}" role="img" aria-label="time line">'
    ]
    parts.append(name("overview", 0))
    parts += [
        f'<line class="instant" x1="{x(t)}" x2="{x(t)}" y1="3" y2="15">'
        f"<title>{t:.1f} s</title></line>"
        for t in overview
    ]
    for place, (lane, spans) in enumerate(lanes.items(), 1):
        y = place * lane_height
        parts.append(name(lane, y))
        parts.append(
            f'<line class="grid" x1="{left}" x2="{width - 14}" y1="{y + 9}" y2="{y + 9}"/>'
        )
        for start, end, label, ok in spans:
            wide = max(round(x(end) - x(start), 1), 3.0)
            colour = (GOLD if lane == "gold" else AFTER) if ok else FAILED
            parts.append(
                f'<rect x="{x(start)}" y="{y + 3}" width="{wide}" height="12" rx="2" '
                f'style="stroke:{colour};fill:{colour if ok else "none"}">'
                f"<title>{start:.1f}-{end:.1f} s {escape(label)}</title></rect>"
            )
    for t in (60 * minute for minute in ticks(0.0, duration / 60, 7)):
        parts.append(_text(x(t), height - 6, _clock(t)))
    return "".join([*parts, "</svg>"])


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def grid(charts: Sequence[str], columns: int = 2, note: str = "") -> str:
    """Charts of the standard size side by side, as one SVG file that brings its own style.

    Args:
        charts: What the functions above drew.
        columns: Charts beside each other.
        note: A line below them.
    """
    rows = math.ceil(len(charts) / columns)
    places = [(WIDTH * (i % columns), HEIGHT * (i // columns)) for i in range(len(charts))]
    inner = "".join(
        chart.replace("<svg ", f'<svg x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}" ', 1)
        for chart, (x, y) in zip(charts, places, strict=True)
    )
    style = (
        "text{font:11px sans-serif;fill:#6b7280}.title{font-size:13px;fill:#1f2933}"
        ".grid{stroke:#e3e6ea}.line{fill:none;stroke-width:2}"
        ".raw{fill:none;stroke-width:1;opacity:.25}.band{stroke:none;opacity:.15}"
    )
    height = HEIGHT * rows
    if note:
        inner += _text(LEFT, height + 14, note, "start")
        height += 24
    size = f"{WIDTH * columns} {height}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size}" width="{WIDTH * columns}">'
        f'<style>{style}</style><rect width="100%" height="100%" fill="#fff"/>{inner}</svg>\n'
    )
