"""A reward's terms as bars that add up to it, as inline SVG.

Beside `train.report.charts`. Numbers in, markup out; every text is escaped. Tests: `pytest
tests/report`.
"""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from train.report.plot import text

GAIN, LOSS, TOTAL = "#448361", "#c4554d", "#0b6e99"
ROW, LABEL, SCALE, VALUE = 22, 150, 300, 60
"""Pixels of a bar's row, its name, the plot and the number beside it."""


def waterfall(terms: Mapping[str, float], total: float) -> str:
    """One bar a term, each from where the one before ended, then the total from zero.

    Args:
        terms: Weighted terms, which add up to `total`.
        total: The reward.
    """
    stretches: list[tuple[str, float, float, str]] = []
    at = 0.0
    for name, value in terms.items():
        stretches.append((name, at, at + value, GAIN if value >= 0 else LOSS))
        at += value
    stretches.append(("total", 0.0, total, TOTAL))
    ends = [0.0, *(end for _, *both, _ in stretches for end in both)]
    low, high = min(ends), max(ends)
    span = (high - low) or 1.0

    def x(value: float) -> float:
        return round(LABEL + SCALE * (value - low) / span, 1)

    height, width = ROW * len(stretches), LABEL + SCALE + VALUE
    parts = [
        f'<svg class="bars" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="reward terms, together {total:.3f}">',
        f'<line class="grid" x1="{x(0.0)}" x2="{x(0.0)}" y1="0" y2="{height}"/>',
    ]
    for row, (name, start, end, colour) in enumerate(stretches):
        y, left, right = row * ROW, min(x(start), x(end)), max(x(start), x(end))
        parts.append(text(LABEL - 8, y + 15, name, "end"))
        parts.append(
            f'<rect x="{left}" y="{y + 4}" width="{max(right - left, 1.5):.1f}" height="14" '
            f'fill="{colour}"><title>{escape(name)}: {end - start:+.3f}</title></rect>'
        )
        parts.append(text(right + 6, y + 15, f"{end - start:+.3f}", "start"))
    return "".join([*parts, "</svg>"])
