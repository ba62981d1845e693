"""Locks that end with their process: one writer for a file, or for the folder of a run.

Under the row files of evaluations, the folders of runs and the studies. They are the kernel's
(`flock`), so a killed process leaves none behind, on one machine and on shared file systems that
pass locks on. Tests: `pytest tests/common/test_lock.py`.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from train.common.errors import ConfigError

FILE = "run.lock"
"""In a run's folder while the run lasts; it says who has the lock."""
NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK)
"""What file systems without locks answer."""

_held: dict[Path, int] = {}
"""Folders whose lock this process has, and how often it asked for it."""


def take(handle: int, path: Path, wait: bool = False) -> bool:
    """Lock an open file, or say that another process has it.

    A file system without locks is told in one line, and the lock counts as taken.

    Args:
        handle: Of the file; the lock ends when it is closed.
        path: For messages.
        wait: Until the other process lets go.
    """
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        print(
            f"paravt: the file system of {path} has no locks: see to it yourself that no other "
            "process writes there",
            flush=True,
        )
    return True


@contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Hold the folder of a run, which is made if it is not there; again within one process is fine.

    Raises:
        ConfigError: Another process has it, which is named.
    """
    folder.mkdir(parents=True, exist_ok=True)
    place = folder.resolve()
    if place in _held:
        _held[place] += 1
        try:
            yield
        finally:
            _held[place] -= 1
        return
    handle = _taken(folder)
    _held[place] = 1
    try:
        yield
    finally:
        del _held[place]
        (folder / FILE).unlink(missing_ok=True)
        os.close(handle)


def _taken(folder: Path) -> int:
    """The locked file of a folder."""
    path = folder / FILE
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            if not take(handle, path):
                who = os.read(handle, 200).decode("utf-8", "replace").strip()
                raise ConfigError(
                    f"{folder} is in use by {who or 'another process'}: wait until it has ended, "
                    "or give another --run.name"
                )
            if path.exists() and os.path.samestat(os.fstat(handle), path.stat()):
                os.ftruncate(handle, 0)
                os.write(handle, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)  # its owner has removed it meanwhile
