"""What task sets share that make their own videos: dials, a folder for each setting, a manifest.

Under `synthetic` and `atari`. Videos are a function of (dials, split, number): the dials give the
cache folder its name, and the manifest of a split is a JSONL file in it. Run `paravt data make`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, ClassVar, Self

from paravt_env.common.files import MADE_AGAIN, atomic_path, cache_root, make_folder, sweep
from paravt_env.common.names import known_name
from paravt_env.task import Task, TaskError
from paravt_env.tasksets.jsonl import JsonlTasks

SPLITS = ("train", "val", "test")


class Dials:
    """Base of a set's settings: a frozen dataclass of plain data, all of it in the cache key."""

    name: ClassVar[str]
    """Of the task set."""

    @classmethod
    def from_dials(cls, dials: dict[str, Any]) -> Self:
        """Build settings from keywords; an unknown name is an error that gives the nearest one."""
        names = [field.name for field in fields(cls)]  # type: ignore[arg-type]
        try:
            for name in dials:
                known_name(f"{cls.name} setting", name, names)
        except ValueError as error:
            raise TaskError(str(error)) from error
        try:
            return cls(**dials)
        except TaskError:
            raise
        except (TypeError, ValueError) as error:  # a value of another type than its dial's
            raise TaskError(f"{cls.name}: {error}; the settings are {dials}") from error

    def as_dict(self) -> dict[str, Any]:
        """Plain data for the cache key and for `settings.json`."""
        return asdict(self)  # type: ignore[call-overload]


class MadeTasks(JsonlTasks):
    """A split whose missing videos are made when it is constructed; the base of such sets.

    Keyword arguments beyond the named ones are dials. A subclass says which dials, how many videos
    a split has by default, and how a split is made.

    Raises:
        TaskError: Unknown split or dial, or dials that do not go together.
        OSError: The cache folder cannot be written.
    """

    dials: ClassVar[type[Dials]]
    default_videos: ClassVar[Mapping[str, int]]

    @staticmethod
    def make(settings: Any, split: str, videos: int, root: Path, progress: bool = True) -> Path:
        """Make what is missing of a split's first videos under `root`; the manifest."""
        raise NotImplementedError

    def __init__(
        self,
        split: str = "train",
        root: str | Path | None = None,
        videos: int | None = None,
        progress: bool = True,
        **dials: Any,
    ):
        name = self.dials.name
        if split not in SPLITS:
            raise TaskError(f"{name}: unknown split {split!r}; known: {', '.join(SPLITS)}")
        count = self.default_videos[split] if videos is None else videos
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise TaskError(f"{name}: videos must be at least 1, a whole number, not {count!r}")
        self.settings = self.dials.from_dials(dials)
        folder = cache_root() if root is None else Path(root).expanduser()
        super().__init__(self.make(self.settings, split, count, folder, progress), name=name)


def dials_folder(settings: Dials, root: Path, versions: Mapping[str, Any]) -> Path:
    """Where the videos of these settings live: other settings or versions have another folder."""
    text = json.dumps({**versions, **settings.as_dict()}, sort_keys=True)
    return root / settings.name / hashlib.sha256(text.encode()).hexdigest()[:12]


def open_dials_folder(folder: Path, settings: Dials) -> None:
    """Make the folder of `dials_folder`, with its settings in it; remove a crash's remains.

    Raises:
        OSError: It cannot be written.
    """
    make_folder(folder / "videos")
    for place in (folder, folder / "videos"):
        sweep(place)
    if not (folder / "settings.json").exists():
        with atomic_path(folder / "settings.json", MADE_AGAIN) as path:
            path.write_text(json.dumps(settings.as_dict(), indent=2) + "\n")


def write_manifest(folder: Path, split: str, videos: int, tasks: Iterable[Task]) -> Path:
    """Write the manifest of a split's first `videos` videos, unless it is there; its path.

    Raises:
        OSError: It cannot be written.
    """
    manifest = folder / f"{split}-{videos}.jsonl"
    text = "".join(
        json.dumps({**_line(task), "split": split}, default=asdict) + "\n" for task in tasks
    )
    if not manifest.exists() or manifest.read_text() != text:
        with atomic_path(manifest, MADE_AGAIN) as path:
            path.write_text(text)
    return manifest


def _line(task: Task) -> dict[str, Any]:
    """A task's line: of `video` and `images`, the one that it has."""
    values = {field.name: getattr(task, field.name) for field in fields(task)}
    return {
        name: value for name, value in values.items() if name not in ("video", "images") or value
    }
