"""Open a file and choose its video track, before anything is known of its packets.

The first step of `pyav.py`. Run its tests: `python -m pytest tests/video/test_video_broken.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

import av

from paravt_env.video.files import refuse_playlist
from paravt_env.video.types import VideoError

NOT_VIDEO = frozenset({"tty", "bin", "adf", "idf", "xbin", "image2"})
"""Container formats in which FFmpeg shows texts and single pictures as video."""


def open_video(path: str) -> tuple[av.container.InputContainer, av.VideoStream]:
    """The open file and its main video track, decoded on one thread.

    Raises:
        VideoError: not a video, truncated, without a video track, or without pictures of a size.
    """
    refuse_playlist(path)
    try:
        container = av.open(path, options={"protocol_whitelist": "file"})
    except (av.FFmpegError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        reason = f"is not a video that FFmpeg can open, or is truncated ({why}): "
        raise VideoError(path, f"{reason}copy or download it again") from error
    videos = moving_tracks(container)
    name = container.format.name
    if not videos or name in NOT_VIDEO or name.endswith("_pipe"):  # png_pipe, ppm_pipe, ...
        has = "only audio" if container.streams.audio else "no video"
        container.close()
        raise VideoError(path, f"holds {has}: a task needs a file with a video track")
    stream = main_track(videos)
    if not stream.time_base or not stream.codec_context.width:
        container.close()
        raise VideoError(path, "the video track has no picture size: the file is damaged")
    stream.codec_context.thread_count = 1
    return container, stream


def moving_tracks(container: av.container.InputContainer) -> list[av.VideoStream]:
    """The video tracks that are no cover picture."""
    cover = av.stream.Disposition.attached_pic
    return [stream for stream in container.streams.video if not stream.disposition & cover]


def main_track(videos: Sequence[av.VideoStream]) -> av.VideoStream:
    """The largest of the tracks that are marked as default; of all, where none is."""
    marked = [s for s in videos if s.disposition & av.stream.Disposition.default]
    return max(marked or videos, key=lambda s: s.codec_context.width * s.codec_context.height)
