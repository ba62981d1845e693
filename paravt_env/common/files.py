"""Files that are whole or absent, and the folder that is kept between runs.

Under everything that writes: made videos, reports, metrics, settings, checkpoints. A process that
is killed while it writes leaves what was there before. Tests: `pytest tests/common/test_files.py`.
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


MADE_AGAIN = (
    "free some space or choose another folder with PARAVT_CACHE, then run again: finished videos "
    "are kept"
)
"""What to do where a file of the cache cannot be written."""


@contextlib.contextmanager
def atomic_path(path: Path, advice: str = "") -> Iterator[Path]:
    """Yield a temporary neighbour of `path`, renamed on success and removed on any failure.

    Raises:
        OSError: Writing failed, with the file and the advice, if there is one, in its message;
            what was there before stays.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        hint = f" ({advice})" if advice else ""
        raise OSError(
            error.errno, f"cannot write {path}: {error.strerror or error}{hint}"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def write_whole(path: Path, content: str | bytes) -> None:
    """Put `content` at `path` in one stroke; text as UTF-8. The folder must exist.

    Half a surrogate pair, which a model or a data set may write, becomes "?": no file is lost to
    it.

    Raises:
        OSError: It could not be written; what was there before stays.
    """
    with atomic_path(path) as draft:
        draft.write_bytes(
            content.encode("utf-8", "replace") if isinstance(content, str) else content
        )


def sweep(folder: Path) -> None:
    """Remove the temporary files of `atomic_path` that killed processes left in a folder."""
    old = time.time() - ABANDONED
    for path in folder.glob(".*.tmp"):
        with contextlib.suppress(OSError):  # another process sweeps, too
            if path.stat().st_mtime < old:
                path.unlink()


def flush(folder: Path) -> None:
    """Make sure that a folder and all that lies in it is on disk."""
    for path in [*folder.rglob("*"), folder]:
        flush_path(path)


def flush_path(path: Path) -> None:
    """Make sure that a file, or a folder's list of names, is on disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
