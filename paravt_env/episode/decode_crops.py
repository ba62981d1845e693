"""Decode the crops of a turn: every row's windows go to one pool, each comes back with its status.

The stretch between the actions that were read (`actions.py`) and the episode that goes on. A bad
crop leaves its neighbours alone. Tests: `pytest tests/env/test_crops.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

from paravt_env.crop import CropRequest, CropResult, CropStatus
from paravt_env.video.sampler import window_times
from paravt_env.video.store.store import FrameStore
from paravt_env.video.types import Size, VideoError, VideoTimeoutError


def run_crops(
    requests: Sequence[CropRequest],
    store: FrameStore,
    *,
    size: Size,
    fps: float,
    max_frames: int,
    timeout: float | None,
) -> list[CropResult]:
    """Decode the crops of all rows concurrently; the results are in the order of the requests.

    Equal crops, as of a group's rows, are one decode with one deadline and share their frames.

    Args:
        requests: valid windows, of any rows and videos.
        store: where frames are decoded (its pool) and kept.
        size: height and width in pixels.
        fps: frames a second of a crop.
        max_frames: of one crop.
        timeout: seconds a crop may take, counted from when **its own decoding starts**, so that
            the rows of a large batch do not time out in the queue. None: no limit.

    Returns:
        One result a request: `ok` with frames, `timeout` or `decode_error` with a message.
    """
    pending = {}
    for path, window in dict.fromkeys((request.path, request.clipped) for request in requests):
        times = window_times(*window, fps=fps, max_frames=max_frames)
        pending[path, window] = store.submit(path, times, size, timeout=timeout)
    results = []
    for request in requests:
        frames = pending[request.path, request.clipped]
        try:
            status, message, decoded = CropStatus.ok, "", frames.result()
        except VideoTimeoutError:
            message = f"the crop took longer than {timeout:g} s to decode"
            status, decoded = CropStatus.timeout, None
        except VideoError as error:
            # the reason, never the path: paths are not the model's business
            status, message, decoded = CropStatus.decode_error, error.reason, None
        clipped = request.clipped if status is CropStatus.ok else None
        results.append(CropResult(request.window, clipped, status, message, decoded))
    return results
