"""Overviews: open the videos of all rows that reset and decode their K frames, concurrently.

The first stretch of an episode, and the counterpart of `decode_crops.run_crops`: (path, K) of each
row -> what the video is and its overview frames, or the error that says why not. Rows that ask for
the same overview share one. Run the tests with `pytest tests/env/test_vector.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, InvalidStateError, wait
from typing import NamedTuple

import numpy as np

from paravt_env.budget import FrameBudget, frames_for
from paravt_env.settings import EnvSettings
from paravt_env.video.pictures import Pictures, fitted
from paravt_env.video.sampler import SNAP, overview_times
from paravt_env.video.store.pool import DecodePool, Job
from paravt_env.video.store.store import POLL, FrameStore
from paravt_env.video.types import Frames, Size, VideoError, VideoInfo, VideoTimeoutError


class TaskVideoError(VideoError):
    """The video of a task cannot be read: `task_id`, `path` and `reason`."""

    def __init__(self, task_id: str, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.args = (f"task {task_id!r}: {self}",)
        self.task_id = task_id

    def __reduce__(self) -> tuple:
        """All three arguments survive pickling."""
        return type(self), (self.task_id, self.path, self.reason)


class Overview(NamedTuple):
    """A video that could be opened and its overview frames (none for K = 0); or images.

    Images have a `video` of no seconds, as large as the first of them, and `sizes`, the height and
    width of each in pixels.
    """

    video: VideoInfo
    frames: Frames
    sizes: tuple[Size, ...] = ()


class _Opening:
    """One overview on its way; the pool writes off a hung file, and its late result is dropped."""

    def __init__(
        self, store: FrameStore, path: str, frame_budget: int | FrameBudget, settings: EnvSettings
    ) -> None:
        self.store, self.path, self.frame_budget = store, path, frame_budget
        self.settings = settings
        self.future: Future[Overview] = Future()

    def run(self, deadline: float | None) -> None:
        """Open and decode; called in a thread of the pool."""
        try:
            video = self.store.info(self.path, deadline)
            asked, duration = self.frame_budget, video.duration
            frames = asked if isinstance(asked, int) else frames_for(asked, duration)
            times = overview_times(duration, frames)
            if self.settings.overview_sampling == "snap" and len(times):
                within = SNAP * video.duration / len(times)
                times = self.store.snap(self.path, times, within, deadline)
            decoded = self.store.frames(self.path, times, self.settings.frame_size, deadline)
            square = self.settings.square_pixels
            self._settle(Overview(video.square() if square else video, decoded))
        except VideoTimeoutError:
            self.give_up()
        except Exception as error:  # raised again in the waiting thread
            self._settle(error)

    def give_up(self) -> None:
        """The deadline passed."""
        limit = self.settings.reset_timeout
        reason = f"the overview took longer than {limit:g} s to decode: raise reset_timeout"
        self._settle(VideoTimeoutError(self.path, reason))

    def _settle(self, outcome: Overview | Exception) -> None:
        try:
            if isinstance(outcome, Exception):
                self.future.set_exception(outcome)
            else:
                self.future.set_result(outcome)
        except InvalidStateError:
            pass  # written off meanwhile: the first outcome stands


def picture_overview(
    paths: Sequence[str], frame_budget: int, pictures: Pictures, settings: EnvSettings
) -> Overview:
    """The images of a task, the first K of them scaled into frames.

    All of them are looked at, so that one that no code could read is found here.

    Raises:
        VideoError: One cannot be read, or has too many pixels.
    """
    sizes = tuple(pictures.size(path) for path in paths)
    shown = [fitted(pictures.read(path), settings.frame_size) for path in paths[:frame_budget]]
    height, width = sizes[0]
    frames = (
        Frames(np.stack(shown), np.zeros(len(shown)))
        if shown
        else Frames.empty(settings.frame_size)
    )
    return Overview(VideoInfo(0.0, 0.0, width, height), frames, sizes)


def open_overviews(
    requests: Sequence[tuple[str, int | FrameBudget]],
    store: FrameStore,
    pool: DecodePool,
    settings: EnvSettings,
) -> list[Overview | VideoError]:
    """Open videos and decode their overviews.

    Args:
        requests: Path and K of each row, or the budget that says K of an open video.
        store: Where frames are decoded and kept; its own pool decodes.
        pool: The threads that open files and wait for the store.
        settings: Of the environment: the size of the frames, whether a frame moves to a key frame
            close to it (`sampler.snap_times`), and the seconds that one overview may take, counted
            from when its own opening starts.

    Returns:
        One outcome a request, in order; equal requests share one object.
    """
    openings = {key: _Opening(store, *key, settings) for key in dict.fromkeys(requests)}
    for opening in openings.values():
        pool.submit(Job(opening.run, opening.give_up, timeout=settings.reset_timeout))
    waiting = {opening.future for opening in openings.values()}
    while waiting:
        waiting = wait(waiting, timeout=POLL).not_done
        pool.reap()
    outcomes: dict[tuple[str, int | FrameBudget], Overview | VideoError] = {}
    for key, opening in openings.items():
        try:
            outcomes[key] = opening.future.result()
        except VideoError as error:
            outcomes[key] = error
    return [outcomes[key] for key in requests]
