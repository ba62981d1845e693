"""The work that pool threads do: describe a file, or decode the frames that a request claimed.

Between `store.py`, which makes these, and a back end, which they open and close. Run its tests:
`python -m pytest tests/video/test_video.py`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import closing, suppress
from typing import Generic, TypeVar

import numpy as np

from paravt_env.video.deadline import LATE, check_deadline
from paravt_env.video.store.cache import FrameCache, Key, Shown
from paravt_env.video.store.disk import DiskFrames
from paravt_env.video.store.pool import DecodePool, Job
from paravt_env.video.types import Size, VideoError, VideoReader, VideoTimeoutError

Opener = Callable[[str, float | None], VideoReader]
"""Opens a path before a deadline, an instant of `time.monotonic()`.

A back end in a thread cannot be interrupted while it opens, and ignores it.
"""

T = TypeVar("T")


class Inspection(Generic[T]):
    """A question about a file that needs no frame: what `FrameStore.info` and `snap` wait for."""

    def __init__(self, path: str, opener: Opener, look: Callable[[VideoReader], T]) -> None:
        self.path, self._opener, self._look = path, opener, look
        self.future: Future[T] = Future()

    def run(self, deadline: float | None) -> None:
        """Open, look, close; called on a thread of the pool."""
        try:
            check_deadline(self.path, deadline)
            with closing(self._opener(self.path, deadline)) as reader:
                answer = self._look(reader)
        except BaseException as error:  # raised again in the thread that waits
            with suppress(InvalidStateError):  # written off meanwhile
                self.future.set_exception(error)
            return
        with suppress(InvalidStateError):
            self.future.set_result(answer)

    def give_up(self) -> None:
        """The pool wrote the job off."""
        with suppress(InvalidStateError):
            self.future.set_exception(VideoTimeoutError(self.path, LATE))


class Decoding:
    """The frames that one request must decode: units in a queue that several threads may empty."""

    def __init__(
        self,
        path: str,
        size: Size,
        owned: dict[Key, Future[Shown]],
        cache: FrameCache,
        pool: DecodePool,
        opener: Opener,
        disk: DiskFrames | None = None,
    ) -> None:
        self.path, self.size = path, size
        self._keys = list(owned)
        self._owned = owned
        self._times = np.array([key[2] for key in owned], float)
        self._cache, self._pool, self._opener, self._disk = cache, pool, opener, disk
        self._units: deque[np.ndarray] | None = None  # unknown until the file is open

    def run(self, deadline: float | None) -> None:
        """Open the file, share the units with idle threads, decode until none is left."""
        try:
            check_deadline(self.path, deadline)
            if self._units is not None and not self._units:
                return
            wanted = None if self._units is not None else self._read_disk(deadline)
            if wanted is not None and not len(wanted):
                return
            with closing(self._opener(self.path, deadline)) as reader:
                if wanted is not None:
                    self._units = deque(wanted[u] for u in reader.split(self._times[wanted]))
                    for _ in range(min(len(self._units) - 1, self._pool.idle())):
                        self._pool.submit(Job(self.run, self.give_up, deadline))
                while self._units:
                    with suppress(IndexError):  # another thread took the last one
                        self._decode(reader, self._units.popleft(), deadline)
        except BaseException as error:  # raised again in the thread that waits
            self._fail(range(len(self._keys)), error)

    def give_up(self) -> None:
        """The pool wrote the job off: it hangs, or the store was closed."""
        self._fail(range(len(self._keys)), VideoTimeoutError(self.path, LATE))

    def _decode(self, reader: VideoReader, unit: np.ndarray, deadline: float | None) -> None:
        check_deadline(self.path, deadline)
        try:
            frames = reader.frames_at(self._times[unit], self.size, deadline)
        except VideoTimeoutError:
            raise
        except VideoError as error:
            self._fail(unit.tolist(), error)  # the other units may well be intact
            return
        slow = np.zeros(len(frames), bool) if frames.slow is None else frames.slow
        for i, *delivered in zip(
            unit.tolist(), frames.timestamps.tolist(), frames.pixels, slow.tolist(), strict=True
        ):
            shown = Shown(*delivered)
            key = self._keys[i]
            if self._disk is not None and self._cache.awaits(key, self._owned[key]):
                self._disk.save(key, shown)  # first, so that who has it finds it there
            self._cache.deliver(key, self._owned[key], shown)

    def _read_disk(self, deadline: float | None) -> np.ndarray:
        """Deliver what is on disk; indices of the frames that are left to decode."""
        if self._disk is None:
            return np.arange(len(self._keys))
        left = []
        for i, key in enumerate(self._keys):
            check_deadline(self.path, deadline)
            kept = self._disk.load(key)
            if kept is None:
                left.append(i)
            else:
                self._cache.deliver(key, self._owned[key], kept, decoded=False)
        return np.array(left, int)

    def _fail(self, indices: range | list[int], error: BaseException) -> None:
        for i in indices:
            self._cache.fail(self._keys[i], self._owned[self._keys[i]], error)
