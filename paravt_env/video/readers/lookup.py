"""What the packets of a file tell: its index if that is complete, else one pass over all of them.

`track.py` asks when it opens a file; what a pass told is kept with the file's identity. Nothing is
decoded. A file whose times are of no use is refused here, with what it lacks and a command that
gives it that. Run its tests: `python -m pytest tests/video/test_video_kinds.py`.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable

import av

from paravt_env.video.files import FileId
from paravt_env.video.readers.order import (
    RE_ENCODE,
    REMUX,
    DisplayOrder,
    lasts,
    one_frame,
    read_order,
)
from paravt_env.video.readers.packets import IndexKeyFrames, KeyFrames, PassKeyFrames
from paravt_env.video.types import VideoError

KEPT_PASSES = 256
"""Files whose packet pass is remembered."""

REORDERED = frozenset({"h264", "hevc", "vvc", "mpeg4", "mpeg2video", "mpeg1video", "vc1", "wmv3"})
"""Codecs whose pictures may be stored in another order than they are shown in."""

PROBED = 64
"""Packets of an mp4 that are looked at for presentation times of their own."""

SEAM = 0.5
"""Seconds by which times may step back in a file: more is a second recording behind the first."""

_known: OrderedDict[FileId, PassKeyFrames | DisplayOrder | None] = OrderedDict()
"""What a look at the packets told; None: the index of an mp4 tells all."""
_damaged: OrderedDict[FileId, None] = OrderedDict()
_entries: OrderedDict[FileId, bool] = OrderedDict()
_known_lock = threading.Lock()


def describe_packets(
    container: av.container.InputContainer, stream: av.VideoStream, path: str, file: FileId
) -> KeyFrames | DisplayOrder:
    """The index if the container has a complete one, else a pass over the packets.

    Raises:
        VideoError: there is no key frame in the file, or its times are of no use.
    """
    with _known_lock:
        seen = file in _known
        known = _known.get(file)
    if not seen:
        known = _look(container, stream, path)
        with _known_lock:
            _known[file] = known
            while len(_known) > KEPT_PASSES:
                _known.popitem(last=False)
    return IndexKeyFrames(stream, file[1]) if known is None else known


def has_entries(file: FileId, look: Callable[[], bool]) -> bool:
    """Whether the key frames of a file are such that a decoder may start there, asked once."""
    with _known_lock:
        known = _entries.get(file)
    if known is None:
        known = look()
        with _known_lock:
            _entries[file] = known
            while len(_entries) > KEPT_PASSES:
                _entries.popitem(last=False)
    return known


def note_damage(file: FileId) -> None:
    """Remember that a decode of the whole file did not yield a frame: no use to try that again."""
    with _known_lock:
        _damaged[file] = None
        while len(_damaged) > KEPT_PASSES:
            _damaged.popitem(last=False)


def is_damaged(file: FileId) -> bool:
    """Whether `note_damage` was called for this file."""
    with _known_lock:
        return file in _damaged


def last_end(
    container: av.container.InputContainer, stream: av.VideoStream, keys: KeyFrames
) -> int:
    """When the last frame ends; the header of an mp4 may say less than its packets."""
    end = keys.end_pts
    if not isinstance(keys, IndexKeyFrames) or keys.lost_from is not None:
        return end
    container.seek(max(keys.last, keys.first), stream=stream, backward=True)
    last = ends = end
    still = one_frame(stream)
    for packet in container.demux(stream):
        if packet.pts is not None and packet.size and not packet.is_discard and packet.pts >= last:
            last, ends = packet.pts, packet.pts + lasts(packet, still)
    return max(end, ends)


def _look(
    container: av.container.InputContainer, stream: av.VideoStream, path: str
) -> PassKeyFrames | DisplayOrder | None:
    context = stream.codec_context
    reorders = context.name in REORDERED and context.reorder_depth > 0
    if context.name in REORDERED and container.format.name == "avi":
        return read_order(path)
    if "mp4" not in container.format.name or not _covers(stream):
        return _read_packets(container, stream, path, reorders)
    if reorders and _shows_as_stored(container, stream):
        # only a look at all packets tells whether later ones have times of their own
        container.seek(stream.index_entries[0].timestamp, stream=stream, backward=True)
        found = _read_packets(container, stream, path, reorders)
        return found if isinstance(found, DisplayOrder) else None
    return None


def _shows_as_stored(container: av.container.InputContainer, stream: av.VideoStream) -> bool:
    """Whether the first packets' presentation times are but their decode times, moved."""
    delays = set()
    for packet, _ in zip(container.demux(stream), range(PROBED), strict=False):
        if packet.pts is not None and packet.dts is not None:
            delays.add(packet.pts - packet.dts)
    return len(delays) == 1


def _covers(stream: av.VideoStream) -> bool:
    """Whether an mp4's index spans the track: that of a fragmented file holds a part of it."""
    entries = stream.index_entries
    if not len(entries) or not stream.duration or not stream.time_base:
        return False
    span = entries[len(entries) - 1].timestamp - entries[0].timestamp
    slack = max(int(2 / stream.time_base), stream.duration // 20)
    return span >= stream.duration - slack


def _read_packets(
    container: av.container.InputContainer, stream: av.VideoStream, path: str, reorders: bool
) -> PassKeyFrames | DisplayOrder:
    # mkv is searched by when frames are shown, everything else by when they are decoded
    by_dts = "matroska" not in container.format.name
    base = stream.time_base or 1
    still, seam = one_frame(stream), float(SEAM / base)
    keys: dict[int, int] = {}
    starts: list[int] = []
    delays: set[int] = set()
    first_key = latest = end = 0
    stored: int | None = None
    delay: int | None = None
    timeless = False
    try:
        for packet in container.demux(stream):  # hundreds of thousands: each look costs
            pts = packet.pts
            if packet.size == 0:
                if pts is not None:  # Theora's "once more the last picture"
                    end = max(end, pts + lasts(packet, still))
                continue
            if pts is None:
                timeless = True
                if len(starts) < 2:  # nothing, or what leads into a cut: it is never shown
                    continue
                reason = "holds packets without presentation times: give them times with "
                raise VideoError(path, f"{reason}{REMUX}")
            dts = packet.dts
            if dts is not None:
                if delay is not None and len(delays) < 2:
                    delays.add(delay)
                delay = pts - dts  # the last one is made up by some demuxers
                if stored is not None and dts < stored - seam:
                    at = float((end - min(starts, default=end)) * base)
                    reason = f"is two recordings joined at {at:.2f} s, where its times step back"
                    raise VideoError(path, f"{reason}: make them one with {REMUX}")
                stored = dts
            if packet.is_keyframe:
                first_key = pts if not keys else first_key
                keys[pts] = dts if by_dts and dts is not None else pts
            if keys and pts >= first_key:  # what precedes it cannot be decoded
                starts.append(pts)
                if pts >= latest:
                    latest, end = pts, max(end, pts + lasts(packet, still))
    except av.FFmpegError as error:
        raise VideoError(path, f"cannot be read ({error.strerror}): the file is damaged") from error
    if not keys:
        lacks = "presentation times" if timeless else "key frame to begin with"
        raise VideoError(path, f"holds no {lacks}: {RE_ENCODE}")
    if len(set(starts)) <= len(starts) // 2:
        raise VideoError(path, f"several of its frames have one time each: {RE_ENCODE}")
    if reorders and len(delays) < 2:
        return read_order(path)
    return PassKeyFrames(tuple(sorted(keys)), keys, min(keys), min(starts), end)
