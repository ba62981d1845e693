"""The frame cache: frames in memory, and frames on their way, each with one decoder at work.

`store.py` claims frames here before it decodes any: a kept frame comes back at once, a frame that
another request is decoding comes back as that request's future, and only what is left is handed
out to be decoded. Run its tests: `python -m pytest tests/video/test_video.py`.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future
from typing import NamedTuple

import numpy as np

from paravt_env.video.files import FileId
from paravt_env.video.types import Size

Key = tuple[FileId, Size, float]
"""A frame as asked for: file, height and width, seconds."""


class Shown(NamedTuple):
    """A frame as decoded."""

    stamp: float
    """Seconds at which it appears."""
    pixels: np.ndarray
    """uint8 (H, W, 3)."""
    slow: bool = False
    """See `Frames.slow`."""


Claim = Shown | Future[Shown]
"""A frame that is kept, or one on its way."""


class FrameCache:
    """Least recently used frames out first, under a cap in bytes; safe from any thread.

    Frames are kept by the timestamp they have, not by the time they were asked for: two times at
    which the same frame is on screen share one.

    Args:
        memory_bytes: the most that kept frames may take.

    Attributes:
        decoded: frames delivered by decoders so far.
        hits: frames claimed that needed no decoding of their own.
        kept_bytes: what the kept frames take now.
    """

    def __init__(self, memory_bytes: int) -> None:
        self.memory_bytes = memory_bytes
        self.decoded = self.hits = self.kept_bytes = 0
        self._lock = threading.Lock()
        self._kept: OrderedDict[Key, Shown] = OrderedDict()  # keyed by timestamp
        self._stamps: dict[Key, float] = {}  # keyed by time asked for
        self._coming: dict[Key, Future[Shown]] = {}  # keyed by time asked for

    def claim(
        self, file: FileId, times: Sequence[float], size: Size
    ) -> tuple[list[Claim], dict[Key, Future[Shown]]]:
        """A claim for each time, and those that the caller must see `deliver`ed or `fail`ed."""
        claims: list[Claim] = []
        owned: dict[Key, Future[Shown]] = {}
        with self._lock:
            for time in times:
                key = (file, size, time)
                claim = self._find(key)
                if claim is None:
                    claim = self._coming[key] = owned[key] = Future()
                else:
                    self.hits += 1
                claims.append(claim)
        return claims, owned

    def awaits(self, key: Key, future: Future[Shown]) -> bool:
        """Whether the frame is still to be delivered: not written off meanwhile."""
        with self._lock:
            return self._coming.get(key) is future

    def deliver(
        self,
        key: Key,
        future: Future[Shown],
        shown: Shown,
        decoded: bool = True,
    ) -> None:
        """Hand over a frame, decoded or read from disk, unless the claim was written off."""
        with self._lock:
            if self._coming.get(key) is not future:
                return
            del self._coming[key]
            self.decoded += decoded
            kept = (key[0], key[1], shown.stamp)
            if kept not in self._kept:
                copy = shown.pixels.copy()  # not a view that keeps the whole batch alive
                copy.flags.writeable = False  # every caller gets this array
                self._kept[kept] = shown._replace(pixels=copy)
                self.kept_bytes += copy.nbytes
            shown = self._kept[kept]
            self._kept.move_to_end(kept)
            self._stamps[key] = shown.stamp
            self._evict()
        future.set_result(shown)

    def fail(self, key: Key, future: Future[Shown], error: BaseException) -> None:
        """Hand over an error, unless the frame was delivered or the claim written off."""
        with self._lock:
            if self._coming.get(key) is not future:
                return
            del self._coming[key]
        future.set_exception(error)

    def clear(self) -> None:
        """Forget the kept frames; claims are not touched."""
        with self._lock:
            self._kept.clear()
            self._stamps.clear()
            self.kept_bytes = 0

    def _find(self, key: Key) -> Claim | None:
        stamp = self._stamps.get(key)
        if stamp is not None:
            kept = (key[0], key[1], stamp)
            if kept in self._kept:
                self._kept.move_to_end(kept)
                return self._kept[kept]
            del self._stamps[key]
        return self._coming.get(key)

    def _evict(self) -> None:
        while self.kept_bytes > self.memory_bytes:
            _, shown = self._kept.popitem(last=False)
            self.kept_bytes -= shown.pixels.nbytes
        if len(self._stamps) > 4 * len(self._kept) + 4096:
            kept = self._kept
            self._stamps = {k: t for k, t in self._stamps.items() if (k[0], k[1], t) in kept}
