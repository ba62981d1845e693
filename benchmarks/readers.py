"""What `frames.py` compares: ParaVT's back ends, and the readers that agentic-video code uses.

Each is a `Session`: frames of one window, or of several at once, as RGB of `SCALED`. The peers are
called as their manuals show, with their own defaults for threads; the windows of a turn run in a
thread each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import av
import numpy as np

from paravt_env.video import FrameStore
from paravt_env.video.sampler import SNAP

SCALED = (168, 280)
Window = tuple[float, float]


class Session(Protocol):
    """A reader as one rollout meets it: nothing decoded yet."""

    shares: bool
    """Whether another rollout of the group gets the frames of the first one."""

    def times(self, window: Window, n: int) -> np.ndarray:
        """Which instants it takes `n` frames of a window to be, seconds (n,)."""

    def frames(self, path: str, window: Window, n: int) -> np.ndarray:
        """`n` frames of a window in seconds, (n, *SCALED, 3): uint8, or float of 0 to 255."""

    def several(self, path: str, windows: Sequence[Window], n: int) -> None:
        """The same of several windows at once."""

    def close(self) -> None:
        """Release what is held."""


class ParaVT:
    """A fresh frame store; with `snap`, `frames` treats its window as an overview."""

    shares = True

    def __init__(self, backend: str = "pyav", snap: bool = False, **options) -> None:
        self._store, self._snap = FrameStore(backend, **options), snap

    def times(self, window: Window, n: int) -> np.ndarray:
        """The middles of equal parts."""
        return _middles(window, n)

    def frames(self, path: str, window: Window, n: int) -> np.ndarray:
        """See `Session`."""
        times = self.times(window, n)
        if self._snap:
            times = self._store.snap(path, times, SNAP * (window[1] - window[0]) / n)
        return self._store.frames(path, times, SCALED).pixels

    def several(self, path: str, windows: Sequence[Window], n: int) -> None:
        """See `Session`; crops are exact, whatever the overview is."""
        pending = [self._store.submit(path, self.times(w, n), SCALED) for w in windows]
        for frames in pending:
            assert frames.result().pixels.shape == (n, *SCALED, 3)

    def close(self) -> None:
        """See `Session`."""
        self._store.close()


class Peer:
    """A function that fetches; every rollout calls it again."""

    shares = False

    def __init__(
        self,
        fetch: Callable[[str, Window, int], np.ndarray],
        times: Callable[[Window, int], np.ndarray],
    ) -> None:
        self.frames, self.times = fetch, times

    def several(self, path: str, windows: Sequence[Window], n: int) -> None:
        """See `Session`."""
        with ThreadPoolExecutor(len(windows)) as threads:
            for frames in threads.map(lambda window: self.frames(path, window, n), windows):
                assert frames.shape == (n, *SCALED, 3)

    def close(self) -> None:
        """Nothing is held."""


_QWEN_BACKENDS: dict[str, Callable] = {}
"""qwen-vl-utils' own table of back ends, as it was found."""


def qwen_vl_utils(backend: str) -> Peer:
    """The peers' default reader with one of its back ends."""
    from qwen_vl_utils import vision_process

    def fetch(path: str, window: Window, n: int) -> np.ndarray:
        vision_process.FORCE_QWENVL_VIDEO_READER = backend
        vision_process.get_video_reader_backend.cache_clear()
        asked = {"video": path, "nframes": n, "video_start": window[0], "video_end": window[1]}
        asked |= {"resized_height": SCALED[0], "resized_width": SCALED[1]}
        # fetch_video would replace a back end that fails by torchvision, and tell the log only
        vision_process.VIDEO_READER_BACKENDS["torchvision"] = _QWEN_BACKENDS[backend]
        return vision_process.fetch_video(asked).permute(0, 2, 3, 1).numpy()

    _QWEN_BACKENDS.update(vision_process.VIDEO_READER_BACKENDS | _QWEN_BACKENDS)
    return Peer(fetch, _ends)


def decord_raw() -> Peer:
    """Decord by frame number: seconds times the average rate, as its examples do."""
    import decord

    def fetch(path: str, window: Window, n: int) -> np.ndarray:
        height, width = SCALED
        reader = decord.VideoReader(path, ctx=decord.cpu(0), width=width, height=height)
        numbers = (_middles(window, n) * reader.get_avg_fps()).astype(int)
        return reader.get_batch(np.minimum(numbers, len(reader) - 1).tolist()).asnumpy()

    return Peer(fetch, _middles)


def torchcodec_raw(mode: str) -> Peer:
    """Torchcodec by time, its frames resized by torch; `approximate` scans nothing."""
    import torch
    from torchcodec.decoders import VideoDecoder

    def fetch(path: str, window: Window, n: int) -> np.ndarray:
        decoder = VideoDecoder(path, seek_mode=mode)
        begin = decoder.metadata.begin_stream_seconds or 0.0
        played = torch.from_numpy(_middles(window, n) + float(begin))
        frames = decoder.get_frames_played_at(played).data
        scaled = torch.nn.functional.interpolate(frames, SCALED, mode="bilinear", antialias=True)
        return scaled.permute(0, 2, 3, 1).numpy()

    return Peer(fetch, _middles)


def opencv() -> Peer:
    """OpenCV: seek to each time, read, resize."""
    import cv2

    def fetch(path: str, window: Window, n: int) -> np.ndarray:
        video = cv2.VideoCapture(path)
        frames = []
        for moment in _middles(window, n):
            video.set(cv2.CAP_PROP_POS_MSEC, 1000 * moment)
            done, picture = video.read()
            if not done:
                raise RuntimeError(f"OpenCV reads no frame at {moment:.2f} s")
            frames.append(cv2.cvtColor(cv2.resize(picture, SCALED[::-1]), cv2.COLOR_BGR2RGB))
        video.release()
        return np.stack(frames)

    return Peer(fetch, _middles)


def pyav_plain() -> Peer:
    """PyAV as its manual shows it: seek, decode up to the time, convert."""

    def fetch(path: str, window: Window, n: int) -> np.ndarray:
        frames = []
        with av.open(path) as container:
            stream = container.streams.video[0]
            begin = float((stream.start_time or 0) * stream.time_base)
            for moment in _middles(window, n) + begin:
                container.seek(int(moment / stream.time_base), stream=stream)
                for frame in container.decode(stream):
                    if frame.time + 1 / float(stream.average_rate) > moment:
                        break
                size = {"height": SCALED[0], "width": SCALED[1]}
                frames.append(frame.to_ndarray(format="rgb24", **size))
        return np.stack(frames)

    return Peer(fetch, _middles)


BASELINE = "ParaVT exact, 2 threads"
SNAPPED = "ParaVT snap, 2 threads"

READERS: dict[str, Callable[[], Session]] = {
    BASELINE: lambda: ParaVT(workers=2),
    "ParaVT exact, 1 thread": lambda: ParaVT(workers=1),
    "ParaVT exact, 2 processes": lambda: ParaVT(workers=2, isolation="process"),
    SNAPPED: lambda: ParaVT(workers=2, snap=True),
    "ParaVT on torchcodec": lambda: ParaVT("torchcodec", workers=2),
    "ParaVT on decord": lambda: ParaVT("decord", workers=2),
    "qwen-vl-utils, torchcodec": lambda: qwen_vl_utils("torchcodec"),
    "qwen-vl-utils, decord": lambda: qwen_vl_utils("decord"),
    "qwen-vl-utils, torchvision": lambda: qwen_vl_utils("torchvision"),
    "torchcodec exact": lambda: torchcodec_raw("exact"),
    "torchcodec approximate": lambda: torchcodec_raw("approximate"),
    "decord": decord_raw,
    "OpenCV, seek and read": opencv,
    "PyAV, seek and decode": pyav_plain,
}
"""Name -> how a session of it starts; importing what it needs is the start's business."""

QUICK = (BASELINE, SNAPPED, "ParaVT on torchcodec", "decord")
QUICK += ("qwen-vl-utils, torchcodec", "qwen-vl-utils, decord", "qwen-vl-utils, torchvision")
"""The readers of a quick run."""


def _middles(window: Window, n: int) -> np.ndarray:
    return window[0] + (np.arange(n) + 0.5) * ((window[1] - window[0]) / n)


def _ends(window: Window, n: int) -> np.ndarray:
    return np.linspace(*window, n)
