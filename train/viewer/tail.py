"""Files that grow while they are read: only what is new is read, and replaced files from the start.

Under `train.viewer.runs`, for `metrics.jsonl` and the index of kept rollouts of a run in progress.
Tests: `pytest tests/viewer/test_runs.py`.
"""

from __future__ import annotations

import os
from pathlib import Path


class Tail:
    """The whole lines that were added to a file since it was last read.

    Args:
        path: The file; it may not be there yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._at = 0
        self._inode: int | None = None

    def read(self) -> tuple[bool, bytes]:
        """Whether the file was replaced since (forget what it said), and the new whole lines."""
        try:
            with self.path.open("rb") as file:
                stat = os.fstat(file.fileno())
                again = self._inode not in (None, stat.st_ino) or stat.st_size < self._at
                if again or self._inode is None:
                    self._at, self._inode = 0, stat.st_ino
                if stat.st_size == self._at:
                    return again, b""
                file.seek(self._at)
                data = file.read()
        except FileNotFoundError:
            gone = self._inode is not None
            self._at, self._inode = 0, None
            return gone, b""
        whole = data[: data.rfind(b"\n") + 1]
        self._at += len(whole)
        return again, whole


def last_lines(path: Path, most: int) -> bytes:
    """The whole lines in the last `most` bytes of a file; none where it is not there."""
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(max(0, size - most))
            data = file.read(most)
    except FileNotFoundError:
        return b""
    if size > most:
        data = data.partition(b"\n")[2]
    return data[: data.rfind(b"\n") + 1]
