"""The report's charts as inline SVG: lines over steps, means with intervals, curves over frames.

Last stretch of the journey: numbers in, markup out; no script, no style sheet from outside, no I/O.
Every text is escaped, because some of it was written by a model. Run the examples with `python -m
doctest train/report/charts.py`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from train.evaluation.bootstrap import Interval
from train.report.plot import HEIGHT, LEFT, WIDTH, Plot, axis, number, text, ticks

COLOURS = (
    "#0b6e99", "#d9730d", "#448361", "#9065b0", "#c14c8a", "#6b7280", "#b08900", "#2aa198",
    "#8c564b", "#1f2933",
)  # fmt: skip
BEFORE, AFTER = "#8a94a6", "#0b6e99"
SMOOTHING = 9
"""Steps of the running mean over the raw values."""
MOST_POINTS = 300
"""Points of a line that are drawn: more than a plot has pixels from left to right (284)."""


def running_mean(values: Sequence[float], width: int = SMOOTHING) -> list[float]:
    """Mean of the last `width` values at each place (of fewer at the start).

    >>> running_mean([2.0, 4.0, 6.0], 2)
    [2.0, 3.0, 5.0]
    """
    start = [math.fsum(values[: i + 1]) / (i + 1) for i in range(min(width - 1, len(values)))]
    if len(values) < width:
        return start
    windows_NW = sliding_window_view(np.asarray(values, dtype=float), width)
    return [*start, *windows_NW.mean(axis=1).tolist()]


def thinned(
    points: Sequence[tuple[float, float]], most: int = MOST_POINTS
) -> list[tuple[float, float]]:
    """The points that a plot of a few hundred pixels can show: least and greatest of each stretch.

    >>> thinned([(0, 5.0), (1, 9.0), (2, 1.0), (3, 2.0)], 2)
    [(1, 9.0), (2, 1.0)]
    >>> thinned([(0, 5.0), (1, 9.0)], 2)
    [(0, 5.0), (1, 9.0)]
    """
    if len(points) <= most:
        return list(points)
    width = math.ceil(len(points) / max(1, most // 2))
    rows = math.ceil(len(points) / width)
    values = [y for _, y in points]
    values += values[-1:] * (rows * width - len(points))
    values_RW = np.array(values).reshape(rows, width)
    ends_R2 = np.stack([values_RW.argmin(axis=1), values_RW.argmax(axis=1)], axis=1)
    places_R2 = ends_R2 + width * np.arange(rows)[:, None]
    last = len(points) - 1
    return [points[place] for place in sorted({min(p, last) for p in places_R2.ravel().tolist()})]


def line_chart(title: str, series: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """Lines over training steps: the values faint, their running mean strong.

    Args:
        title: Above the plot.
        series: Points (step, finite value) of each line, by name.
    """
    shown = {name: points for name, points in series.items() if points}
    if not shown:
        return ""
    xs = [x for points in shown.values() for x, _ in points]
    ys = [y for points in shown.values() for _, y in points]
    plot = Plot(title, (min(xs), max(xs)), axis(min(ys), max(ys)), list(shown))
    colours = [COLOURS[i % len(COLOURS)] for i in range(len(shown))]
    for (name, points), colour in zip(shown.items(), colours, strict=True):
        smooth = running_mean([y for _, y in points])
        means = [(x, y) for (x, _), y in zip(points, smooth, strict=True)]
        for shown_points, kind in ((points, "raw"), (means, "line")):
            path = plot.path(thinned(shown_points))
            plot.parts.append(
                f'<polyline class="{kind}" points="{path}" stroke="{colour}">'
                f"<title>{escape(name)}: {number(smooth[-1])}</title></polyline>"
            )
    for step in filter(float.is_integer, map(float, ticks(min(xs), max(xs)))):
        plot.x_tick(plot.x(step), number(step))
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

    Each seed's curve is its `recent_mean`; where a seed has none, the mean is over the others.

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
    shown = [point for points in curves.values() for point in points]
    xs = [x for x, *_ in shown]
    values = axis(min(low for _, low, _, _ in shown), max(high for *_, high in shown))
    plot = Plot(title, (min(xs), max(xs)), values, list(curves))
    places = {name: place for place, name in enumerate(runs)}
    colours = [COLOURS[places[name] % len(COLOURS)] for name in curves]

    def path(points: Iterable[tuple[float, float]]) -> str:
        return " ".join(f"{plot.x(x)},{plot.y(y)}" for x, y in points)

    for (name, points), colour in zip(curves.items(), colours, strict=True):
        if any(low < high for _, low, _, high in points):
            least = [(x, low) for x, low, _, _ in points]
            most = [(x, high) for x, _, _, high in reversed(points)]
            plot.parts.append(
                f'<polygon class="band" points="{path(least + most)}" fill="{colour}"/>'
            )
        plot.parts.append(
            f'<polyline class="line" points="{path((x, y) for x, _, y, _ in points)}" '
            f'stroke="{colour}"><title>{escape(name)}: {number(points[-1][2])}'
            "</title></polyline>"
        )
    for step in ticks(min(xs), max(xs)):
        plot.x_tick(plot.x(step), number(step))
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
    plot = Plot(title, (-0.5, len(groups) - 0.5), axis(low, high), names)
    for place, (group, members) in enumerate(groups.items()):
        plot.x_tick(plot.x(place), group)
        for name, item in members.items():
            side = names.index(name)
            x = round(plot.x(place) + 12 * (side - (len(names) - 1) / 2), 1)
            low_y, high_y = plot.y(item.low), plot.y(item.high)
            plot.parts.append(
                f'<g stroke="{colours[side]}" fill="{colours[side]}">'
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
    shown = {name: dict(sorted(points.items())) for name, points in curves.items() if points}
    intervals = [item for points in shown.values() for item in points.values()]
    if not intervals:
        return ""
    budgets = sorted({frames for points in shown.values() for frames in points})
    places = {frames: math.log2(frames) if frames else -1.0 for frames in budgets}
    low, high = min(item.low for item in intervals), max(item.high for item in intervals)
    margin = 0.04 * (max(places.values()) - min(places.values()))
    ends = (min(places.values()) - margin, max(places.values()) + margin)
    plot = Plot(title, ends, axis(low, high), list(shown))
    colours = [COLOURS[i % len(COLOURS)] for i in range(len(shown))]
    for (name, points), colour in zip(shown.items(), colours, strict=True):
        path = " ".join(f"{plot.x(places[k])},{plot.y(item.mean)}" for k, item in points.items())
        plot.parts.append(f'<polyline class="line" points="{path}" stroke="{colour}" fill="none"/>')
        for frames, item in points.items():
            x = plot.x(places[frames])
            plot.parts.append(
                f'<g stroke="{colour}" fill="{colour}"><title>{escape(name)} {frames} frames: '
                f"{item.mean:.3f} [{item.low:.3f}, {item.high:.3f}], n = {item.rows}</title>"
                f'<line class="whisker" x1="{x}" x2="{x}" y1="{plot.y(item.low)}" '
                f'y2="{plot.y(item.high)}"/><circle cx="{x}" cy="{plot.y(item.mean)}" r="3"/></g>'
            )
    for frames in budgets:
        plot.x_tick(plot.x(places[frames]), str(frames))
    plot.legend(colours)
    return plot.svg()


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
        "text{font:11px sans-serif}text:not([fill]){fill:#6b7280}"
        "text.title{font-size:13px;fill:#1f2933}"
        ".grid{stroke:#e3e6ea}.line{fill:none;stroke-width:2}"
        ".raw{fill:none;stroke-width:1;opacity:.25}.band{stroke:none;opacity:.15}"
    )
    height = HEIGHT * rows
    if note:
        inner += text(LEFT, height + 14, note, "start")
        height += 24
    size = f"{WIDTH * columns} {height}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size}" width="{WIDTH * columns}">'
        f'<style>{style}</style><rect width="100%" height="100%" fill="#fff"/>{inner}</svg>\n'
    )
