"""The decoder of an environment: its frame store, its threads, and the time that it was waited for.

Under `simulation.py`, which asks it for the overviews of all rows that reset and for the crops of
all rows of a step. Run the tests with `pytest tests/env/test_vector.py tests/env/test_crops.py`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from paravt_env.budget import FrameBudget
from paravt_env.crop import CropRequest, CropResult
from paravt_env.episode.decode_crops import run_crops
from paravt_env.episode.overview import Overview, open_overviews
from paravt_env.settings import EnvSettings
from paravt_env.video.store.pool import DecodePool
from paravt_env.video.store.store import FrameStore
from paravt_env.video.types import VideoError


class VideoPools(NamedTuple):
    """What decodes in one process: the frame store, the threads that open files, the process."""

    store: FrameStore
    openers: DecodePool
    process: int


class Decoder:
    """Decodes what the rows of an environment ask for.

    Its threads are made on first use, in the process that uses them, and are left out of pickles
    and forks: a decoder shared over a fork is unusable.

    Attributes:
        settings: The environment's arguments.
        seconds: Wall time spent waiting for decoded frames so far.
    """

    def __init__(self, settings: EnvSettings) -> None:
        self.settings = settings
        self.seconds = 0.0
        self._pools: VideoPools | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Everything but the threads."""
        return {**self.__dict__, "_pools": None}

    @property
    def started(self) -> bool:
        """Whether this process has made the threads."""
        return self._pools is not None and self._pools.process == os.getpid()

    @property
    def store(self) -> FrameStore:
        """The frame store of this process, made on first use."""
        return self._running().store

    def overviews(
        self, requests: Sequence[tuple[str, int | FrameBudget]]
    ) -> list[Overview | VideoError]:
        """Open the videos (path and K of each row, or its budget) and decode their overviews."""
        pools = self._running()
        with self._clock():
            return open_overviews(requests, pools.store, pools.openers, self.settings)

    def crops(self, requests: Sequence[CropRequest]) -> list[CropResult]:
        """Decode the crops of all rows of a step."""
        if not requests:
            return []
        with self._clock():
            return run_crops(requests, self.store, self.settings)

    def close(self) -> None:
        """Stop the threads; a later use starts new ones."""
        if self._pools is not None and self._pools.process == os.getpid():
            self._pools.store.close()
            self._pools.openers.close()
        self._pools = None

    def _running(self) -> VideoPools:
        settings = self.settings
        if self._pools is None or self._pools.process != os.getpid():
            store = FrameStore(
                settings.backend,
                workers=settings.video_workers,
                isolation=settings.video_isolation,
                disk_bytes=settings.disk_cache_bytes,
                device=settings.video_device,
            )
            self._pools = VideoPools(store, DecodePool(settings.video_workers), os.getpid())
        return self._pools

    @contextmanager
    def _clock(self) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.seconds += time.perf_counter() - began
