"""Recorded episodes again: as text for the terminal, and as an HTML page beside the recording.

After the journey, for a folder that `paravt_env.show.recording` wrote. The page shows the
recording's own picture files, so it moves with the folder; whatever a model wrote is escaped, and
there is no script. Run `paravt replay FOLDER`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from paravt_env.show.render import clock
from paravt_env.spaces import OVERVIEW
from train.report.page import STYLE, write_html
from train.report.timeline import Stretch, timeline

PAGE = "replay.html"

Recorded = Mapping[str, Any]
"""An episode as `paravt_env.show.recording` wrote it."""


def write_page(folder: Path, episodes: Sequence[Recorded]) -> Path:
    """Write the page of recorded episodes into the recording's folder; returns its path."""
    return write_html(folder / PAGE, as_page(folder.resolve().name, episodes))


def as_text(episode: Recorded) -> str:
    """One episode, turn by turn."""
    lines = [_title(episode), *_indent(episode["task"]["question"])]
    for number, turn in enumerate(episode["turns"], 1):
        seen = _seen(turn)
        lines += [f"  turn {number}: {text}" for text in seen]
        lines += [f"  turn {number}: {line}" for line in turn["feedback"].splitlines()]
        action = turn["action"]
        if action is not None:
            lines += _indent(action["completion"], "    > ")
            lines += [f"    crop {_crop(crop)}" for crop in action["crops"]]
            if action["answer"]:
                lines.append(f"    answer {action['answer']!r}")
    return "\n".join([*lines, f"  {_verdict(episode)}", ""])


def as_page(name: str, episodes: Sequence[Recorded]) -> str:
    """The episodes as an HTML page for the recording's own folder."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f"<title>{escape(name)}</title><style>{STYLE.read_text(encoding='utf-8')}</style></head>"
        f"<body><h1>{escape(name)}</h1><p class=lead>{len(episodes)} episodes</p>"
        f"{''.join(map(_section, episodes))}</body></html>\n"
    )


def _section(episode: Recorded) -> str:
    task = episode["task"]
    parts = [f"<div class=rollout><h3>{escape(_title(episode))}</h3>"]
    parts.append(f"<pre>{escape(task['question'])}</pre>{_timeline(episode)}")
    for number, turn in enumerate(episode["turns"], 1):
        if not turn["frames"] and not turn["feedback"] and turn["action"] is None:
            continue
        forced = " (must answer)" if turn["must_answer"] else ""
        parts.append(f'<p class="soft">turn {number}{forced}: {escape("; ".join(_seen(turn)))}</p>')
        parts.append(f"<div class=frames>{''.join(map(_figure, turn['frames']))}</div>")
        if turn["feedback"]:
            parts.append(f"<p class=wrong>{escape(turn['feedback'])}</p>")
        action = turn["action"]
        if action is not None:
            if action["completion"]:
                parts.append(f"<pre>{escape(action['completion'])}</pre>")
            parts += [f'<p class="soft">crop {escape(_crop(crop))}</p>' for crop in action["crops"]]
            if action["answer"]:
                parts.append(f"<p>answer {escape(action['answer'])}</p>")
    return "".join([*parts, f"<p>{escape(_verdict(episode))}</p></div>"])


def _figure(frame: Mapping[str, Any]) -> str:
    where = "" if frame["window"] == OVERVIEW else f" · call {frame['window']}"
    return (
        f'<figure><img alt="" loading="lazy" src="{escape(frame["file"])}">'
        f"<figcaption>{clock(frame['time'])}{where}</figcaption></figure>"
    )


def _timeline(episode: Recorded) -> str:
    duration = episode["video"].get("duration")
    if not duration:
        return ""
    turns = episode["turns"]
    instants = [f["time"] for f in turns[0]["frames"] if f["window"] == OVERVIEW]
    tracks = {"gold": [Stretch(a, b, "gold evidence") for a, b in episode["task"]["evidence"]]}
    for number, turn in enumerate(turns, 1):
        crops = turn["action"]["crops"] if turn["action"] else []
        spans = [
            Stretch(start, end, crop["status"], crop["status"] == "ok")
            for crop in crops
            for start, end in [crop["window"]]
            if None not in (start, end)
        ]
        if spans:
            tracks[f"turn {number}"] = spans
    return timeline(duration, instants, tracks)


def _title(episode: Recorded) -> str:
    task = episode["task"]
    parts = [f"episode {episode['episode']}", f"task {task['id']}", f"gold {task['answer']}"]
    return " · ".join([*parts, f"K = {episode['frame_budget']}"])


def _seen(turn: Mapping[str, Any]) -> list[str]:
    """Which frames a turn showed: the overview, then each call's."""
    times: dict[int, list[float]] = {}
    for frame in turn["frames"]:
        times.setdefault(int(frame["window"]), []).append(float(frame["time"]))
    return [
        f"{'overview' if window == OVERVIEW else f'call {window}'}: {len(inside)} frames, "
        f"{clock(min(inside))} to {clock(max(inside))}"
        for window, inside in sorted(times.items())
    ]


def _crop(crop: Mapping[str, Any]) -> str:
    start, end = crop["window"]
    where = "no window" if None in (start, end) else f"{start:.1f}-{end:.1f} s"
    message = f" ({crop['message']})" if crop.get("message") else ""
    return f"{where}: {crop['status']}, {crop['frames']} frames{message}"


def _verdict(episode: Recorded) -> str:
    if not episode["finished"]:
        return "unfinished"
    if episode.get("error"):
        return f"{episode['stop_reason']}: {episode['error']}"
    terms = ", ".join(f"{name} {value:.2f}" for name, value in episode["reward_terms"].items())
    return f"answer {episode['answer']!r}, {episode['stop_reason']}, reward: {terms}"


def _indent(text: str, start: str = "  ") -> list[str]:
    return [f"{start}{line}" for line in text.splitlines() if line.strip()]
