"""A video's time line as inline SVG: overview frames, gold evidence, the crops of each turn.

Beside `train.report.charts`, in the pages of `train.report.rollouts` and `train.report.replay`.
Tests: `pytest tests/report/test_report.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import NamedTuple

from train.report.plot import text, ticks

GOLD, RAN, FAILED = "#448361", "#0b6e99", "#c4554d"
"""Colours of the gold evidence, and of crops that ran and that did not."""


class Stretch(NamedTuple):
    """A stretch of a video in seconds, on its time line."""

    start: float
    end: float
    label: str = ""
    ok: bool = True


def timeline(
    duration: float,
    overview: Sequence[float],
    tracks: Mapping[str, Sequence[Stretch]],
    seek: bool = False,
) -> str:
    """A video's time line: instants of the overview frames, and one track of spans a name.

    Args:
        duration: Of the video, seconds.
        overview: Instants of the overview frames, seconds.
        tracks: Spans by track; those that did not run (`ok` false) are hollow.
        seek: Whether every mark is a link `#t=SECONDS`, for a page with a player.
    """
    width, left, track_height = 720, 70, 18
    height = track_height * (len(tracks) + 1) + 24

    def x(seconds: float) -> float:
        part = min(max(seconds / duration, 0.0), 1.0) if duration > 0 else 0.0
        return round(left + part * (width - left - 14), 1)

    def mark(start: float, what: str, drawn: str) -> str:
        if not seek:
            return drawn
        return (
            f'<a class="seek" href="#t={start:.2f}" aria-label="{escape(what)}, at {start:.1f} s">'
            f"{drawn}</a>"
        )

    def name(track: str, y: float) -> str:
        return text(left - 8, y + 12, track, "end")

    parts = [
        f'<svg class="timeline" viewBox="0 0 {width} {height}" role="{"group" if seek else "img"}" '
        f'aria-label="time line" data-left="{left}" data-right="{width - 14}" '
        f'data-duration="{duration:.3f}">'
    ]
    parts.append(name("overview", 0))
    parts += [
        mark(
            t,
            "overview frame",
            f'<line class="instant" x1="{x(t)}" x2="{x(t)}" y1="3" y2="15">'
            f"<title>{t:.1f} s</title></line>",
        )
        for t in overview
    ]
    for place, (track, spans) in enumerate(tracks.items(), 1):
        y = place * track_height
        parts.append(name(track, y))
        parts.append(
            f'<line class="grid" x1="{left}" x2="{width - 14}" y1="{y + 9}" y2="{y + 9}"/>'
        )
        for start, end, label, ok in spans:
            wide = max(round(x(end) - x(start), 1), 3.0)
            colour = (GOLD if track == "gold" else RAN) if ok else FAILED
            drawn = (
                f'<rect x="{x(start)}" y="{y + 3}" width="{wide}" height="12" rx="2" '
                f'stroke="{colour}" fill="{colour if ok else "none"}">'
                f"<title>{start:.1f}-{end:.1f} s {escape(label)}</title></rect>"
            )
            parts.append(mark(start, f"{track}: {label}", drawn))
    for t in (60 * minute for minute in ticks(0.0, duration / 60, 7)):
        parts.append(text(x(t), height - 6, _clock(t)))
    return "".join([*parts, "</svg>"])


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
