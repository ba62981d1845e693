"""Which frames: pure arithmetic on times, windows and packets, with no video library in sight.

Used when an environment resets (`overview_times`), when a crop runs (`window_times`) and inside a
back end, which must know the packets worth decoding in full before it decodes them (`mark_wanted`).

Run its tests: `python -m pytest tests/video/test_video.py`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol, TypeVar

import numpy as np


class PacketTimes(Protocol):
    """What `mark_wanted` reads of a packet: when it is shown, when it is decoded."""

    pts: int | None
    dts: int | None
    is_discard: bool


SNAP = 0.1
"""The share of the distance between two overview frames by which snapping may move one."""

P = TypeVar("P", bound=PacketTimes)


def overview_times(duration: float, k: int) -> np.ndarray:
    """Midpoints of `k` equal parts of a video, in seconds, (k,).

    >>> overview_times(100.0, 4).tolist()
    [12.5, 37.5, 62.5, 87.5]
    """
    if k < 0 or not duration > 0:
        raise ValueError(f"need k >= 0 and a positive duration, not k={k}, duration={duration}")
    return (np.arange(k) + 0.5) * (duration / max(k, 1))


def snap_times(times: np.ndarray, keys: np.ndarray, within: float) -> np.ndarray:
    """`times` (N,), those with a key frame `within` seconds of them replaced by its own time.

    A key frame is decoded alone, any other frame with all that it depends on.

    Args:
        times: wanted, in seconds.
        keys: when the key frame nearest to each appears, in seconds (N,).
        within: seconds; `SNAP` of the distance between two wanted times.

    >>> snap_times(np.array([10.0, 30.0]), np.array([9.0, 33.0]), within=2.0).tolist()
    [9.0, 30.0]
    """
    return np.where(np.abs(keys - times) <= within, keys, times)


def window_times(start: float, end: float, fps: float, max_frames: int) -> np.ndarray:
    """Midpoints of the equal parts of a window, in seconds, (n,), 1 <= n <= `max_frames`.

    There is a part for every 1 / `fps` seconds begun; a window shorter than that has one.

    >>> window_times(10.0, 13.0, fps=1.0, max_frames=16).tolist()
    [10.5, 11.5, 12.5]
    >>> window_times(0.0, 40.0, fps=1.0, max_frames=4).tolist()
    [5.0, 15.0, 25.0, 35.0]
    """
    if not start < end:
        raise ValueError(f"a window needs start < end, not [{start}, {end}]")
    if not fps > 0 or max_frames < 1:
        raise ValueError(f"need fps > 0 and max_frames >= 1, not {fps} and {max_frames}")
    begun = np.ceil((end - start) * fps - 1e-9)  # 10.1 - 0.1 is ten seconds, not eleven begun
    n = int(np.clip(begun, 1, max_frames))
    return start + (np.arange(n) + 0.5) * ((end - start) / n)


def mark_wanted(
    packets: Iterable[P], ticks: Sequence[int], shown: dict[int, int], reorder: int = 0
) -> Iterator[tuple[P, bool]]:
    """Say of each packet, in decode order, whether the frame it carries is one to be returned.

    The frame on screen at tick t is the one with the last pts <= t. Packets are not stored in that
    order (B-frames), but no packet after one with dts > t can have pts <= t: so packets are held
    back for as long as the reordering lasts, a handful at a time, and never for a whole file. Some
    files hold decode times later than the pts; but of any file no more than `reorder` packets with
    pts > t come before one with pts <= t.

    Args:
        packets: from a key frame shown at or before every tick, in decode order.
        ticks: wanted instants in the stream's time base, in any order.
        shown: filled with tick -> pts of the frame on screen.
        reorder: the most pictures that may be stored before one that is shown before them.

    Yields:
        The packet and whether it is wanted; nothing after the last wanted one.
    """
    targets = deque(sorted(set(ticks)))
    held: deque[P] = deque()
    wanted: set[int] = set()
    latest: int | None = None  # greatest pts <= targets[0] so far
    ahead = 0  # packets with pts > targets[0] so far

    def look(packet: P) -> None:
        nonlocal latest, ahead
        if not targets or packet.pts is None or packet.is_discard:
            return
        if packet.pts > targets[0]:
            ahead += 1
        elif latest is None or packet.pts > latest:
            latest = packet.pts

    def settle() -> None:
        nonlocal ahead
        target = targets.popleft()
        ahead = 0
        if latest is not None:
            shown[target] = latest
            wanted.add(latest)
        for packet in held:
            look(packet)

    def undecided(packet: P) -> bool:
        if packet.pts is None or packet.pts in wanted:
            return False
        return packet.pts == latest or packet.pts > targets[0]

    for packet in packets:
        while targets and packet.dts is not None and packet.dts > targets[0] and ahead >= reorder:
            settle()
        if not targets:
            break
        held.append(packet)
        look(packet)
        while held and not undecided(held[0]):
            packet = held.popleft()
            yield packet, packet.pts in wanted
    while targets:
        settle()
    last = max((i for i, packet in enumerate(held) if packet.pts in wanted), default=-1)
    for packet in list(held)[: last + 1]:
        yield packet, packet.pts in wanted
