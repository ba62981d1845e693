"""Write the videos and the manifest of a split into a cache folder, atomically.

Fourth step of the `synthetic` task set. Every file is written under a temporary name and renamed
when it is complete: after an interruption or a full disk nothing half-written is left behind, and
running again continues with the first missing video. Run `paravt data make`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from paravt_env.task import Task
from paravt_env.tasksets.synthetic.questions import make_tasks
from paravt_env.tasksets.synthetic.render import encode
from paravt_env.tasksets.synthetic.world import WorldSettings, plan_video

WORLD_VERSION = 3  # raise when the same settings draw or ask something else


def cache_root() -> Path:
    """`$PARAVT_CACHE`, or `~/.cache/paravt`."""
    return Path(os.environ.get("PARAVT_CACHE") or Path.home() / ".cache" / "paravt").expanduser()


def settings_folder(settings: WorldSettings, root: Path) -> Path:
    """Where the videos of these settings live: any other setting has another folder."""
    text = json.dumps({"version": WORLD_VERSION, **settings.as_dict()}, sort_keys=True)
    return root / "synthetic" / hashlib.sha256(text.encode()).hexdigest()[:12]


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary neighbour of `path`, renamed on success and removed on any failure.

    Raises:
        OSError: Writing failed, with the folder and what to do in its message.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise OSError(
            error.errno,
            f"cannot write {path}: {error.strerror or error} (free some space or choose another "
            "folder with PARAVT_CACHE, then run again: finished videos are kept)",
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


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
    (folder / "videos").mkdir(parents=True, exist_ok=True)
    if not (folder / "settings.json").exists():
        with atomic_path(folder / "settings.json") as path:
            path.write_text(json.dumps(settings.as_dict(), indent=2) + "\n")
    plans = [plan_video(settings, split, index) for index in range(videos)]
    tasks = plan_tasks(settings, split, videos)
    missing = [plan for plan in plans if not (folder / "videos" / f"{plan.name}.mp4").exists()]
    for done, plan in enumerate(missing):
        _show(f"synthetic {split}: making videos", done, len(missing), progress)
        with atomic_path(folder / "videos" / f"{plan.name}.mp4") as path:
            encode(plan, settings, path)
    if missing:
        _show(f"synthetic {split}: making videos", len(missing), len(missing), progress)
    manifest = folder / f"{split}-{videos}.jsonl"
    text = "".join(json.dumps({**asdict(task), "split": split}) + "\n" for task in tasks)
    if not manifest.exists() or manifest.read_text() != text:
        with atomic_path(manifest) as path:
            path.write_text(text)
    return manifest


def _show(what: str, done: int, total: int, progress: bool) -> None:
    """One progress line on stderr: redrawn on a terminal, first and last only elsewhere."""
    terminal = sys.stderr.isatty()
    if not progress or not (terminal or done in (0, total)):
        return
    filled = 24 * done // total
    end = "\n" if done == total or not terminal else ""
    start = "\r" if terminal else ""
    sys.stderr.write(f"{start}{what} [{'#' * filled}{'.' * (24 - filled)}] {done}/{total}{end}")
    sys.stderr.flush()
