"""Files that a data set names: where they may lie, and what may be in their place.

Between a row of a manifest and `Task`. A name resolves under one folder; what leads out of it
(`..`, an absolute path, a symbolic link), a URL, a device, a FIFO, a socket and a folder are
refused. A file that is not there is not refused: the task keeps it and `reset` says so. Run the
tests with `pytest tests/tasksets/test_tasksets_files.py`.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

_URL = re.compile(
    r"[a-z][a-z0-9+.-]*://|(?:https?|ftp|file|data|pipe|fd|concat|concatf|subfile|crypto|cache|"
    r"async|tcp|udp|rtmp|rtsp|rtp|srt|hls):",
    re.IGNORECASE,
)
_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
)


def resolve_file(name: str, folder: Path) -> str:
    """Absolute path of the file `name` under `folder`, whether it is there or not.

    Args:
        name: Path relative to `folder`, or an absolute one inside it.
        folder: A resolved folder.

    Raises:
        ValueError: The name is a URL, leads out of the folder, or is no regular file.
    """
    if not name or "\0" in name:
        raise ValueError(f"{name!r} is not a path")
    if _URL.match(name):
        raise ValueError(f"{name!r} is a URL: download it and give the path of the file")
    try:
        resolved = (folder / name).resolve()
        mode = _mode(resolved)
    except (OSError, RuntimeError) as error:  # a name that is too long, a loop of links
        raise ValueError(f"{name[:200]!r} cannot be resolved: {error}") from error
    if not resolved.is_relative_to(folder) or resolved == folder:
        linked = Path(os.path.normpath(folder / name)).is_relative_to(folder)
        through = ": a link leads out of it" if linked and resolved != folder else ""
        raise ValueError(f"{name!r} is not inside {folder}{through}")
    if mode is not None and not stat.S_ISREG(mode):
        what = next((text for test, text in _KINDS if test(mode)), "something else")
        raise ValueError(f"{name!r} is {what}, not a file")
    return str(resolved)


def _mode(path: Path) -> int | None:
    """Type and permissions of what is at `path`; None where there is nothing."""
    try:
        return path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None


def open_folder(path: str | Path, what: str) -> Path:
    """The resolved folder at `path`.

    Raises:
        ValueError: It is not there, or is no folder; `what` says what it should be.
    """
    folder = Path(path).expanduser().resolve()
    if not folder.is_dir():
        raise ValueError(f"{what} {str(path)!r} is not a folder")
    return folder
