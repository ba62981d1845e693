"""What `paravt data validate` finds beside the rows' problems: files absent, broken or short.

Before the journey. A pure walk over the tasks, which opens files and prints nothing. Tests:
`pytest tests/tasksets/test_tasksets_cli.py`.
"""

from __future__ import annotations

from collections.abc import Iterator

from paravt_env.span import parse_span
from paravt_env.tasksets.base import TaskList, missing_videos, unreadable_subtitles
from paravt_env.tasksets.rows import Problem
from paravt_env.video.store.store import FrameStore
from paravt_env.video.types import VideoError


def absent_videos(tasks: TaskList) -> Iterator[Problem]:
    """One problem for each video that is not there, at the first row that names it."""
    missing = missing_videos(tasks)
    for task in tasks:
        if count := missing.pop(task.video, 0):
            message = f"no such file: {task.video} ({count} tasks)"
            yield Problem(tasks.place_of(task.id), "video", message)


def broken_subtitles(tasks: TaskList) -> Iterator[Problem]:
    """Read every file of subtitles that is there, once: one problem for each that cannot be."""
    looked: set[str] = set(tasks.missing_subtitles)
    for task in tasks:
        path = getattr(task.subtitles, "path", "")
        if path in looked:
            continue
        looked.add(path)
        if (error := unreadable_subtitles(task)) is not None:
            yield Problem(tasks.place_of(task.id), "subtitles", str(error))


def broken_videos(tasks: TaskList) -> Iterator[Problem]:
    """Open every video that is there: those that cannot be read, evidence past the end."""
    store = FrameStore()
    durations: dict[str, float] = {}
    missing = missing_videos(tasks)
    try:
        for task in tasks:
            if task.video in missing:
                continue
            place = tasks.place_of(task.id)
            if task.video not in durations:
                try:
                    durations[task.video] = store.info(task.video).duration
                except VideoError as error:
                    durations[task.video] = 0.0
                    yield Problem(place, "video", str(error))
            duration = durations[task.video]
            gold = parse_span(task.answer) if task.kind == "grounding" else None
            spans = {"evidence": task.evidence, "answer": (gold,) if gold else ()}
            for field, values in spans.items():
                if duration and any(end > duration for _, end in values):
                    end = max(end for _, end in values)
                    message = f"ends at {end:g} s, the video at {duration:g} s"
                    yield Problem(place, field, message)
    finally:
        store.close()
