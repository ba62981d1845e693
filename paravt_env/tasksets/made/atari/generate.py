"""Record the videos and write the manifest of a split into a cache folder, atomically.

Last step of the `atari` task set. As for `synthetic`, a file is renamed when it is complete: after
an interruption nothing half-written is left, and running again continues with the first missing
video. Beside each video lies what its emulators knew, so that questions need no second recording.
Run `paravt data make atari`.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

from paravt_env.common.files import MADE_AGAIN, atomic_path
from paravt_env.common.progress import Progress
from paravt_env.task import Task
from paravt_env.tasksets.made.atari.plan import AtariSettings, VideoPlan, plan_video
from paravt_env.tasksets.made.atari.questions import make_tasks
from paravt_env.tasksets.made.atari.record import Recording, emulator_version, record
from paravt_env.tasksets.made.base import (
    dials_folder,
    open_dials_folder,
    write_manifest,
)

RECORDING_VERSION = 1  # raise when the same settings play or ask something else


def settings_folder(settings: AtariSettings, root: Path) -> Path:
    """Where the videos of these settings live: another setting or emulator has another folder."""
    versions = {"version": RECORDING_VERSION, "emulator": emulator_version()}
    return dials_folder(settings, root, versions)


def make_split(
    settings: AtariSettings, split: str, videos: int, root: Path, progress: bool = True
) -> Path:
    """Record what is missing of a split's first `videos` videos; return its manifest (JSONL).

    Videos are a function of (settings, split, index): asking for more later keeps those that exist.

    Raises:
        OSError: The folder cannot be written.
        TaskError: `ale-py` is not installed, or a video does not yield enough questions.
    """
    folder = settings_folder(settings, root)
    open_dials_folder(folder, settings)
    plans = [plan_video(settings, split, index) for index in range(videos)]
    missing = [plan for plan in plans if not all(p.exists() for p in _files(folder, plan))]
    total, done = sum(plan.duration for plan in missing), 0.0
    shown = Progress(f"atari {split}: recording", total, progress)
    for plan in missing:
        video, log = _files(folder, plan)
        bar = partial(_show, shown, done)
        with atomic_path(video, MADE_AGAIN) as path:
            recording = record(plan, settings.fps, path, bar)
        with atomic_path(log, MADE_AGAIN) as path:
            path.write_text(json.dumps(recording.as_dict()) + "\n")
        done += plan.duration
    if missing:
        _show(shown, total)
    tasks: list[Task] = []
    for index, plan in enumerate(plans):
        video, log = _files(folder, plan)
        recording = Recording.from_dict(plan, json.loads(log.read_text()))
        tasks += make_tasks(recording, settings, index, f"videos/{video.name}")
    return write_manifest(folder, split, videos, tasks)


def _files(folder: Path, plan: VideoPlan) -> tuple[Path, Path]:
    """A video and what its emulators knew; the second is written last."""
    return folder / "videos" / f"{plan.name}.mp4", folder / "videos" / f"{plan.name}.json"


def _show(bar: Progress, before: float, now: float = 0.0) -> None:
    """How many minutes of video are recorded."""
    done = before + now
    bar.show(done, f"{done / 60:.1f}/{bar.total / 60:.1f} minutes")
