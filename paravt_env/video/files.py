"""Files and back ends: what makes a file the same file, and who opens it.

The first thing that `store.py` and every back end ask. Run its tests:
`python -m pytest tests/test_video.py`.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable

from paravt_env.video.types import VideoError, VideoReader

BACKENDS: dict[str, str] = {"pyav": "paravt_env.video.pyav:PyAVReader"}
"""Name -> "module:callable" that opens a path; imported when first used."""

FileId = tuple[str, int, int]
"""The identity of a file's content: real path, bytes, modification time in ns."""


def open_backend(backend: str) -> Callable[[str], VideoReader]:
    """Resolve a name of `BACKENDS`.

    Raises:
        ValueError: there is no such back end.
    """
    if backend not in BACKENDS:
        raise ValueError(f"unknown video back end {backend!r}: choose from {sorted(BACKENDS)}")
    module, name = BACKENDS[backend].split(":")
    return getattr(importlib.import_module(module), name)


def identify(path: str) -> FileId:
    """The identity of a file's content.

    Raises:
        VideoError: the file is missing, not a file, or empty.
    """
    try:
        real = os.path.realpath(path, strict=True)
        stat = os.stat(real)
    except OSError as error:
        reason = f"cannot be opened ({error.strerror}): check the task set's root folder"
        raise VideoError(path, reason) from error
    except ValueError as error:  # a NUL byte in the name
        raise VideoError(path, f"is not a path ({error}): check the task set") from error
    if not os.path.isfile(real):
        raise VideoError(path, "is not a file: a video path must name one file")
    if stat.st_size == 0:
        raise VideoError(path, "the file is empty: copy or download it again")
    return real, stat.st_size, stat.st_mtime_ns
