"""Clips as Qwen3-VL takes them: the times that are told, and the frames of each temporal patch.

Pure functions of frames and times, for contexts of tokens (`agents/model/video.py`) and for
messages to a chat server (`agents/chat/video.py`). Tests: `pytest
tests/policies/test_video_channel.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

TICKS = 1000.0
"""Ticks a second in which a clip's times are told: a frame's index is its time in milliseconds."""


def clip_metadata(times: Sequence[float]) -> dict[str, Any]:
    """The `video_metadata` of frames with these times (seconds), as transformers and vLLM take it.

    >>> clip_metadata([0.5, 1.0])
    {'fps': 1000.0, 'frames_indices': [500, 1000], 'total_num_frames': 1001}
    """
    ticks = [round(float(time) * TICKS) for time in times]
    return {"fps": TICKS, "frames_indices": ticks, "total_num_frames": max(ticks, default=0) + 1}


def stamps(times: Sequence[float], temporal: int = 2) -> list[str]:
    """The text before each temporal patch of frames with these times (seconds).

    A stamp is the mean of the times of a patch's first and last frame, to a tenth, as in
    `Qwen3VLProcessor`.

    >>> stamps([1.0, 2.0, 7.0])
    ['<1.5 seconds>', '<7.0 seconds>']
    """
    seconds = [tick / TICKS for tick in clip_metadata(times)["frames_indices"]]
    seconds += seconds[-1:] * (-len(seconds) % temporal)
    ends = zip(seconds[::temporal], seconds[temporal - 1 :: temporal], strict=True)
    return [f"<{(first + last) / 2:.1f} seconds>" for first, last in ends]


def temporal_patches(frames: np.ndarray, temporal: int = 2) -> list[np.ndarray]:
    """Frames (F, H, W, 3) as temporal patches (temporal, H, W, 3), views where that is possible.

    The last frame is repeated where the frames do not fill the last patch.
    """
    patches = []
    for first in range(0, len(frames), temporal):
        patch = frames[first : first + temporal]
        if len(patch) == 1:
            patch = np.broadcast_to(patch, (temporal, *patch.shape[1:]))
        elif len(patch) < temporal:
            patch = np.concatenate([patch, *[patch[-1:]] * (temporal - len(patch))])
        patches.append(patch)
    return patches
