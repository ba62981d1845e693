"""A clip in a message to a chat server: frames in one `video_url`, their times beside the messages.

Under `agents.chat.agent`, where `agent.frames_as` is `video`. The form is vLLM's: a `data:` URI of
`video/jpeg` that holds the pictures one after the other, sampled already, and `media_io_kwargs`
with their times, which hold for all videos of a request. Tests: `pytest
tests/policies/test_openai_agent.py`, and `make test-engines`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from agents.text.clips import clip_metadata
from paravt_env.common.images import data_uri

SCHEME = "data:video/jpeg;base64,"
"""What vLLM calls a list of pictures, whatever their encoding."""


def _twice(items: Iterable[Any]) -> list[Any]:
    """A clip's frames or times; a single one twice, for a server takes two at least."""
    given = list(items)
    return given * 2 if len(given) == 1 else given


def clip_url(frames: np.ndarray, kind: str = "jpeg") -> str:
    """Frames, uint8 (F, H, W, 3), as the URL of a `video_url`.

    >>> clip_url(np.zeros((3, 2, 2, 3), np.uint8), "png").count(",")
    3
    """
    pictures = [data_uri(frame, kind).partition(",")[2] for frame in _twice(frames)]
    return SCHEME + ",".join(pictures)


def media_settings(times: Sequence[float]) -> dict[str, Any]:
    """A request's `media_io_kwargs` for frames with these times (seconds).

    >>> media_settings([0.5])["video"]["frames_indices"]
    [500, 500]
    """
    return {"video": {**clip_metadata(_twice(times)), "num_frames": -1}}
