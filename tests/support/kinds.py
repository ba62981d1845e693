"""Files of the kinds that other programs write: made here, packet by packet or byte by byte.

Each writer starts from a file of `support.videos`, whose frames carry their index.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from support.videos import HEIGHT, WIDTH, burn, write_video

FPS = 25
VOP, USER_DATA = b"\0\0\1\xb6", b"\0\0\1\xb2"


def remux(source: Path, path: Path, change: Callable[[av.Packet], None]) -> Path:
    """Copy packets without re-encoding, each changed first."""
    with av.open(str(source)) as src, av.open(str(path), "w") as out:
        stream = src.streams.video[0]
        copied = out.add_stream_from_template(stream)
        for packet in src.demux(stream):
            if packet.size:
                packet.stream = copied
                change(packet)
                out.mux(packet)
    return path


def write_x264(path: Path, params: str, pixels: str = "yuv420p", frames: int = 100) -> Path:
    """H.264 with parameters of x264 itself; noise makes every picture depend on the one before."""
    rng = np.random.default_rng(0)
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=FPS)
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, pixels
        stream.options = {"preset": "medium", "x264-params": params}
        for i in range(frames):
            noise = rng.integers(-15, 15, (HEIGHT, WIDTH, 3))
            picture = (burn(i).astype(int) + noise).clip(0, 255).astype(np.uint8)
            frame = av.VideoFrame.from_ndarray(picture, "rgb24")
            frame.pts, frame.time_base = i, Fraction(1, FPS)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def write_intra_refresh(path: Path) -> Path:
    """No I pictures after the first: a column of intra blocks wanders, and says when it is done."""
    return write_x264(path, "intra-refresh=1:keyint=25:scenecut=0:bframes=3:crf=20")


def write_plain_i(path: Path, source: Path) -> Path:
    """An mp4 of an open-GOP one whose key frames no longer say that a decoder may start there."""

    def forget(packet: av.Packet) -> None:
        data, at = bytearray(bytes(packet)), 0
        while at < len(data):
            if data[at + 4] & 0x1F == 6:  # supplemental information becomes filler
                data[at + 4] = 12
            at += 4 + int.from_bytes(data[at : at + 4], "big")
        packet.update(bytes(data))

    return remux(source, path, forget)


def write_mpeg2(path: Path, frames: int = 100) -> Path:
    """MPEG-2 with B pictures, as discs and broadcasts hold it."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream("mpeg2video", rate=FPS)
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, "yuv420p"
        stream.codec_context.gop_size, stream.codec_context.max_b_frames = 24, 2
        for i in range(frames):
            frame = av.VideoFrame.from_ndarray(burn(i), "rgb24")
            frame.pts, frame.time_base = i, Fraction(1, FPS)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def write_old_444(path: Path) -> Path:
    """Lossless 4:4:4 whose note says that x264 of 2011 wrote it, so that decoders predict as it."""
    params = "qp=0:cabac=0:8x8dct=1:keyint=12:min-keyint=12:scenecut=0:bframes=2"
    write_x264(path, params, pixels="yuv444p", frames=60)
    path.write_bytes(re.sub(rb"x264 - core \d+", b"x264 - core 120", path.read_bytes()))
    return path


def write_packed(path: Path, source: Path) -> Path:
    """MPEG-4 in AVI as DivX 5 packs it: a B picture behind the one it waits for, then a filler.

    `source` has at most one B picture in a row.
    """

    def kind(data: bytes) -> int:
        return data[data.index(VOP) + 4] >> 6

    with av.open(str(source)) as src, av.open(str(path), "w") as out:
        stream = src.streams.video[0]
        copied = out.add_stream_from_template(stream)
        stored = [bytes(packet) for packet in src.demux(stream) if packet.size]
        chunks: list[bytes] = []
        filler = VOP + bytes([0b01010000, 0b00000000, 0b00100111])  # P, not coded; 14 bits of time
        for data, after in zip(stored, [*stored[1:], b""], strict=True):
            if kind(data) == 2:
                continue
            at = data.index(VOP)
            if kind(data) == 0:
                data = data[:at] + USER_DATA + b"DivX503b1393p" + data[at:]
            packed = bool(after) and kind(after) == 2
            chunks.append(data + (after[after.index(VOP) :] if packed else b""))
            chunks += [filler] * packed
        for i, data in enumerate(chunks):
            packet = av.Packet(data)
            packet.stream, packet.time_base = copied, Fraction(1, FPS)
            packet.pts = packet.dts = i
            packet.is_keyframe = kind(data) == 0
            out.mux(packet)
    return path


def write_without_reorder_table(path: Path, source: Path) -> Path:
    """An mp4 whose packets say when they are decoded, and nothing of when they are shown."""
    first: list[int] = []

    def forget(packet: av.Packet) -> None:
        first.append(packet.dts)
        packet.pts = packet.dts = packet.dts - first[0]

    return remux(source, path, forget)


def write_late_decode_times(path: Path, source: Path, ticks: int) -> Path:
    """An MPEG-TS whose decode times (where it holds them) are `ticks` of 1/90,000 s later."""
    data = bytearray(source.read_bytes())
    for at in range(0, len(data), 188):
        start = at + 4 + (1 + data[at + 4] if data[at + 3] & 0x20 else 0)
        is_picture = data[start : start + 3] == b"\0\0\1" and data[start + 3] & 0xF0 == 0xE0
        if not data[at + 1] & 0x40 or not is_picture or data[start + 7] & 0xC0 != 0xC0:
            continue
        b = data[start + 14 : start + 19]
        old = (b[0] >> 1 & 7) << 30 | b[1] << 22 | b[2] >> 1 << 15 | b[3] << 7 | b[4] >> 1
        new = old + ticks
        data[start + 14 : start + 19] = bytes(
            (
                0x11 | (new >> 30 & 7) << 1,
                new >> 22 & 255,
                (new >> 15 & 127) << 1 | 1,
                new >> 7 & 255,
                (new & 127) << 1 | 1,
            )
        )
    path.write_bytes(bytes(data))
    return path


def write_rare_end(path: Path) -> tuple[Path, np.ndarray]:
    """Ten seconds of 24 frames a second, then five pictures in 20 s; and when each appears."""
    ticks = [500 * i for i in range(240)]
    ticks += [ticks[-1] + 48_000 * (i + 1) for i in range(5)]
    write_video(path, ticks=ticks, gop=250)
    return path, np.array(ticks) / 12_000


def write_tracks(
    path: Path, sizes: list[tuple[int, int]], marked: list[bool], base: int = 100
) -> Path:
    """A file with several video tracks, the n-th of which shows the index `base` * n."""
    with av.open(str(path), "w") as out:
        streams = []
        for size, mark in zip(sizes, marked, strict=True):
            stream = out.add_stream("libx264", rate=FPS)
            (stream.height, stream.width), stream.pix_fmt = size, "yuv420p"
            stream.disposition = av.stream.Disposition.default if mark else 0
            streams.append(stream)
        for i in range(10):
            for n, (stream, size) in enumerate(zip(streams, sizes, strict=True)):
                frame = av.VideoFrame.from_ndarray(burn(base * n + i, *size), "rgb24")
                frame.pts, frame.time_base = i, Fraction(1, FPS)
                out.mux(stream.encode(frame))
        for stream in streams:
            out.mux(stream.encode(None))
    return path


def write_oriented(path: Path, matrix: tuple[int, int, int, int], index: int) -> Path:
    """A still with a display matrix (a, b, c, d): shown at (a x + c y, b x + d y)."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=FPS)
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, "yuv420p"
        a, b, c, d = (value << 16 for value in matrix)
        stream.set_display_matrix((a, b, 0, c, d, 0, 0, 0, 1 << 30))
        for i in range(5):
            frame = av.VideoFrame.from_ndarray(burn(index), "rgb24")
            frame.pts, frame.time_base = i, Fraction(1, FPS)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def write_colour(path: Path, lines: int, rgb: tuple[int, int, int], matrix: int) -> Path:
    """A picture of one colour, coded by the colour matrix `matrix` (ITU-T H.273), untagged."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=FPS)
        stream.height, stream.width, stream.pix_fmt = lines, 64, "yuv420p"
        stream.options = {"preset": "ultrafast", "crf": "5"}
        picture = np.full((lines, 64, 3), rgb, np.uint8)
        frame = av.VideoFrame.from_ndarray(picture, "rgb24").reformat(
            format="yuv420p", dst_colorspace=matrix
        )
        frame.colorspace = 2
        frame.pts, frame.time_base = 0, Fraction(1, FPS)
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path
