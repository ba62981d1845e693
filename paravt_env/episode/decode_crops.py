"""Decode the crops of a turn: every row's windows go to one pool, each comes back with its status.

Between the actions that were read (`actions.py`) and the episode's next state. The
crops of every row of a turn share one pool; each has its own deadline and its own status, and a bad
one leaves its neighbours alone. Tests: `pytest tests/env/test_crops.py`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from paravt_env.crop import CropRequest, CropResult, CropStatus, Window
from paravt_env.settings import EnvSettings
from paravt_env.video.sampler import window_times
from paravt_env.video.store.store import FrameStore
from paravt_env.video.types import VideoError, VideoTimeoutError


def run_crops(
    requests: Sequence[CropRequest], store: FrameStore, settings: EnvSettings
) -> list[CropResult]:
    """Decode the crops of all rows concurrently; the results are in the order of the requests.

    Equal crops, as of a group's rows, are one decode with one deadline and share their frames.

    Args:
        requests: valid windows, of any rows and videos.
        store: where frames are decoded (its pool) and kept.
        settings: of the environment: size, rate and number of a crop's frames, and the seconds
            that it may take, counted from when **its own decoding starts**, so that the rows of a
            large batch do not time out in the queue.

    Returns:
        One result a request: `ok` with frames, `timeout` or `decode_error` with a message.
    """
    size, timeout = settings.frame_size, settings.crop_timeout
    pending = {}
    for key in dict.fromkeys(_key(request, settings) for request in requests):
        path, window, fps = key
        times = window_times(*window, fps=fps, max_frames=settings.frames_per_crop)
        pending[key] = store.submit(path, times, size, timeout=timeout)
    results = []
    for request in requests:
        frames = pending[_key(request, settings)]
        try:
            status, message, decoded = CropStatus.ok, "", frames.result()
        except VideoTimeoutError:
            message = f"the crop took longer than {timeout:g} s to decode"
            status, decoded = CropStatus.timeout, None
        except VideoError as error:
            # the reason, never the path: paths are not the model's business
            status, message, decoded = CropStatus.decode_error, error.reason, None
        clipped = request.clipped if status is CropStatus.ok else None
        results.append(CropResult(request.window, clipped, status, message, decoded, request.fps))
    return results


def _key(request: CropRequest, settings: EnvSettings) -> tuple[str, Window, float]:
    """What is decoded for a request: file, seconds, frames a second."""
    fps = settings.crop_fps if math.isnan(request.fps) else request.fps
    return request.path, request.clipped, fps
