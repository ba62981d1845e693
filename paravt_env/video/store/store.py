"""The frame store: every frame is decoded once, for any number of readers.

Between the environments and a back end: overviews and crops of all rows come here; what is in
memory is returned, what another row is decoding is waited for, the rest goes to the decode pool
in units of a key frame each. The rows of a group share their overview, so G rows cost one.

Run its tests: `python -m pytest tests/video/test_video.py`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from concurrent.futures import Future, wait
from pathlib import Path
from typing import TypeVar

import numpy as np

from paravt_env.video.deadline import check_deadline
from paravt_env.video.files import FileId, identify
from paravt_env.video.readers.backends import BACKENDS, CPU, isolated, resolve_backend
from paravt_env.video.readers.isolation import WorkerPool
from paravt_env.video.sampler import snap_times
from paravt_env.video.store.cache import Claim, FrameCache, Shown
from paravt_env.video.store.decoding import Decoding, Inspection, Opener
from paravt_env.video.store.disk import DiskFrames
from paravt_env.video.store.pool import DecodePool, Job
from paravt_env.video.types import (
    Frames,
    KeyFrameReader,
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

KEPT_SNAPS = 1024
"""Overviews whose snapped times are remembered."""

T = TypeVar("T")


class FrameStore:
    """Decode-once frames for every environment of a process, safe from any thread.

    Args:
        backend: a name of `BACKENDS`, `auto`, or a callable that opens a path.
        memory_bytes: the most that kept frames may take.
        workers: decode threads, started on first use (a store made before a fork is unusable
            after it only if it decoded something before).
        isolation: `thread`; `process`, where a decoder that hangs or crashes is killed; or `auto`,
            which is a process for the back ends that need it (`backends.KILL_TO_STOP`).
        disk_bytes: the most that frames on disk may take, shared by all processes that use the same
            folder; 0 keeps none.
        disk_folder: their folder, default `disk.default_folder()`.
        device: where a back end of `backends.ON_GPU` decodes: `cpu`, `cuda` or `cuda:N`.

    Attributes:
        backend: the name of the back end that decodes, never `auto`.
        isolated: whether it decodes in processes of its own.
        disk: the frames on disk, or None.

    Raises:
        ValueError: a name that does not exist, or a callable to be run in a process.
        ImportError: the back end is not installed, or does not load.
        RuntimeError: `device` is a GPU, and there is none.
    """

    def __init__(
        self,
        backend: str | Callable[[str], VideoReader] = "pyav",
        memory_bytes: int = DEFAULT_MEMORY,
        workers: int = 2,
        isolation: str = "auto",
        disk_bytes: int = 0,
        disk_folder: Path | None = None,
        device: str = CPU,
    ) -> None:
        self._workers: WorkerPool | None = None
        self._opener: Opener
        if isinstance(backend, str):
            resolved = resolve_backend(backend, device)
            on = "" if device == CPU else f" {device}"
            self.backend, source = resolved.name, f"{resolved.target} {resolved.version}{on}"
            self.isolated = isolated(resolved.name, isolation)
            if self.isolated:
                self._workers = WorkerPool(resolved)
                self._opener = self._workers.open
            else:
                self._opener = _without_deadline(resolved.load())
        else:
            self.backend = source = getattr(backend, "__qualname__", type(backend).__qualname__)
            self.isolated = isolated(self.backend, isolation)
            if self.isolated:
                raise ValueError("only a back end of BACKENDS, by name, can decode in a process")
            self._opener = _without_deadline(backend)
        self.disk = DiskFrames(disk_bytes, source, disk_folder) if disk_bytes else None
        self._pool = DecodePool(workers)
        self._cache = FrameCache(memory_bytes)
        self._infos: dict[FileId, VideoInfo] = {}
        self._snaps: OrderedDict[tuple[FileId, bytes, float], np.ndarray] = OrderedDict()

    @property
    def decoded(self) -> int:
        """Frames decoded so far."""
        return self._cache.decoded

    @property
    def hits(self) -> int:
        """Frames returned from memory: kept, or being decoded for another request."""
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
            known = self._infos[file] = self._look(path, lambda r: r.info, deadline)
        return known

    def snap(
        self, path: str, times: np.ndarray, within: float, deadline: float | None = None
    ) -> np.ndarray:
        """`times` (seconds, (N,)) moved to the nearest key frames: see `sampler.snap_times`.

        Raises:
            ValueError: the back end does not tell where key frames are.
            VideoError: the file cannot be read.
            VideoTimeoutError: the deadline passed.
        """
        key = (identify(path), np.asarray(times, float).tobytes(), within)
        known = self._snaps.get(key)
        if known is None:
            keys = self._look(path, lambda r: _key_times(r, times), deadline)
            if keys is None:
                raise ValueError(
                    f"the video back end {self.backend!r} does not tell where key frames are: "
                    "use backend='pyav', or overview_sampling='exact'"
                )
            known = self._snaps[key] = snap_times(times, keys, within)
            while len(self._snaps) > KEPT_SNAPS:
                self._snaps.popitem(last=False)
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
    ) -> tuple[list[Claim], set[Future[Shown]]]:
        """A claim for each time, and those that decode on the caller's own time.

        Raises:
            VideoError: the file is missing or empty.
        """
        claims, owned = self._cache.claim(identify(path), times.tolist(), size)
        if owned:
            work = Decoding(path, size, owned, self._cache, self._pool, self._opener, self.disk)
            self._pool.submit(Job(work.run, work.give_up, deadline, timeout))
        return claims, set(owned.values())

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
        if self._workers is not None:
            self._workers.close()
        self._cache.clear()

    def _look(self, path: str, look: Callable[[VideoReader], T], deadline: float | None) -> T:
        work = Inspection(path, self._opener, look)
        self._pool.submit(Job(work.run, work.give_up, deadline))
        self.wait([work.future], path, deadline)
        return work.future.result()


def _without_deadline(opener: Callable[[str], VideoReader]) -> Opener:
    return lambda path, deadline: opener(path)


def _key_times(reader: VideoReader, times: np.ndarray) -> np.ndarray | None:
    return reader.key_times(times) if isinstance(reader, KeyFrameReader) else None


class PendingFrames:
    """Frames on their way: a kept frame, or a future that several callers share."""

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
        self._claims: list[Claim] = []
        self._own: set[Future[Shown]] = set()
        self._error: VideoError | None = None
        try:
            self._claims, self._own = self._claim(self._times)
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
            coming = {i: one for i, one in enumerate(self._claims) if isinstance(one, Future)}
            self._store.wait(coming.values(), self._path, self._deadline)
            errors = [future.exception() for future in coming.values()]
            foreign = [
                i
                for (i, future), error in zip(coming.items(), errors, strict=True)
                if isinstance(error, VideoTimeoutError) and future not in self._own
            ]
            if not foreign:
                break
            # another request's deadline, not ours: those frames are decoded on our own time
            claims, own = self._claim(self._times[foreign])
            self._own |= own
            for i, claim in zip(foreign, claims, strict=True):
                self._claims[i] = claim
        # a damaged file is the better explanation when there is also a timeout
        for error in sorted(filter(None, errors), key=lambda e: isinstance(e, VideoTimeoutError)):
            raise error
        if not self._claims:
            return Frames.empty(self._size)
        shown = [one.result() if isinstance(one, Future) else one for one in self._claims]
        slow = np.array([one.slow for one in shown])
        stamps = np.array([one.stamp for one in shown], float)
        return Frames([one.pixels for one in shown], stamps, slow if slow.any() else None)

    def _claim(self, times: np.ndarray) -> tuple[list[Claim], set[Future[Shown]]]:
        return self._store.claim(self._path, times, self._size, self._deadline, self._timeout)
