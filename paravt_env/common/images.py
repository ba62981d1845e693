"""Frames as picture files: PNG, bit by bit what the agent saw, and JPEG, a tenth of the size.

Beside the journey: recordings, HTML pages and reports write frames with it, through zlib and PyAV,
so that no imaging library is needed. Run the examples with `python -m doctest
paravt_env/common/images.py`.
"""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import av
import numpy as np


def encode_png(image: np.ndarray) -> bytes:
    r"""A uint8 (H, W, 3) image as a PNG file (W3C PNG, colour type 2, no filter); lossless.

    >>> encode_png(np.zeros((2, 3, 3), np.uint8))[:8]
    b'\x89PNG\r\n\x1a\n'
    """
    height, width = _checked(image).shape[:2]
    rows = np.zeros((height, 1 + 3 * width), np.uint8)  # each row starts with its filter, 0: none
    rows[:, 1:] = image.reshape(height, 3 * width)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes(), 6)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )


def encode_jpeg(image: np.ndarray) -> bytes:
    """A uint8 (H, W, 3) image as a JPEG file; an odd side loses its last line.

    Raises:
        ValueError: Not such an image, or a side of one pixel.
    """
    height, width = (side - side % 2 for side in _checked(image).shape[:2])
    if not height or not width:
        raise ValueError(f"a JPEG needs two pixels a side, not {image.shape[0]} x {image.shape[1]}")
    encoder = av.CodecContext.create("mjpeg", "w")
    encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuvj420p"
    encoder.time_base = Fraction(1, 1)
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image[:height, :width]), format="rgb24")
    packets = encoder.encode(frame.reformat(format="yuvj420p")) + encoder.encode(None)
    return b"".join(bytes(packet) for packet in packets)


ENCODERS: dict[str, Callable[[np.ndarray], bytes]] = {"png": encode_png, "jpeg": encode_jpeg}
"""Encoders by the ending of their files."""


def decode_picture(data: bytes, size: tuple[int, int]) -> np.ndarray:
    """A PNG or JPEG file of a known size as uint8 (H, W, 3); what it says of its size is checked.

    Args:
        data: The file.
        size: Height and width in pixels that it must have.

    Raises:
        ValueError: No such picture, or another size.

    >>> decode_picture(encode_png(np.full((2, 4, 3), 7, np.uint8)), (2, 4))[0, 0].tolist()
    [7, 7, 7]
    """
    kind, said = _kind(data), picture_size(data)
    if not kind or said != tuple(size):  # before a decoder makes room for it
        raise ValueError(f"{size[1]} x {size[0]} pixels as PNG or JPEG are no such file: {said}")
    try:
        decoder: Any = av.CodecContext.create(kind, "r")
        frames = decoder.decode(av.Packet(data))
    except av.FFmpegError as error:
        raise ValueError(f"a picture cannot be decoded: {error}") from error
    if len(frames) != 1 or (frames[0].height, frames[0].width) != tuple(size):
        raise ValueError(f"a picture is not one of {size[1]} x {size[0]} pixels")
    return frames[0].to_ndarray(format="rgb24")


def picture_size(data: bytes) -> tuple[int, int] | None:
    """Height and width that a PNG or JPEG file says it has; None for anything else.

    Args:
        data: The file, or as much of its beginning as holds its size.

    >>> picture_size(encode_png(np.zeros((2, 3, 3), np.uint8)))
    (2, 3)
    """
    return _SIZES[kind](data) if (kind := _kind(data)) else None


def _kind(data: bytes) -> str:
    """FFmpeg's name of the file's format, "" for others."""
    return "png" if data[:4] == b"\x89PNG" else "mjpeg" if data[:2] == b"\xff\xd8" else ""


def _png_size(data: bytes) -> tuple[int, int] | None:
    """Height and width that the header says; None where there is no header."""
    width, height = struct.unpack(">II", data[16:24]) if len(data) >= 24 else (0, 0)
    return (height, width) if width and height else None


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Height and width of the first frame header (ITU-T T.81, B.2.2); None where there is none."""
    at = 2
    while len(data) >= at + 9 and data[at] == 0xFF:
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack(">HH", data[at + 5 : at + 9])
            return height, width
        at += 2 + length
    return None


_SIZES = {"png": _png_size, "mjpeg": _jpeg_size}


def data_uri(image: np.ndarray, kind: str = "jpeg") -> str:
    """An image as a `data:` URI, for pages that need no other file.

    >>> data_uri(np.zeros((2, 2, 3), np.uint8), "png")[:22]
    'data:image/png;base64,'
    """
    return f"data:image/{kind};base64,{base64.b64encode(ENCODERS[kind](image)).decode('ascii')}"


def _checked(image: np.ndarray) -> np.ndarray:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise ValueError(f"an image is uint8 (H, W, 3), not {image.dtype} {image.shape}")
    return image
