"""The frame store: every frame is decoded once, whoever asks for it and however many at a time.

Between the environments and a back end: overviews and crops of all rows come here; what is in
memory is returned, what another row is decoding is waited for, the rest goes to the decode pool
in units of a key frame each. The rows of a group share their overview, so G rows cost one.

Run its tests: `python -m pytest tests/test_video.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Future, wait

import numpy as np

from paravt_env.video.cache import FrameCache, Shown
from paravt_env.video.decoding import Decoding, Description, check_deadline
from paravt_env.video.files import BACKENDS, FileId, identify, open_backend
from paravt_env.video.pool import DecodePool, Job
from paravt_env.video.types import (
    Frames,
    Size,
    VideoError,
    VideoInfo,
    VideoReader,
    VideoTimeoutError,
)

__all__ = ["BACKENDS", "FrameStore", "PendingFrames"]

DEFAULT_MEMORY = 512 * 2**20
"""Bytes of frames kept: about 3,900 of 160 x 288."""

POLL = 0.05
"""Seconds between looks at hung jobs while waiting."""


class FrameStore:
    """Decode-once frames for every environment of a process, safe from any thread.

    Args:
        backend: a name of `BACKENDS`, or a callable that opens a path.
        memory_bytes: the most that kept frames may take.
        workers: decode threads, started on first use (a store made before a fork is unusable
            after it only if it decoded something before).
    """

    def __init__(
        self,
        backend: str | Callable[[str], VideoReader] = "pyav",
        memory_bytes: int = DEFAULT_MEMORY,
        workers: int = 2,
    ) -> None:
        self._opener = open_backend(backend) if isinstance(backend, str) else backend
        self._pool = DecodePool(workers)
        self._cache = FrameCache(memory_bytes)
        self._infos: dict[FileId, VideoInfo] = {}

    @property
    def decoded(self) -> int:
        """Frames decoded so far."""
        return self._cache.decoded

    @property
    def hits(self) -> int:
        """Frames returned without decoding: kept, or being decoded for another request."""
        return self._cache.hits

    @property
    def kept_bytes(self) -> int:
        """Bytes of frames in memory now."""
        return self._cache.kept_bytes

    def info(self, path: str, deadline: float | None = None) -> VideoInfo:
        """Duration, frame rate and size of a video.

        Raises:
            VideoError: the file is missing, empty, truncated or has no video in it.
            VideoTimeoutError: `deadline`, an instant of `time.monotonic()`, passed.
        """
        file = identify(path)
        known = self._infos.get(file)
        if known is None:
            work = Description(path, self._opener)
            self._pool.submit(Job(work.run, work.give_up, deadline))
            self.wait([work.future], path, deadline)
            known = self._infos[file] = work.future.result()
        return known

    def frames(
        self, path: str, times: np.ndarray, size: Size, deadline: float | None = None
    ) -> Frames:
        """The frames on screen at `times` (seconds, (N,)), resized to `size` (height, width).

        Args:
            path: the video file.
            times: finite seconds, in any order; N times give N frames.
            size: height and width in pixels.
            deadline: instant of `time.monotonic()` after which to give up.

        Raises:
            VideoError: the file or some frame cannot be read.
            VideoTimeoutError: the deadline passed.
        """
        return PendingFrames(self, path, times, size, deadline=deadline).result()

    def submit(
        self, path: str, times: np.ndarray, size: Size, timeout: float | None = None
    ) -> PendingFrames:
        """Start decoding and return at once; errors come out of the result.

        Args:
            path: the video file.
            times: finite seconds, in any order.
            size: height and width in pixels.
            timeout: seconds from when the decoding of this request starts.
        """
        return PendingFrames(self, path, times, size, timeout=timeout)

    def claim(
        self,
        path: str,
        times: np.ndarray,
        size: Size,
        deadline: float | None = None,
        timeout: float | None = None,
    ) -> tuple[list[Future[Shown]], set[Future[Shown]]]:
        """A future for each time, and those that decode on the caller's own time.

        Raises:
            VideoError: the file is missing or empty.
        """
        futures, owned = self._cache.claim(identify(path), times.tolist(), size)
        if owned:
            work = Decoding(path, size, owned, self._cache, self._pool, self._opener)
            self._pool.submit(Job(work.run, work.give_up, deadline, timeout))
        return futures, set(owned.values())

    def wait(self, futures: Iterable[Future], path: str, deadline: float | None) -> None:
        """Wait until all are done, writing off jobs that hang.

        Raises:
            VideoTimeoutError: the deadline passed first.
        """
        waiting = set(futures)
        while waiting:
            waiting = wait(waiting, timeout=POLL).not_done
            self._pool.reap()
            if waiting:
                check_deadline(path, deadline)

    def close(self) -> None:
        """Stop the pool and forget the frames; requests that wait get a `VideoTimeoutError`."""
        self._pool.close()
        self._cache.clear()


class PendingFrames:
    """Frames on their way: one future a frame, shared with whoever asked for the same one."""

    def __init__(
        self,
        store: FrameStore,
        path: str,
        times: np.ndarray,
        size: Size,
        deadline: float | None = None,
        timeout: float | None = None,
    ) -> None:
        self._times = np.asarray(times, float).reshape(-1)
        if not np.isfinite(self._times).all():
            raise ValueError("frames were asked for at times that are not finite: validate windows")
        self._store, self._path = store, path
        self._size = (int(size[0]), int(size[1]))
        self._deadline, self._timeout = deadline, timeout
        self._futures: list[Future[Shown]] = []
        self._own: set[Future[Shown]] = set()
        self._error: VideoError | None = None
        try:
            self._futures, self._own = self._claim(self._times)
        except VideoError as error:
            self._error = error

    def result(self) -> Frames:
        """Wait for the frames.

        Raises:
            VideoError: some of them cannot be decoded.
            VideoTimeoutError: the deadline of this request passed.
        """
        if self._error is not None:
            raise self._error
        while True:
            self._store.wait(self._futures, self._path, self._deadline)
            errors = [future.exception() for future in self._futures]
            foreign = [
                i
                for i, future in enumerate(self._futures)
                if isinstance(errors[i], VideoTimeoutError) and future not in self._own
            ]
            if not foreign:
                break
            # another request's deadline, not ours: those frames are decoded on our own time
            futures, own = self._claim(self._times[foreign])
            self._own |= own
            for i, future in zip(foreign, futures, strict=True):
                self._futures[i] = future
        # a damaged file is the better explanation when there is also a timeout
        for error in sorted(filter(None, errors), key=lambda e: isinstance(e, VideoTimeoutError)):
            raise error
        if not self._futures:
            return Frames.empty(self._size)
        shown = [future.result() for future in self._futures]
        return Frames(np.stack([p for _, p in shown]), np.array([t for t, _ in shown], float))

    def _claim(self, times: np.ndarray) -> tuple[list[Future[Shown]], set[Future[Shown]]]:
        return self._store.claim(self._path, times, self._size, self._deadline, self._timeout)
