"""The cache folder on disk, and files in it that are whole or absent.

Under everything that keeps what was made or decoded: task sets that make their videos
(`tasksets.made`) and decoded frames (`video.disk`). Run `pytest tests/tasksets/test_synthetic.py`.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from collections.abc import Iterator
from pathlib import Path

ABANDONED = 3600.0
"""Seconds without a write after which a temporary file is taken for the remains of a crash."""


def cache_root() -> Path:
    """`$PARAVT_CACHE`, or `~/.cache/paravt`.

    Raises:
        OSError: There is no home folder, and no `$PARAVT_CACHE` in its place.
    """
    try:
        return Path(os.environ.get("PARAVT_CACHE") or "~/.cache/paravt").expanduser()
    except RuntimeError as error:
        raise OSError("there is no home folder: set PARAVT_CACHE to a folder") from error


def make_folder(path: Path, mode: int = 0o777) -> None:
    """Make a folder of the cache, with what it lies in.

    Raises:
        OSError: It cannot be made, with what to do in its message.
    """
    try:
        path.mkdir(parents=True, exist_ok=True, mode=mode)
    except OSError as error:
        raise OSError(
            error.errno,
            f"cannot make the folder {path}: {error.strerror or error} (choose another place with "
            "PARAVT_CACHE)",
        ) from error


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary neighbour of `path`, renamed on success and removed on any failure.

    Raises:
        OSError: Writing failed, with the folder and what to do in its message.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
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


def sweep(folder: Path) -> None:
    """Remove the temporary files of `atomic_path` that killed processes left in a folder."""
    old = time.time() - ABANDONED
    for path in folder.glob(".*.tmp"):
        with contextlib.suppress(OSError):  # another process sweeps, too
            if path.stat().st_mtime < old:
                path.unlink()
