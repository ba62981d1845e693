"""Write the videos and the manifest of a split into a cache folder, atomically.

Fourth step of the `synthetic` task set. Every file is written under a temporary name and renamed
when it is complete: after an interruption or a full disk nothing half-written is left behind, and
running again continues with the first missing video. Run `paravt data make`.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from paravt_env.common.files import MADE_AGAIN, atomic_path
from paravt_env.common.progress import Progress
from paravt_env.task import Task
from paravt_env.tasksets.made.base import (
    dials_folder,
    open_dials_folder,
    write_manifest,
)
from paravt_env.tasksets.made.synthetic.questions import make_tasks
from paravt_env.tasksets.made.synthetic.render import encode
from paravt_env.tasksets.made.synthetic.world import VideoPlan, WorldSettings, plan_video

THREADS = 3
"""Videos made side by side, at most: Python draws one frame at a time while x264 encodes."""
WORLD_VERSION = 3  # raise when the same settings draw or ask something else


def settings_folder(settings: WorldSettings, root: Path) -> Path:
    """Where the videos of these settings live: any other setting has another folder."""
    return dials_folder(settings, root, {"version": WORLD_VERSION})


def plan_tasks(settings: WorldSettings, split: str, videos: int) -> list[Task]:
    """Tasks of a split's first videos, paths relative to their folder; nothing is written."""
    tasks: list[Task] = []
    for index in range(videos):
        plan = plan_video(settings, split, index)
        tasks += make_tasks(plan, settings, index, f"videos/{plan.name}.mp4")
    return tasks


def make_split(
    settings: WorldSettings, split: str, videos: int, root: Path, progress: bool = True
) -> Path:
    """Make what is missing of a split's first `videos` videos; return its manifest (JSONL).

    Videos are a function of (settings, split, index): asking for more later keeps those that exist.

    Raises:
        OSError: The folder cannot be written.
        TaskError: The settings allow no such video or question.
    """
    folder = settings_folder(settings, root)
    open_dials_folder(folder, settings)
    plans = [plan_video(settings, split, index) for index in range(videos)]
    tasks = plan_tasks(settings, split, videos)
    missing = [plan for plan in plans if not (folder / "videos" / f"{plan.name}.mp4").exists()]
    total = len(missing)
    bar = Progress(f"synthetic {split}: making videos", total, progress)

    def make(plan: VideoPlan) -> None:
        with atomic_path(folder / "videos" / f"{plan.name}.mp4", MADE_AGAIN) as path:
            encode(plan, settings, path)

    with ThreadPoolExecutor(min(THREADS, os.cpu_count() or 1)) as pool:
        videos_made = [pool.submit(make, plan) for plan in missing]
        try:
            for done, made in enumerate(videos_made):
                bar.show(done, f"{done}/{total}")
                made.result()
        except BaseException:  # an interruption too: what has not begun is not made
            pool.shutdown(cancel_futures=True)
            raise
    if missing:
        bar.show(total, f"{total}/{total}")
    return write_manifest(folder, split, videos, tasks)
