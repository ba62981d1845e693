"""Tiny real video files whose every frame carries its own index, burned into the pixels.

`burn` writes a frame index as two rows of eight black or white squares, `read_index` reads it back
from a decoded frame of any size: a test then compares frame numbers, not pictures.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

HEIGHT, WIDTH = 64, 128
BITS = 16
TICKS = 12_000
"""Time base of the files: ticks a second."""


def burn(index: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """A picture that shows `index` in binary: uint8 (height, width, 3)."""
    bits = np.array([(index >> b) & 1 for b in range(BITS)], np.uint8).reshape(2, BITS // 2)
    blocks = np.kron(bits, np.ones((height // 2, 2 * width // BITS), np.uint8))
    return np.repeat((blocks * 180 + 30)[..., None], 3, axis=2)


def read_index(pixels: np.ndarray) -> int:
    """The index that a decoded frame (H, W, 3) shows."""
    height, width = pixels.shape[:2]
    rows = [(2 * r + 1) * height // 4 for r in range(2)]
    columns = [(2 * c + 1) * width // BITS for c in range(BITS // 2)]
    bits = pixels[np.ix_(rows, columns)].mean(axis=2).ravel() > 120
    return int(sum(1 << b for b, bit in enumerate(bits) if bit))


def write_video(
    path: Path,
    frames: int = 96,
    fps: float = 24.0,
    *,
    ticks: list[int] | None = None,
    gop: int = 24,
    b_frames: int = 3,
    open_gop: bool = False,
    codec: str = "libx264",
    size: tuple[int, int] = (HEIGHT, WIDTH),
    options: dict[str, str] | None = None,
    first_index: int = 0,
    sound: bool = False,
    pixels: str = "yuv420p",
    pixel_aspect: Fraction | None = None,
) -> Path:
    """Write `frames` burned frames at a constant `fps`, or at the given `ticks` (1 / TICKS s).

    With `sound`, a second of silence that starts at 0. `options` are the container's and, for
    codecs other than x264, the encoder's. A `pixel_aspect` of 2 shows the picture twice as wide.
    """
    ticks = [round(i * TICKS / fps) for i in range(frames)] if ticks is None else ticks
    with av.open(str(path), "w", options=options or {}) as out:
        stream = out.add_stream(codec, rate=Fraction(fps).limit_denominator(1001))
        stream.height, stream.width = size
        stream.pix_fmt = pixels
        stream.time_base = stream.codec_context.time_base = Fraction(1, TICKS)
        if pixel_aspect is not None:
            stream.codec_context.sample_aspect_ratio = pixel_aspect
        stream.gop_size = stream.codec_context.gop_size = gop
        stream.codec_context.max_b_frames = b_frames
        if codec == "libx264":
            extra = f"open-gop={int(open_gop)}:scenecut=0:keyint={gop}:min-keyint={gop}"
            stream.options = {"preset": "veryfast", "crf": "20", "x264-params": extra}
        else:
            stream.options = options or {}
        audio = out.add_stream("aac", rate=44_100) if sound else None
        for i, tick in enumerate(ticks):
            frame = av.VideoFrame.from_ndarray(burn(first_index + i, *size), format="rgb24")
            frame.pts, frame.time_base = tick, Fraction(1, TICKS)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
        if audio is not None:
            _mux_silence(out, audio)
    return path


def write_cut(source: Path, path: Path, start: float) -> Path:
    """Copy packets from the key frame at or before `start` seconds on, without re-encoding."""
    with av.open(str(source)) as src, av.open(str(path), "w") as out:
        stream = src.streams.video[0]
        copied = out.add_stream_from_template(stream)
        src.seek(round(start / stream.time_base), stream=stream)
        for packet in src.demux(stream):
            if packet.size:
                packet.stream = copied
                out.mux(packet)
    return path


def write_audio(path: Path, cover: bool = False, codec: str = "aac") -> Path:
    """A second of sound, with a cover picture if asked."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=44_100)
        picture = out.add_stream("mjpeg", rate=1) if cover else None
        if picture is not None:
            picture.height, picture.width, picture.pix_fmt = HEIGHT, WIDTH, "yuvj420p"
            picture.disposition = av.stream.Disposition.attached_pic
            frame = av.VideoFrame.from_ndarray(burn(7), format="rgb24").reformat(format="yuvj420p")
            frame.pts = 0
            out.mux(picture.encode(frame))
            out.mux(picture.encode(None))
        _mux_silence(out, stream)
    return path


def _mux_silence(out, stream) -> None:
    context = stream.codec_context
    for i in range(40):
        silence = np.zeros((context.channels, context.frame_size or 1152), np.float32)
        sound = av.AudioFrame.from_ndarray(silence, format="fltp", layout=context.layout.name)
        sound.sample_rate, sound.pts = 44_100, i * silence.shape[1]
        out.mux(stream.encode(sound))
    out.mux(stream.encode(None))


def truncate(source: Path, path: Path, share: float) -> Path:
    """The first `share` of a file's bytes."""
    data = source.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


def rotate(source: Path, path: Path, mirrored: bool = False) -> Path:
    """The same mp4 with a display matrix that turns it by a quarter, as a phone writes it.

    `mirrored`: as a front camera does, rows become columns.
    """
    data = bytearray(source.read_bytes())
    at = data.index(b"tkhd") + 4 + 40  # version 0: the matrix is 40 bytes into the box
    one = 1 << 16
    turn = one if mirrored else -one & 0xFFFFFFFF
    matrix = (0, one, 0, turn, 0, 0, HEIGHT << 16, 0, 1 << 30)
    data[at : at + 36] = b"".join(int(v).to_bytes(4, "big") for v in matrix)
    path.write_bytes(bytes(data))
    return path


def write_trimmed(source: Path, path: Path, share: float = 0.5) -> Path:
    """The same mp4 with an edit list that shows only the first `share` of it."""
    data = bytearray(source.read_bytes())
    at = data.index(b"elst") + 12  # version, flags and the number of entries; then the duration
    shown = int(int.from_bytes(data[at : at + 4], "big") * share)
    data[at : at + 4] = shown.to_bytes(4, "big")
    path.write_bytes(bytes(data))
    return path


def write_hidden_start(source: Path, path: Path, seconds: float) -> Path:
    """The same mp4 with an edit list that starts the film `seconds` later, inside a group."""
    data = bytearray(source.read_bytes())
    at = data.index(b"elst") + 12
    shown = int.from_bytes(data[at : at + 4], "big") - round(1000 * seconds)
    start = int.from_bytes(data[at + 4 : at + 8], "big") + round(TICKS * seconds)
    data[at : at + 8] = shown.to_bytes(4, "big") + start.to_bytes(4, "big")
    path.write_bytes(bytes(data))
    return path


def blot(source: Path, path: Path, start: float, end: float) -> Path:
    """A copy whose bytes from `start` to `end` (shares of the file) are noise."""
    data = bytearray(source.read_bytes())
    a, b = int(len(data) * start), int(len(data) * end)
    data[a:b] = np.random.default_rng(0).bytes(b - a)
    path.write_bytes(bytes(data))
    return path
