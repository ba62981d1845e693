"""What `pyav.py` knows of a file and other libraries get wrong: asked before they open it.

`decord.py` and `torchcodec.py` read a file only where it is of no kind that their library reads
wrong, and compare the times that it reports with the packets' own. Run its tests:
`python -m pytest tests/video/test_video_backends.py`.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from contextlib import closing
from dataclasses import dataclass

from paravt_env.video.files import FileId, identify
from paravt_env.video.readers.pyav import PyAVReader
from paravt_env.video.readers.table import FrameTable
from paravt_env.video.types import VideoError, VideoInfo

KEPT = 64
"""Files whose description and table are remembered."""

INSTEAD = "use backend='pyav' for this file"

_known: OrderedDict[FileId, Facts] = OrderedDict()
_lock = threading.Lock()


@dataclass(frozen=True, eq=False)
class Facts:
    """A file as its packets and its first frame describe it."""

    info: VideoInfo
    table: FrameTable
    track: int
    """The number of the video track among the file's streams."""
    tracks: int
    """Video tracks."""
    is_turned: bool
    is_mirrored: bool
    needs_note: bool
    """Whether only a decoder that has read the file's first packet shows its pictures."""
    is_untagged_hd: bool
    """Whether its colours are BT.709 though it does not say so."""


def describe(path: str, library: str) -> Facts:
    """The facts of a file, kept with its identity.

    Raises:
        VideoError: it cannot be read, or holds no presentation times, which `library` needs.
    """
    file = identify(path)
    with _lock:
        known = _known.get(file)
    if known is None:
        known = _look(path, library)
        with _lock:
            _known[file] = known
            while len(_known) > KEPT:
                _known.popitem(last=False)
    return known


def _look(path: str, library: str) -> Facts:
    with closing(PyAVReader(path)) as reader:
        if not reader.has_times:
            reason = f"{library} reads files without presentation times wrong: {INSTEAD}"
            raise VideoError(path, reason)
        return Facts(
            reader.info,
            reader.frame_table(),
            reader.track,
            reader.tracks,
            reader.is_turned,
            reader.is_mirrored,
            reader.needs_note,
            reader.is_untagged_hd,
        )
