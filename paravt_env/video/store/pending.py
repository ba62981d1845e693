"""A request's frames on their way: what `FrameStore.submit` returns at once.

Some are in memory, some are decoded for this request, some for another one that asked before; the
difference shows only when that other request gives up. Run its tests: `python -m pytest
tests/video/test_video.py`.
"""

from __future__ import annotations

from concurrent.futures import Future
from typing import TYPE_CHECKING

import numpy as np

from paravt_env.video.store.cache import Claim, Shown
from paravt_env.video.types import Frames, Size, VideoError, VideoTimeoutError

if TYPE_CHECKING:
    from paravt_env.video.store.store import FrameStore


class PendingFrames:
    """Frames on their way: a kept frame, or a future shared with whoever asked for it as well."""

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
        return Frames([pixels for _, pixels in shown], np.array([t for t, _ in shown], float))

    def _claim(self, times: np.ndarray) -> tuple[list[Claim], set[Future[Shown]]]:
        return self._store.claim(self._path, times, self._size, self._deadline, self._timeout)
