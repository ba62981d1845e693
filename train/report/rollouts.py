"""The report's rollouts: which are worth reading, their frames, crops on the time line, and text.

Last stop of the journey, beside `train.report.page`. Whatever a model wrote is hostile text and is
escaped here. Run the tests with `pytest tests/report/test_report.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape

import numpy as np

from paravt_env.common.images import data_uri
from paravt_env.settings import EnvSettings
from paravt_env.span import Span
from paravt_env.video import FrameStore, VideoError, overview_times
from paravt_env.video.pictures import Pictures, fitted, is_picture
from train.evaluation.row import EvalRow
from train.evaluation.scores import EvalReport
from train.report.timeline import Stretch, timeline

SHOWN_FRAMES = 12
FRAME_HEIGHT = 72
"""Pixels of a frame in the report."""
PICTURE_SIDE = 240
"""Pixels of the longer side of a picture in the report."""

Overview = tuple[np.ndarray, np.ndarray, float]
"""Pixels uint8 (N, H, W, 3), timestamps (N,) in seconds, duration of the video in seconds; of a
picture itself, and 0 seconds."""


def choose(
    before: EvalReport | None, after: EvalReport, count: int
) -> list[tuple[EvalRow, EvalRow | None]]:
    """Rows worth reading, each with its row of `before`: learned, lost, without a call, others."""
    first = {(row.task_id, row.frame_budget): row for row in before.rows} if before else {}
    pairs = [(row, first.get((row.task_id, row.frame_budget))) for row in after.rows]

    def gained(pair: tuple[EvalRow, EvalRow | None]) -> float:
        return pair[0].score - pair[1].score if pair[1] else pair[0].score

    wanted: list[Callable[[tuple[EvalRow, EvalRow | None]], bool]] = [
        lambda pair: gained(pair) > 0 and pair[0].parallel > 1,
        lambda pair: gained(pair) > 0 and pair[0].parallel == 1,
        lambda pair: pair[0].score > 0 and pair[0].calls == 0,
        lambda pair: gained(pair) < 0,
        lambda pair: pair[0].score == 0,
        lambda pair: True,
    ]
    fitting = [[place for place, pair in enumerate(pairs) if rule(pair)] for rule in wanted]
    chosen: list[int] = []  # places: comparing rows with each other costs more than playing some
    for places in fitting * count:
        if len(chosen) == count:
            break
        families = {pairs[place][0].family for place in chosen}
        fresh = [place for place in places if place not in chosen]
        fresh.sort(key=lambda place: pairs[place][0].family in families)
        chosen += fresh[:1]
    return [pairs[place] for place in chosen]


def read_overview(video: str, budget: int) -> Overview:
    """Decode the overview of K frames again, small, and at most `SHOWN_FRAMES` of them.

    Where the path is that of a picture, it is what is shown, scaled down.
    """
    if is_picture(video):
        picture = Pictures(EnvSettings().picture_pixels).read(video)
        scale = min(1.0, PICTURE_SIDE / max(picture.shape[:2]))
        height, width = (max(1, round(side * scale)) for side in picture.shape[:2])
        return fitted(picture, (height, width))[None], np.zeros(1), 0.0
    store = FrameStore()
    try:
        info = store.info(video)
        size = (FRAME_HEIGHT, max(2, round(FRAME_HEIGHT * info.width / info.height / 2) * 2))
        times = overview_times(info.duration, budget)
        shown = np.unique(np.linspace(0, budget - 1, min(budget, SHOWN_FRAMES)).round().astype(int))
        frames = store.frames(video, times[shown], size)
        return frames.pixels, frames.timestamps, info.duration
    finally:
        store.close()


def rollout_section(
    row: EvalRow, before: EvalRow | None, overview: Callable[[str, int], Overview]
) -> str:
    """One rollout as HTML: question, overview frames, time line, transcripts before and after."""
    tracks = {"before": _spans(before)} if before else {}
    tracks |= {"after": _spans(row)}
    look, shown = seen(row.video, row.frame_budget, row.evidence, tracks, overview)
    sides = [("Before", before)] if before else []
    columns = "".join(_transcript(title, side) for title, side in [*sides, ("After", row)])
    return (
        f"<div class=rollout><h3>{escape(row.family or row.kind)} · K = {row.frame_budget} · "
        f"gold {escape(row.gold)}</h3><pre>{escape(row.question)}</pre>"
        f'{look}<p class="soft">{escape(shown)} · {escape(row.task_id)}</p>'
        f"<div class=two>{columns}</div></div>"
    )


def seen(
    video: str,
    budget: int,
    evidence: Sequence[Span],
    tracks: Mapping[str, Sequence[Stretch]],
    overview: Callable[[str, int], Overview],
) -> tuple[str, str]:
    """Overview frames over a time line as HTML, and a sentence that says what is shown.

    Args:
        video: Its path.
        budget: Overview frames.
        evidence: Spans of the gold evidence, seconds.
        tracks: Further tracks of the time line.
        overview: Reads the frames; where it cannot, the sentence says why.
    """
    try:
        pixels, times, duration = overview(video, budget)
    except VideoError as error:
        return "", f"frames not available: {error}"
    if not duration:
        shown = "".join(f'<img alt="" src="{data_uri(image)}">' for image in pixels)
        return f"<div class=frames>{shown}</div>", "the task's first picture, scaled down"
    strip = "".join(
        f'<figure><img alt="" src="{data_uri(image)}"><figcaption>{t:.1f} s</figcaption></figure>'
        for image, t in zip(pixels, times, strict=True)
    )
    gold = {"gold": [Stretch(a, b, "gold evidence") for a, b in evidence]}
    line = timeline(duration, overview_times(duration, budget).tolist(), gold | dict(tracks))
    return (
        f"<div class=frames>{strip}</div>{line}",
        f"{len(times)} of {budget} overview frames",
    )


def _spans(row: EvalRow) -> list[Stretch]:
    crops = [crop for turn in row.turns for crop in turn.get("crops", ())]
    return [
        Stretch(crop["window"][0], crop["window"][1], crop["status"], crop["status"] == "ok")
        for crop in crops
        if None not in crop["window"]
    ]


def _transcript(title: str, row: EvalRow | None) -> str:
    if row is None:
        return ""
    verdict = f"<span class={'correct' if row.score > 0.5 else 'wrong'}>{row.score:.2f}</span>"
    parts = [f"<div><h3>{title}: {verdict} · answer {escape(row.answer or '(none)')}</h3>"]
    if row.error:
        parts.append(f"<p class=wrong>{escape(row.error)}</p>")
    for number, turn in enumerate(row.turns, 1):
        if turn.get("completion"):
            parts.append(f"<pre>{escape(turn['completion'])}</pre>")
        for crop in turn.get("crops", ()):
            start, end = crop["window"]
            where = "no window" if start is None or end is None else f"{start:.1f}-{end:.1f} s"
            reading = f": {crop['evidence']}" if crop.get("evidence") else ""
            text = (
                f"turn {number}, crop {where}, {crop['status']}, {crop['frames']} frames{reading}"
            )
            parts.append(f'<p class="soft">{escape(text)}</p>')
    return "".join([*parts, "</div>"])
