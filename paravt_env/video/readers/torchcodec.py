"""The `torchcodec` back end, in its exact mode: torch's decoder on the system's FFmpeg.

Importing this module imports torch; `backends.py` does so only when the back end is asked for.
Frames are found by time in the table that torchcodec makes of the whole file, so variable frame
rates, open groups of pictures and turned pictures come out right; each frame's own time is compared
with the time asked for all the same. A damaged file is lost whole, where `pyav` reads the intact
part; that file is an error here. torchcodec does not tell where key frames are: no `snap`.

    pip install 'paravt[torchcodec]'    # and FFmpeg's shared libraries, 4 to 8

Run its tests: `python -m pytest tests/video/test_video_backends.py`.
"""

from __future__ import annotations

import functools

import numpy as np
import torch
from torch.nn.functional import interpolate
from torchcodec.decoders import AudioDecoder, VideoDecoder, VideoStreamMetadata

from paravt_env.video.deadline import check_deadline
from paravt_env.video.files import identify, refuse_playlist
from paravt_env.video.types import Frames, Size, VideoError, VideoInfo

UNIT = 16
"""Frames decoded between two looks at the deadline: they are held at full size."""

ROUNDING = 1e-7
"""Seconds: a time that was returned finds its frame again."""

PICTURES = frozenset({"bmp", "gif", "mjpeg", "pgm", "png", "ppm", "tiff", "webp"})
"""Codecs of covers and pictures, which FFmpeg shows as a video of one frame."""

TEXTS = frozenset({"ansi", "bintext", "xbin", "idf"})
"""Codecs of texts, which FFmpeg draws."""

if "rotation" not in VideoStreamMetadata.__dataclass_fields__:
    raise ImportError("this torchcodec does not turn pictures upright: install 0.12 or later")


class TorchCodecReader:
    """One open file. Used by one thread at a time, closed after use.

    Raises:
        VideoError: missing, empty, damaged, not a video, or without a video track.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        identify(path)
        refuse_playlist(path)
        try:
            self._decoder = VideoDecoder(
                path, dimension_order="NHWC", num_ffmpeg_threads=1, seek_mode="exact"
            )
        except (RuntimeError, ValueError) as error:
            reason = "holds no video that torchcodec can open, or is truncated or damaged"
            raise VideoError(path, f"{reason} ({_last_line(error)})") from error
        about = self._decoder.metadata
        still = about.codec in PICTURES and (about.num_frames or 0) < 2
        if still or about.codec in TEXTS:
            reason = "holds only a picture or a text: a task needs a file with a video track"
            raise VideoError(path, reason)
        if about.begin_stream_seconds is None or about.end_stream_seconds is None:
            raise VideoError(path, "torchcodec cannot tell its times: use backend='pyav'")
        self._first, self._end = about.begin_stream_seconds, about.end_stream_seconds
        self._origin = min(self._first, _sound_starts(path))

    @functools.cached_property
    def info(self) -> VideoInfo:
        """Duration, rate and size."""
        about = self._decoder.metadata
        rate = float(about.average_fps or 0.0)
        height, width = int(about.height or 0), int(about.width or 0)
        return VideoInfo(float(self._end - self._origin), rate, width, height)

    def split(self, times: np.ndarray) -> list[np.ndarray]:
        """Runs of `UNIT` neighbours in time: a second thread has to scan the file again."""
        order = np.argsort(times, kind="stable")
        return [order[i : i + UNIT] for i in range(0, len(order), UNIT)]

    def frames_at(self, times: np.ndarray, size: Size, deadline: float | None = None) -> Frames:
        """The frames on screen at `times`: see `VideoReader.frames_at`."""
        times = np.asarray(times, float)
        if not np.isfinite(times).all():
            raise ValueError("times must be finite seconds")
        pixels = np.empty((len(times), *size, 3), np.uint8)
        stamps = np.empty(len(times))
        last = np.nextafter(self._end, -np.inf) - ROUNDING
        played = np.clip(times + float(self._origin) + ROUNDING, float(self._first), last)
        for unit in self.split(times):
            check_deadline(self.path, deadline)
            try:
                batch = self._decoder.get_frames_played_at(torch.from_numpy(played[unit]))
            except (RuntimeError, IndexError) as error:
                at = f"near {times[unit[0]]:.2f} s ({_last_line(error)})"
                reason = f"cannot be decoded {at}: the file is damaged; copy or download it again"
                raise VideoError(self.path, reason) from error
            stamps[unit] = batch.pts_seconds.numpy()
            if (stamps[unit] > played[unit]).any():
                reason = "torchcodec returned a frame of a later time: use backend='pyav'"
                raise VideoError(self.path, reason)
            pixels[unit] = _resize(batch.data, size)
        return Frames(pixels, stamps - float(self._origin))

    def close(self) -> None:
        """Free the decoder."""
        self.__dict__.pop("_decoder", None)


def _resize(frames: torch.Tensor, size: Size) -> np.ndarray:
    """uint8 (N, h, w, 3) -> uint8 (N, *size, 3), bilinear, low-passed when it shrinks."""
    channels_first = frames.permute(0, 3, 1, 2)
    scaled = interpolate(channels_first, size, mode="bilinear", antialias=True)
    return scaled.permute(0, 2, 3, 1).numpy()


def _sound_starts(path: str) -> float:
    """When the sound starts, in seconds: as in a player, it may set the file's first instant."""
    try:
        begin = AudioDecoder(path).metadata.begin_stream_seconds_from_header
    except (RuntimeError, ValueError):  # there is no sound
        return float("inf")
    return float("inf") if begin is None else float(begin)


def _last_line(error: BaseException) -> str:
    return next(iter(reversed(str(error).strip().splitlines())), type(error).__name__)[-120:]
