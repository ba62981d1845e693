"""Ten encodings that people have: what `frames.py --files` times, and how its readers are called.

Pictures are texture, moving blocks and grain with their number in a strip on top, so that a reader
that shows another picture than the one on screen is seen while it is timed. A short part is encoded
and its packets repeated with later times; the number says the picture's place in its part.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from paravt_env.video import FrameStore

FPS, BITS = 24, 12
SCALED = (168, 280)
STRIP = 8
"""The strip with the number is one part in `STRIP` of the picture's height."""
EDITS = 300
"""Entries of a long edit list: one for each key frame of ten minutes."""


@dataclass(frozen=True)
class Encoding:
    """How a file is encoded."""

    name: str
    container: str
    codec: str
    minutes: int = 10
    pictures: int = 480
    gop: int = 48
    b_frames: int = 0
    size: tuple[int, int] = (360, 640)
    options: dict[str, str] = field(default_factory=dict)
    edits: int = 0


def _x264(gop: int, more: str = "") -> dict[str, str]:
    params = f"keyint={gop}:min-keyint={gop}:scenecut=0:open-gop=0:bframes=3{more}"
    return {"preset": "veryfast", "x264-params": params}


X265 = {"preset": "ultrafast", "x265-params": "log-level=none:keyint=48:min-keyint=48:open-gop=0"}
AV1 = {"preset": "12", "crf": "20", "svtav1-params": "keyint=120"}
ENCODINGS = (
    Encoding("h264_g48", "mp4", "libx264", options=_x264(48)),
    Encoding("h264_g250", "mp4", "libx264", pictures=500, gop=250, options=_x264(250)),
    Encoding("h264_refresh", "mp4", "libx264", options=_x264(48, ":intra-refresh=1")),
    Encoding("hevc_1080p", "mp4", "libx265", pictures=144, size=(1080, 1920), options=X265),
    Encoding("av1", "mp4", "libsvtav1", gop=120, options=AV1),
    Encoding(
        "vp9", "webm", "libvpx-vp9", gop=120, options={"deadline": "realtime", "cpu-used": "8"}
    ),
    Encoding("mpeg4", "avi", "mpeg4", gop=120, b_frames=2),
    Encoding("edits", "mp4", "libx264", options=_x264(48), edits=EDITS),
    Encoding("h264_ts", "ts", "libx264", options=_x264(48)),
    Encoding("3_hours", "mp4", "libx264", minutes=180, options=_x264(48)),
)


# --- files --------------------------------------------------------------------------------------


def make_encoding(encoding: Encoding, folder: Path) -> Path:
    """The file of an encoding, written unless it is there."""
    path = folder / f"{encoding.name}.{encoding.container}"
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f"{encoding.name}.part.{encoding.container}"
    with av.open(str(part), "w") as out:
        stream = out.add_stream(encoding.codec, rate=FPS)
        stream.height, stream.width = encoding.size
        stream.pix_fmt, stream.options = "yuv420p", dict(encoding.options)
        stream.codec_context.gop_size = encoding.gop
        if encoding.b_frames:
            stream.codec_context.max_b_frames = encoding.b_frames
        packets = [p for frame in _pictures(encoding) for p in stream.encode(frame)]
        packets += stream.encode(None)
        base = Fraction(packets[0].time_base)
        length = round(encoding.pictures / FPS / base)
        for repeat in range(-(-encoding.minutes * 60 * FPS // encoding.pictures)):
            for packet in packets:
                copy = av.Packet(bytes(packet))
                copy.stream, copy.time_base = stream, base
                copy.pts = packet.pts + repeat * length
                copy.dts = packet.dts + repeat * length
                copy.is_keyframe = packet.is_keyframe
                out.mux(copy)
    if encoding.edits:
        part.write_bytes(_with_edits(part.read_bytes(), encoding.edits))
    part.replace(path)
    return path


def _pictures(encoding: Encoding) -> Iterator[av.VideoFrame]:
    rng = np.random.default_rng(0)
    height, width = encoding.size
    y, x = np.mgrid[:height, : 2 * width]
    waves = [np.sin((x * a + y * b) / 40) for a, b in ((1.0, 0.3), (0.4, 1.0), (0.7, -0.6))]
    texture = (120 + 60 * np.stack(waves, -1)).astype(np.uint8)
    grain = rng.integers(0, 12, (8, height, width, 1), np.uint8)
    for i in range(encoding.pictures):
        pan = int(width / 2 * (1 + np.sin(i / 90)))
        picture = texture[:, pan : pan + width] + grain[i % 8]
        for block in range(12):
            row = height // 6 + int(height / 18 * block / 2 + 30 * np.sin(i / 9 + block))
            column = (97 * block + i * (block % 5 - 2)) % (width - 80)
            picture[max(0, row) : max(0, row) + 60, column : column + 80] = 20 * block
        bits = np.array([(i >> bit) & 1 for bit in range(BITS)], np.uint8)
        strip = np.repeat(bits * 180 + 30, -(-width // BITS))[:width]
        picture[: height // STRIP] = strip[None, :, None]
        frame = av.VideoFrame.from_ndarray(picture, "rgb24")
        frame.pts, frame.time_base = i, Fraction(1, FPS)
        yield frame


def read_number(pixels: np.ndarray) -> int:
    """The number that a frame (H, W, 3) shows."""
    height, width = pixels.shape[:2]
    columns = ((np.arange(BITS) + 0.5) * -(-640 // BITS) * width / 640).astype(int)
    bits = pixels[height // STRIP // 2, columns].mean(axis=1) > 120
    return int(sum(1 << bit for bit, on in enumerate(bits) if on))


def _with_edits(data: bytes, count: int) -> bytes:
    """An mp4, index last, whose one edit becomes `count` that show the same without a gap."""
    at = data.index(b"elst") - 4
    size, shown, start = (struct.unpack(">I", data[i : i + 4])[0] for i in (at, at + 16, at + 20))
    scale = struct.unpack(">I", data[data.index(b"mvhd") + 16 : data.index(b"mvhd") + 20])[0]
    mdhd = data.index(b"mdhd")
    track = struct.unpack(">I", data[mdhd + 16 : mdhd + 20])[0]
    frames = shown * FPS // scale
    marks = [frames * i // count for i in range(count + 1)]
    entries = b"".join(
        struct.pack(">IIHH", (b - a) * scale // FPS, start + a * track // FPS, 1, 0)
        for a, b in itertools.pairwise(marks)
    )
    box = struct.pack(">I4sII", 16 + len(entries), b"elst", 0, count) + entries
    grown = len(box) - size
    out = bytearray(data[:at] + box + data[at + size :])
    for name in (b"edts", b"trak", b"moov"):
        place = data.rindex(name, 0, at) - 4
        struct.pack_into(">I", out, place, struct.unpack_from(">I", data, place)[0] + grown)
    return bytes(out)


# --- readers ------------------------------------------------------------------------------------

Fetch = Callable[[str, np.ndarray], np.ndarray]
"""Path and seconds (n,) -> frames on screen then, (n, *SCALED, 3)."""


def paravt(path: str, times: np.ndarray) -> np.ndarray:
    """The default back end, on two threads, nothing decoded before."""
    store = FrameStore(workers=2)
    frames = store.frames(path, times, SCALED).pixels
    store.close()
    return frames


def torchcodec(path: str, times: np.ndarray) -> np.ndarray:
    """By time, in its exact mode; frames are resized by torch."""
    import torch
    from torchcodec.decoders import VideoDecoder

    decoder = VideoDecoder(path, seek_mode="exact")
    played = torch.from_numpy(times + float(decoder.metadata.begin_stream_seconds or 0.0))
    frames = decoder.get_frames_played_at(played).data
    scaled = torch.nn.functional.interpolate(frames, SCALED, mode="bilinear", antialias=True)
    return scaled.permute(0, 2, 3, 1).numpy()


def decord(path: str, times: np.ndarray) -> np.ndarray:
    """By frame number: seconds times the average rate."""
    import decord as library

    height, width = SCALED
    reader = library.VideoReader(path, ctx=library.cpu(0), width=width, height=height)
    numbers = np.minimum((times * reader.get_avg_fps() + 1e-6).astype(int), len(reader) - 1)
    return reader.get_batch(numbers.tolist()).asnumpy()


def opencv(path: str, times: np.ndarray) -> np.ndarray:
    """Seek to each time, read, resize."""
    import cv2

    video = cv2.VideoCapture(path)
    frames = []
    for moment in times:
        video.set(cv2.CAP_PROP_POS_MSEC, 1000 * moment)
        done, picture = video.read()
        if not done:
            raise RuntimeError(f"no frame at {moment:.2f} s")
        frames.append(cv2.cvtColor(cv2.resize(picture, SCALED[::-1]), cv2.COLOR_BGR2RGB))
    video.release()
    return np.stack(frames)


def pyav(path: str, times: np.ndarray) -> np.ndarray:
    """Seek, decode up to the time, convert: as its manual shows."""
    frames = []
    with av.open(path) as container:
        stream = container.streams.video[0]
        begin = float((stream.start_time or 0) * stream.time_base)
        for moment in times + begin:
            container.seek(int(moment / stream.time_base), stream=stream)
            for frame in container.decode(stream):
                if frame.time + 1 / FPS > moment:
                    break
            frames.append(frame.to_ndarray(format="rgb24", height=SCALED[0], width=SCALED[1]))
    return np.stack(frames)


FETCHES: dict[str, Fetch] = {
    "ParaVT": paravt,
    "torchcodec": torchcodec,
    "decord": decord,
    "OpenCV": opencv,
    "PyAV": pyav,
}
"""Name -> reader; importing what it needs is its first call's business."""
