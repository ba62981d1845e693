"""The cache folder on disk, and files in it that are whole or absent.

Under everything that keeps what was made or decoded: task sets that make their videos
(`tasksets.made`) and decoded frames (`video.disk`). Run `pytest tests/test_synthetic.py`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


def cache_root() -> Path:
    """`$PARAVT_CACHE`, or `~/.cache/paravt`."""
    return Path(os.environ.get("PARAVT_CACHE") or Path.home() / ".cache" / "paravt").expanduser()


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
