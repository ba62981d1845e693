"""The videos of a folder: which there are, what each is by its content, which split it belongs to.

First step of the data engine. A split follows from what is in the file, not from its name or its
neighbours, so that more videos never move one to another split. Tests: `pytest
tests/datagen/test_videos.py`.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from paravt_env.tasksets.files import open_folder, resolve_file
from paravt_env.video.store.store import FrameStore
from paravt_env.video.types import VideoError
from train.common.errors import ConfigError
from train.config.reason import SplitConfig
from train.datagen.refusal import Rejected

ENDINGS = frozenset(
    {
        *(".3gp", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg"),
        *(".mts", ".ogv", ".ts", ".webm", ".wmv"),
    }
)
_SAMPLE = 2**20
"""Bytes at each end of a file that tell it apart, beside its size."""


@dataclass(frozen=True)
class Film:
    """One video of the folder.

    Attributes:
        name: Path relative to the folder.
        path: Absolute.
        fingerprint: Of its content.
        split: `train`, `val` or `test`.
        duration: Seconds.
        size: Height and width of its pictures, pixels.
    """

    name: str
    path: str
    fingerprint: str
    split: str
    duration: float
    size: tuple[int, int]


def names_of(source: str, most: int | None = None) -> tuple[Path, list[str]]:
    """The folder, resolved, and the names of its videos in order.

    Raises:
        ConfigError: There is no such folder, or no video in it.
    """
    if not source:
        raise ConfigError("give --source, a folder of videos")
    try:
        folder = open_folder(source, "source")
    except ValueError as error:
        raise ConfigError(str(error)) from error
    names = sorted(
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.suffix.lower() in ENDINGS and not path.is_dir()
    )
    if not names:
        known = " ".join(sorted(ENDINGS))
        raise ConfigError(f"{folder} holds no file that ends in one of {known}")
    return folder, names[:most]


def open_film(folder: Path, name: str, store: FrameStore, splits: SplitConfig, seed: int) -> Film:
    """Look at one file.

    Raises:
        Rejected: It cannot be read.
    """
    try:
        path = resolve_file(name, folder)
        info = store.info(path)
        fingerprint = fingerprint_of(Path(path))
    except (ValueError, VideoError, OSError) as error:
        raise Rejected("unreadable_video", str(error)) from error
    if not info.duration > 0:
        raise Rejected("unreadable_video", f"{name} lasts {info.duration} s")
    split = split_of(fingerprint, splits, seed)
    return Film(name, path, fingerprint, split, info.duration, (info.height, info.width))


def fingerprint_of(path: Path) -> str:
    """What tells a file apart: SHA-256 of its size, its first and its last mebibyte, 32 digits."""
    with path.open("rb") as file:
        size = path.stat().st_size
        digest = hashlib.sha256(f"{size}\n".encode())
        digest.update(file.read(_SAMPLE))
        file.seek(max(0, size - _SAMPLE))
        digest.update(file.read(_SAMPLE))
    return digest.hexdigest()[:32]


def split_of(fingerprint: str, splits: SplitConfig, seed: int) -> str:
    """The split of a video: a place from 0 to 1 that its content and the seed give it.

    >>> [split_of(str(i), SplitConfig(train=0.5, val=0.25, test=0.25), 0) for i in range(4)]
    ['val', 'test', 'val', 'train']
    """
    digest = hashlib.sha256(f"{seed}:{fingerprint}".encode()).digest()
    place = int.from_bytes(digest[:8], "big") / 2**64
    if place < splits.train:
        return "train"
    return "val" if place < splits.train + splits.val else "test"


def doubles_of(folder: Path, names: Sequence[str]) -> dict[str, str]:
    """Names whose content an earlier one has, and that one; files that cannot be read have none."""
    first: dict[str, str] = {}
    doubles: dict[str, str] = {}
    for name in names:
        with contextlib.suppress(OSError, ValueError):  # said when the video is opened
            kept = first.setdefault(fingerprint_of(Path(resolve_file(name, folder))), name)
            if kept != name:
                doubles[name] = kept
    return doubles
