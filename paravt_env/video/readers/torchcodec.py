"""The `torchcodec` back end, in its exact mode: torch's decoder on the system's FFmpeg or on a GPU.

Importing this module imports torch; `backends.py` does so only when the back end is asked for.
Frames are found by time in the table that torchcodec makes of the whole file, so variable frame
rates, open groups of pictures and turned pictures come out right. What it gets wrong is refused
before it is opened (`facts.py`), and each frame's own time is compared with that of the packet that
is on screen. A damaged file is lost whole, where `pyav` reads the intact part; that file is an
error here. torchcodec does not tell where key frames are: no `snap`.

With `device="cuda"` an Nvidia GPU decodes (NVDEC) and resizes: the same frames at the same times,
whose colours differ from a CPU's by the GPU's own rounding.

    pip install 'paravt[torchcodec]'    # and FFmpeg's shared libraries, 4 to 8

Run its tests: `python -m pytest tests/video/test_video_backends.py`.
"""

from __future__ import annotations

import numpy as np
import torch
from torch.nn.functional import interpolate
from torchcodec.decoders import AudioDecoder, VideoDecoder, VideoStreamMetadata

from paravt_env.video.deadline import check_deadline
from paravt_env.video.files import identify, refuse_playlist
from paravt_env.video.readers.facts import INSTEAD, describe
from paravt_env.video.types import Frames, Size, VideoError

UNIT = 16
"""Frames decoded between two looks at the deadline: they are held at full size."""

ROUNDING = 1e-7
"""Seconds: a time that was returned finds its frame again."""

TOLERANCE = 2e-3
"""Seconds by which the time of a frame may differ from its packet's (a rounded time base)."""

PICTURES = frozenset({"bmp", "gif", "mjpeg", "pgm", "png", "ppm", "tiff", "webp"})
"""Codecs of covers and pictures, which FFmpeg shows as a video of one frame."""

TEXTS = frozenset({"ansi", "bintext", "xbin", "idf"})
"""Codecs of texts, which FFmpeg draws."""

if "rotation" not in VideoStreamMetadata.__dataclass_fields__:
    raise ImportError("this torchcodec does not turn pictures upright: install 0.12 or later")


def check_device(device: str) -> None:
    """Say so where there is no such device.

    Raises:
        RuntimeError: torch sees no GPU, or this torchcodec decodes on none.
    """
    if not device.startswith("cuda"):
        return
    if not torch.cuda.is_available():
        raise RuntimeError(
            f"video_device={device!r} needs an Nvidia GPU that torch sees, and it sees none "
            f"(torch {torch.__version__}): use video_device='cpu'"
        )


class TorchCodecReader:
    """One open file. Used by one thread at a time, closed after use.

    Args:
        path: a local video file.
        device: where it is decoded: `cpu`, or `cuda` or `cuda:N` for NVDEC.

    Raises:
        VideoError: missing, empty, damaged, not a video, without a video track, or of a kind that
            torchcodec reads wrong.
        RuntimeError: there is no such device.
    """

    def __init__(self, path: str, device: str = "cpu") -> None:
        self.path = path
        identify(path)
        refuse_playlist(path)
        check_device(device)
        facts = describe(path, "torchcodec")
        for wrong, kind in (
            (facts.table.starts_hidden, "cuts that begin with hidden frames"),
            (facts.is_mirrored, "mirrored pictures"),
            (facts.needs_note, "4:4:4 of old encoders"),
        ):
            if wrong:
                raise VideoError(path, f"torchcodec reads {kind} wrong: {INSTEAD}")
        self.info = facts.info
        self._starts, self._table = facts.table.starts, facts.table
        self._is_untagged_hd = facts.is_untagged_hd
        try:
            self._decoder = VideoDecoder(
                path,
                stream_index=facts.track,
                dimension_order="NHWC",
                num_ffmpeg_threads=1,
                device=device,
                seek_mode="exact",
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
            raise VideoError(path, f"torchcodec cannot tell its times: {INSTEAD}")
        self._first, self._end = about.begin_stream_seconds, about.end_stream_seconds
        self._origin = min(self._first, _sound_starts(path))

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
            on_screen = self._starts[self._table.at(times[unit])]
            if np.abs(stamps[unit] - float(self._origin) - on_screen).max() > TOLERANCE:
                reason = f"torchcodec returned a frame of another time: {INSTEAD}"
                raise VideoError(self.path, reason)
            pixels[unit] = _resize(batch.data, size, self._is_untagged_hd)
        return Frames(pixels, stamps - float(self._origin))

    def close(self) -> None:
        """Free the decoder."""
        self.__dict__.pop("_decoder", None)


def _resize(frames: torch.Tensor, size: Size, is_untagged_hd: bool) -> np.ndarray:
    """uint8 (N, h, w, 3) -> uint8 (N, *size, 3), bilinear, low-passed when it shrinks."""
    channels_first = frames.permute(0, 3, 1, 2)
    if frames.device.type == "cuda":  # torch resizes bytes on a CPU only
        channels_first = channels_first.float()
    scaled = interpolate(channels_first, size, mode="bilinear", antialias=True)
    images = scaled.permute(0, 2, 3, 1)
    if is_untagged_hd:
        images = images.float() @ _BT709_OF_BT601.T.to(images.device)
    if images.is_floating_point():
        images = images.round().clamp(0, 255).to(torch.uint8)
    return images.cpu().numpy()


def _rgb_of_ypbpr(red: float, blue: float) -> torch.Tensor:
    """The matrix (3, 3) from (Y', Pb, Pr) to (R', G', B'), by the weights of red and blue in Y'."""
    green = 1 - red - blue
    pb, pr = 2 * (1 - blue), 2 * (1 - red)
    rows = [[1, 0, pr], [1, -pb * blue / green, -pr * red / green], [1, pb, 0]]
    return torch.tensor(rows, dtype=torch.float32)


_BT709_OF_BT601 = _rgb_of_ypbpr(0.2126, 0.0722) @ _rgb_of_ypbpr(0.299, 0.114).inverse()
"""From the colours of a BT.601 decoder to those that the picture has (ITU-R BT.601-7, BT.709-6)."""


def _sound_starts(path: str) -> float:
    """When the sound starts, in seconds: as in a player, it may set the file's first instant."""
    try:
        begin = AudioDecoder(path).metadata.begin_stream_seconds_from_header
    except (RuntimeError, ValueError):  # there is no sound
        return float("inf")
    return float("inf") if begin is None else float(begin)


def _last_line(error: BaseException) -> str:
    return next(iter(reversed(str(error).strip().splitlines())), type(error).__name__)[-120:]
