"""The video files of `frames.py`: long ones to time readers on, short ones that tell what is shown.

All are made here, from noise and arithmetic; in the short ones each frame carries its own index in
its pixels (`tests/support/videos.py`), so that a reader's seconds can be compared with the truth.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

sys.path.append(str(Path(__file__).parent.parent / "tests"))
from support.videos import TICKS, write_cut, write_video

FPS, SIZE = 24, (360, 640)


@dataclass(frozen=True)
class Film:
    """A short film whose truth is known."""

    path: Path
    starts: np.ndarray
    """Seconds from the film's first instant at which each frame appears, (N,)."""
    end: float
    """Seconds at which the last one ends."""
    first: int
    """The index that the first frame carries."""

    def seconds_off(self, indices: np.ndarray, times: np.ndarray) -> float:
        """The greatest distance from `times` (n,) to when the frames `indices` (n,) are shown.

        0 for a frame that is on screen at its time; a frame that the film does not hold counts as
        the whole film.
        """
        shown = indices - self.first
        bad = (shown < 0) | (shown >= len(self.starts))
        i = np.where(bad, 0, shown)
        ends = np.append(self.starts[1:], self.end)
        off = np.maximum(np.maximum(self.starts[i] - times, times - ends[i]), 0.0)
        return float(np.where(bad, self.end, off).max())


def make_film(minutes: int, gop: int, folder: Path) -> Path:
    """A film of that length: some groups of pictures encoded once, then repeated as packets."""
    path = folder / f"frames_{minutes}min_g{gop}.mp4"
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    pictures = gop * max(2, 480 // gop)
    part = folder / f"{path.stem}.{os.getpid()}.part.mp4"
    with av.open(str(part), "w") as out:
        stream = out.add_stream("libx264", rate=FPS)
        stream.height, stream.width = SIZE
        stream.pix_fmt = "yuv420p"
        stream.options = {
            "preset": "veryfast",
            "x264-params": f"keyint={gop}:min-keyint={gop}:scenecut=0:open-gop=0:bframes=3",
        }
        packets = [p for picture in _pictures(pictures) for p in stream.encode(picture)]
        packets += stream.encode(None)
        times = [(packet.pts, packet.dts) for packet in packets]
        base = packets[0].time_base
        ticks = round(Fraction(pictures, FPS) / base)  # of the part that repeats
        for repeat in range(-(-minutes * 60 * FPS // pictures)):
            for packet, (pts, dts) in zip(packets, times, strict=True):
                copy = av.Packet(bytes(packet))
                copy.stream, copy.time_base = stream, base
                copy.pts, copy.dts = pts + repeat * ticks, dts + repeat * ticks
                copy.is_keyframe = packet.is_keyframe
                if copy.pts < minutes * 60 / base:
                    out.mux(copy)
    with part.open("rb+") as file:
        os.fsync(file)  # what is not on disk yet cannot leave the page cache
    part.replace(path)
    return path


def _pictures(count: int) -> Iterator[av.VideoFrame]:
    """A panning texture, moving blocks and grain: enough of everything to cost what films do."""
    rng = np.random.default_rng(0)
    height, width = SIZE
    y, x = np.mgrid[:height, : 2 * width]
    waves = [np.sin((x * a + y * b) / 40) for a, b in ((1.0, 0.3), (0.4, 1.0), (0.7, -0.6))]
    texture = (120 + 60 * np.stack(waves, -1)).astype(np.uint8)
    grain = rng.integers(0, 12, (8, height, width, 1), np.uint8)
    for i in range(count):
        pan = int(width / 2 * (1 + np.sin(i / 90)))
        picture = texture[:, pan : pan + width] + grain[i % 8]
        for block in range(12):
            row = 20 * block + int(30 * np.sin(i / 9 + block)) + 40
            column = (97 * block + i * (block % 5 - 2)) % (width - 80)
            picture[row : row + 60, column : column + 80] = 20 * block
        frame = av.VideoFrame.from_ndarray(picture, "rgb24")
        frame.pts, frame.time_base = i, Fraction(1, FPS)
        yield frame


def make_truths(folder: Path) -> dict[str, Film]:
    """Films of a minute: a constant rate as a control, and three that readers get wrong."""
    constant = np.arange(60 * FPS) / FPS
    # a screen recording: hardly anything moves, then much, then some; it starts at 3 s
    gaps = np.repeat([TICKS // 6, TICKS // 48, TICKS // 12], [20 * 6, 10 * 48, 30 * 12])
    ticks = 3 * TICKS + np.concatenate([[0], np.cumsum(gaps)[:-1]])
    film = write_video(folder / "constant.mp4", frames=len(constant), gop=240)
    varying = write_video(folder / "variable.mp4", ticks=ticks.tolist(), gop=240)
    opened = write_video(folder / "open_gop.mp4", frames=len(constant), gop=240, open_gop=True)
    source = write_video(folder / "source.mp4", frames=80 * FPS, gop=240, open_gop=True)
    cut = write_cut(source, folder / "cut.mp4", start=25.0)  # copied from the key frame at 20 s
    return {
        "constant rate": Film(film, constant, 60.0, 0),
        "variable rate": Film(varying, (ticks - ticks[0]) / TICKS, 60.0, 0),
        "open GOP": Film(opened, constant, 60.0, 0),
        "copied cut": Film(cut, constant, 60.0, 20 * FPS),
    }
