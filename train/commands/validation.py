"""What is wrong with the videos of a task set: absent, unreadable, shorter than their evidence.

The look that `paravt data validate --open` takes before a run does: it reads what a reset and crops
would read, so that what it passes plays. Needs the core installation alone. Run the tests with
`pytest tests/tasksets/test_tasksets_cli.py`.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from paravt_env.settings import EnvSettings
from paravt_env.span import parse_span
from paravt_env.task import TaskError
from paravt_env.tasksets.base import TaskList, missing_videos
from paravt_env.tasksets.rows import Problem
from paravt_env.tasksets.subtitle_files import SubtitleFile
from paravt_env.video.pictures import Pictures
from paravt_env.video.sampler import overview_times, window_times
from paravt_env.video.store.store import FrameStore
from paravt_env.video.types import VideoError

SIZE = (36, 64)
"""Height and width of the frames that are read; their cost is the decoding."""
OVERVIEW, THOROUGH_OVERVIEWS = 8, (16, 64)
WINDOWS, WINDOW_SECONDS, WINDOW_FRAMES = 20, 20.0, 16


def absent_videos(tasks: TaskList) -> Iterator[Problem]:
    """One problem for each video or image that is not there, at the first row that names it."""
    missing = missing_videos(tasks)
    for task in tasks:
        for path in task.images or (task.video,):
            if count := missing.pop(path, 0):
                message = f"no such file: {path} ({count} tasks)"
                field = "images" if task.images else "video"
                yield Problem(tasks.place_of(task.id), field, message)


def broken_subtitles(tasks: TaskList) -> Iterator[Problem]:
    """One problem for each subtitle file that cannot be read, or whose cues are left out."""
    seen: set[str] = set()
    for task in tasks:
        lines = task.subtitles
        if not isinstance(lines, SubtitleFile) or lines.path in seen:
            continue
        seen.add(lines.path)
        place = tasks.place_of(task.id)
        try:
            if lines.skipped:
                message = f"{lines.path}: {lines.skipped} cues left out, {len(lines)} read: times "
                yield Problem(place, "subtitles", f"{message}reversed, negative or unreadable")
        except TaskError as error:
            yield Problem(place, "subtitles", str(error))


def broken_videos(tasks: TaskList, thorough: bool = False) -> Iterator[Problem]:
    """Read every video and image that is there: those that fail, evidence past the end.

    Args:
        tasks: The set.
        thorough: Whether overviews of many frames and random windows are read as well.
    """
    store = FrameStore()
    pictures = Pictures(EnvSettings.picture_pixels)
    durations: dict[str, float] = {}
    missing = missing_videos(tasks)
    try:
        for task in tasks:
            for path in task.images:
                try:
                    if path not in missing:
                        pictures.read(path)
                except VideoError as error:
                    yield Problem(tasks.place_of(task.id), "images", str(error))
            if task.images:
                continue
            if task.video in missing:
                continue
            place = tasks.place_of(task.id)
            if task.video not in durations:
                try:
                    durations[task.video] = played(store, task.video, thorough)
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


def played(store: FrameStore, path: str, thorough: bool) -> float:
    """The duration of a video in seconds, once what a reset and crops would read was read.

    Raises:
        VideoError: Something of it cannot be read.
    """
    duration = store.info(path).duration
    for times in moments(duration, thorough):
        store.frames(path, times, SIZE)
    return duration


def moments(duration: float, thorough: bool) -> Iterator[np.ndarray]:
    """The times at which a video is read: both ends, an overview, a crop in the middle.

    With `thorough` also overviews of `THOROUGH_OVERVIEWS` frames and `WINDOWS` random windows, the
    same in every run.
    """
    yield np.array([0.0, max(0.0, duration - 1e-3)])
    yield overview_times(duration, OVERVIEW)
    starts = [max(0.0, (duration - WINDOW_SECONDS) / 2)]
    if thorough:
        yield from (overview_times(duration, k) for k in THOROUGH_OVERVIEWS)
        free = max(0.0, duration - WINDOW_SECONDS)
        starts += np.random.default_rng(0).uniform(0.0, free, WINDOWS).tolist()
    for start in starts:
        end = min(duration, start + WINDOW_SECONDS)
        yield window_times(start, end, fps=1.0, max_frames=WINDOW_FRAMES)
