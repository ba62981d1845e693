"""When frames are shown where packets do not say: in the order in which a decoder returns them.

AVI, ASF, MXF and an mp4 without a reorder table hold decode times only; FFmpeg makes presentation
times up, and they run backwards or are off by a frame. What is certain is that a decoder returns
all frames in the order of showing, and that the file says how many there are and when one follows
the other. So the n-th frame returned is on screen from the n-th time on. A decoder may start at a
packet only where the number of frames shown before it is known: at an IDR picture of H.264 or HEVC,
at an I picture of MPEG-4, else at the start of the file.

One pass over the packets (nothing is decoded), kept with the file's identity by `lookup.py`. Run
its tests: `python -m pytest tests/video/test_video_bitstream.py`.
"""

from __future__ import annotations

import bisect
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

import av
import numpy as np

from paravt_env.video.readers.bitstream import Mpeg4, length_bytes, starts_anew
from paravt_env.video.readers.opening import open_video
from paravt_env.video.types import VideoError

REMUX = "ffmpeg -fflags +genpts -i FILE -c copy out.mkv"
RE_ENCODE = "ffmpeg -i FILE -c:v libx264 -crf 18 out.mp4"
"""What to run for a file that lacks something; FILE is the file."""


class Restart(NamedTuple):
    """A packet from which a decoder returns the frames `frame`, `frame + 1`, ..."""

    frame: int
    tick: int
    """Its decode time: where to seek."""


@dataclass(frozen=True, eq=False)
class DisplayOrder:
    """The frames of a video track as they are shown; instants are ticks of its time base."""

    starts: np.ndarray
    """int64 (N,): when something is shown next."""
    frames: np.ndarray
    """int64 (N,): the number, in the decoder's order, of the frame that is shown then."""
    restarts: tuple[Restart, ...]
    """Where decoding may begin, by frame; the first one is the start of the file."""
    end: int

    def at(self, tick: int) -> tuple[int, int]:
        """Number of the frame on screen at `tick`, and when it appeared."""
        place = int(np.searchsorted(self.starts, tick, side="right")) - 1
        frame = self.frames[max(0, place)]
        return int(frame), int(self.starts[np.searchsorted(self.frames, frame)])

    def restart(self, frame: int) -> Restart:
        """The last packet from which a decoder reaches a frame."""
        frames = [restart.frame for restart in self.restarts]
        return self.restarts[bisect.bisect_right(frames, frame) - 1]

    def start_of(self, restart: Restart) -> int:
        """When the first frame of a restart appears."""
        return int(self.starts[np.searchsorted(self.frames, restart.frame)])


def read_order(path: str) -> DisplayOrder:
    """The order of showing, by one pass over the packets of a file.

    Raises:
        VideoError: the packets have no times at all, or do not begin with a key frame.
    """
    container, stream = open_video(path)
    with container:
        return _pass(container, stream, path)


def _pass(
    container: av.container.InputContainer, stream: av.VideoStream, path: str
) -> DisplayOrder:
    codec, extradata = stream.codec_context.name, stream.codec_context.extradata
    length = length_bytes(codec, extradata)
    mpeg4 = Mpeg4(extradata) if codec == "mpeg4" else None
    ticks: list[int] = []
    shown = Shown()
    try:
        for packet in container.demux(stream):
            if packet.size == 0:
                continue
            tick = packet.dts if packet.dts is not None else packet.pts
            lacks = ""
            if packet.is_discard:
                lacks = f"hides frames by an edit list: {RE_ENCODE}"
            elif tick is None or (ticks and tick <= ticks[-1]):
                lacks = f"has no increasing times: give it times with {REMUX}"
            data = bytes(packet) if mpeg4 or packet.is_keyframe else b""
            anew = packet.is_keyframe and starts_anew(codec, data, length)
            if not ticks and codec in ("h264", "hevc") and not anew:
                lacks = f"starts inside a group of pictures: {RE_ENCODE}"
            if tick is None or lacks:
                raise VideoError(path, f"holds no presentation times of its frames, and {lacks}")
            ticks.append(tick)
            shown.add(mpeg4.pictures(data) if mpeg4 else "P", tick, anew)
    except av.FFmpegError as error:
        reason = f"its packets cannot be read to the end ({error.strerror}): copy it again"
        raise VideoError(path, reason) from error
    frames = shown.frames()
    if not ticks or not len(frames):
        raise VideoError(path, f"holds no picture that can be shown: {RE_ENCODE}")
    still = one_frame(stream)
    placed = places(ticks, frames, shown.is_packed, still)
    if placed is None:
        reason = f"packs its pictures so that nothing tells their times: {RE_ENCODE}"
        raise VideoError(path, reason)
    starts, frames = placed
    restarts = (Restart(0, ticks[0]), *(r for r in shown.restarts if r.frame))
    return DisplayOrder(starts, frames, restarts, int(starts[-1]) + still)


def places(
    ticks: list[int], frames: np.ndarray, is_packed: bool, still: int
) -> tuple[np.ndarray, np.ndarray] | None:
    """When each place in the order of showing begins, and the frame there; None: nothing tells.

    Mostly each packet gives a place. Where pictures are packed, a packet may also be absent in
    the place of one that came with another: then there is a frame for each of the places from the
    first to the last.

    >>> places([0, 1, 2, 3], np.arange(4), True, 1)
    (array([0, 1, 2, 3]), array([0, 1, 2, 3]))
    >>> places([0, 2, 3], np.array([0, 1, 2, 3, 3]), True, 1)  # the packet of 1 is absent
    (array([0, 1, 2, 3]), array([0, 1, 2, 3]))
    """
    more = len(frames) - len(ticks)
    if is_packed:
        every = np.arange(ticks[0], ticks[-1] + 1, still)
        if len(every) == int(frames[-1]) + 1:
            return every, np.arange(len(every))
        steps = np.diff(ticks)
        if not 0 <= more <= 1 or (len(steps) and steps.max() > 1.5 * steps.min()):
            return None
    beyond = ticks[-1] + still * np.arange(1, more + 1)  # a packed picture without a place
    return np.concatenate([np.array(ticks), beyond])[: len(frames)], frames


def one_frame(stream: av.VideoStream) -> int:
    """Ticks that a frame lasts at the track's own rate, at least 1."""
    rate, base = frame_rate(stream), stream.time_base
    return max(1, round(1 / (rate * base))) if rate and base else 1


def frame_rate(stream: av.VideoStream) -> Fraction:
    """Frames a second on average; 0 where nothing tells (AVI's average is but its time base)."""
    average, guessed = stream.average_rate, stream.guessed_rate
    if average and stream.time_base and average * stream.time_base < 1:
        return average
    return guessed or average or Fraction(0)


def lasts(packet: av.Packet, still: int) -> int:
    """Ticks that a packet's frame lasts; `still` where it says 0, or AVI's one tick for unknown."""
    return packet.duration if packet.duration and packet.duration > 1 else still


class Shown:
    """Pictures put into the order of showing as they are stored.

    A picture that others may refer to (I, P, S) is shown when the next such one comes, a B picture
    at once: the rule of MPEG-1, -2 and -4. Pictures of H.264 and HEVC all count as P, as only their
    number before an IDR picture is asked for.

    >>> shown = Shown()
    >>> for tick, pictures in enumerate(["I", "PB", "-", "P", "-"]):  # the 3rd fills a packed B's
    ...     shown.add(pictures, tick, False)                          # place, the 5th repeats
    >>> shown.frames().tolist()
    [0, 1, 2, 3, 3]
    """

    def __init__(self) -> None:
        self.restarts: list[Restart] = []
        self.is_packed = False  # whether a packet held more than one picture
        self._order: list[bool] = []  # of each picture as shown: whether a decoder returns it
        self._count = 0  # frames a decoder has returned so far, the waiting one left out
        self._waiting: bool | None = None
        self._packed = 0
        self._key: int | None = None  # the tick of an I picture whose B pictures are not over

    def add(self, pictures: str, tick: int, anew: bool) -> None:
        """The pictures of the next packet, and whether all before it are shown before it."""
        if anew:
            self._release()
            self.restarts.append(Restart(self._count, tick))
        self._packed += max(0, len(pictures) - 1)
        self.is_packed |= len(pictures) > 1
        if pictures == "-" and self._packed:
            self._packed -= 1
            return
        for picture in pictures:
            if picture == "B":
                self._show(True)
                continue
            self._settle_key()
            self._release()
            self._waiting = picture != "-"
            self._key = tick if picture == "I" and pictures[0] == "I" else None

    def frames(self) -> np.ndarray:
        """For each place in the order of showing: the number of the frame shown then, int64."""
        self._settle_key()
        self._release()
        return np.maximum(np.cumsum(np.array(self._order, np.int64)) - 1, 0)

    def _settle_key(self) -> None:
        """The next picture that others refer to has come: the I picture before it is shown now."""
        if self._key is not None:
            self.restarts.append(Restart(self._count, self._key))
            self._key = None

    def _release(self) -> None:
        if self._waiting is not None:
            self._show(self._waiting)
            self._waiting = None

    def _show(self, is_returned: bool) -> None:
        self._order.append(is_returned)
        self._count += is_returned
