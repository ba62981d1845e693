"""Files: what makes a file the same file, and what is not even worth opening.

The first thing that `store.py` and every back end ask. Run its tests:
`python -m pytest tests/video/test_video.py`.
"""

from __future__ import annotations

import os

from paravt_env.video.types import VideoError

FileId = tuple[str, int, int]
"""The identity of a file's content: real path, bytes, modification time in ns."""

PLAYLISTS = (b"#EXTM3U", b"ffconcat", b"<?xml", b"<MPD", b"v=0")
"""How texts begin that make FFmpeg open other files: HLS, concat, DASH and IMF, SDP."""


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


def refuse_playlist(path: str) -> None:
    """Refuse a text that names other files: they may lie outside the task set's root.

    Raises:
        VideoError: it is one, or the file cannot be read.
    """
    try:
        with open(path, "rb") as file:
            head = file.read(64)
    except OSError as error:
        reason = f"cannot be opened ({error.strerror}): check the file's permissions"
        raise VideoError(path, reason) from error
    if head.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(PLAYLISTS):
        raise VideoError(path, "is a list of other files, not a video: name the video itself")
