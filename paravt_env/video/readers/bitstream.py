"""What the first bytes of a packet tell of the picture in it, read without decoding.

`packets.py` asks whether a decoder that starts at a packet shows the right pictures from there on;
`order.py` asks which pictures wait for others before they are shown. Pure functions on bytes. H.264
is ITU-T H.264 (7.3.1 NAL units, D.1.8 recovery point), HEVC ITU-T H.265 (7.3.1.2), MPEG-4 ISO/IEC
14496-2 (6.2.3 video object layer, 6.2.5 video object plane).

Run its tests: `python -m pytest tests/video/test_video_bitstream.py`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

H264_IDR, H264_SEI, RECOVERY_POINT = 5, 6, 6
HEVC_IDR = (19, 20)
LENGTH_AT = {"h264": 4, "hevc": 21}
"""Where a configuration (avcC, hvcC) holds the bytes of a length, less one."""
MARK = re.compile(rb"\x00\x00\x01")
X264 = re.compile(rb"x264 - core (\d{1,6})")
FIRST_444 = 151
"""The first build of x264 whose 4:4:4 is the standard's."""
HEAD = 1024
"""Bytes of a NAL unit that are looked at."""
SHAPES = "IPBS"
"""MPEG-4's kinds of pictures, by their code."""


def length_bytes(codec: str, extradata: bytes | None) -> int:
    """Bytes of a NAL unit's length in an mp4's or mkv's packets; 0 where start codes part them.

    >>> length_bytes("h264", bytes([1, 100, 0, 31, 0xFF, 0xE1]))
    4
    >>> length_bytes("h264", bytes([0, 0, 0, 1, 0x67]))
    0
    """
    at = LENGTH_AT.get(codec, 0)
    if not extradata or extradata[0] != 1 or len(extradata) <= at or not at:
        return 0
    return (extradata[at] & 3) + 1


def nal_units(data: bytes, length: int) -> Iterator[bytes]:
    """The beginning of each NAL unit of a packet, at most `HEAD` bytes.

    >>> [unit.hex() for unit in nal_units(bytes.fromhex("00000001 09f0 000001 65b8"), 0)]
    ['09f0', '65b8']
    >>> [unit.hex() for unit in nal_units(bytes.fromhex("0002 09f0 0001 65"), 2)]
    ['09f0', '65']
    """
    if length:
        at = 0
        while at + length < len(data):
            size = int.from_bytes(data[at : at + length], "big")
            at += length
            yield data[at : at + min(size, HEAD)]
            at += size
        return
    marks = [match.end() for match in MARK.finditer(data)]
    ends = [*(mark - 3 for mark in marks), len(data)][1:]
    for start, end in zip(marks, ends, strict=True):
        yield data[start : min(end, start + HEAD)].rstrip(b"\0")


def h264_recovery(data: bytes, length: int) -> int | None:
    """After how many frames a decoder that starts at this packet is right; None: never for sure.

    0 for an IDR picture, or for a recovery point whose count is 0 (an open group of pictures).

    >>> h264_recovery(bytes.fromhex("000001 65b8"), 0), h264_recovery(bytes.fromhex("000001 41"), 0)
    (0, None)
    >>> h264_recovery(bytes.fromhex("000001 06 06 01 3480 000001 41"), 0)  # ue(v) 00110 = 5
    5
    """
    for unit in nal_units(data, length):
        kind = unit[0] & 0x1F if unit else 0
        if kind == H264_IDR:
            return 0
        if kind == H264_SEI:
            count = _recovery_count(unit[1:].replace(b"\0\0\3", b"\0\0"))
            if count is not None:
                return count
    return None


def _recovery_count(messages: bytes) -> int | None:
    at = 0
    while at + 2 < len(messages):
        kind = size = 0
        while at < len(messages) and messages[at] == 0xFF:
            kind, at = kind + 255, at + 1
        kind, at = kind + messages[at] if at < len(messages) else -1, at + 1
        while at < len(messages) and messages[at] == 0xFF:
            size, at = size + 255, at + 1
        size, at = size + messages[at] if at < len(messages) else 0, at + 1
        if kind == RECOVERY_POINT and at < len(messages):
            bits = "".join(f"{byte:08b}" for byte in messages[at : at + 4])
            zeros = len(bits) - len(bits.lstrip("0"))
            return int(bits[zeros : 2 * zeros + 1] or "1", 2) - 1
        at += size
    return None


def x264_build(data: bytes) -> int | None:
    """The build of x264 that the note in a file's first packet names.

    >>> x264_build(b"...x264 - core 120 r2120")
    120
    """
    note = X264.search(data)
    return int(note[1]) if note else None


def starts_anew(codec: str, data: bytes, length: int) -> bool:
    """Whether all pictures stored before this packet are shown before all from it on (IDR).

    >>> starts_anew("hevc", bytes.fromhex("000001 2601"), 0)
    True
    """
    kinds = [unit[0] for unit in nal_units(data, length) if unit]
    if codec == "h264":
        return any(kind & 0x1F == H264_IDR for kind in kinds)
    return codec == "hevc" and any(kind >> 1 & 0x3F in HEVC_IDR for kind in kinds)


class Mpeg4:
    """Reads the kinds of the pictures of MPEG-4 packets; the header before them says how.

    Attributes:
        time_bits: Bits of a picture's time inside its second; None until a header was seen.
    """

    def __init__(self, extradata: bytes | None) -> None:
        self.time_bits: int | None = None
        self._read_header(extradata or b"")

    def pictures(self, data: bytes) -> str:
        """One letter a picture, in the order stored: I, P, B or S; "-" for one that is not coded.

        Two in one packet are DivX's packed B-frames; a packet whose only picture is not coded
        either fills the place of one that was packed, or says "once more the last picture".
        """
        self._read_header(data)
        found = ""
        for match in MARK.finditer(data):
            at = match.end()
            if data[at : at + 1] != b"\xb6" or len(data) < at + 3:
                continue
            bits = "".join(f"{byte:08b}" for byte in data[at + 1 : at + 24])
            seconds = bits.find("0", 2)  # ones, a zero, a marker, the time, a marker
            coded = seconds + 3 + (self.time_bits or 0)
            is_coded = self.time_bits is None or bits[coded : coded + 1] != "0"
            found += SHAPES[int(bits[:2], 2)] if is_coded else "-"
        return found

    def _read_header(self, data: bytes) -> None:
        for match in MARK.finditer(data):
            at = match.end()
            if at < len(data) and 0x20 <= data[at] <= 0x2F:
                self.time_bits = _time_bits(data[at + 1 : at + 40]) or self.time_bits
                return


def _time_bits(layer: bytes) -> int | None:
    """Bits of `vop_time_increment`, from the head of a video object layer."""
    bits = "".join(f"{byte:08b}" for byte in layer)
    at = 9  # random_accessible_vol, video_object_type_indication
    at += 8 if bits[at : at + 1] == "1" else 1  # is_object_layer_identifier
    at += 20 if bits[at : at + 4] == "1111" else 4  # aspect_ratio_info
    if bits[at : at + 1] == "1":  # vol_control_parameters
        at += 4
        at += 80 if bits[at : at + 1] == "1" else 1  # vbv_parameters
    else:
        at += 1
    if bits[at : at + 2] != "00":  # not a rectangle
        return None
    resolution = bits[at + 3 : at + 19]
    if len(resolution) < 16 or int(resolution, 2) == 0:
        return None
    return max(1, (int(resolution, 2) - 1).bit_length())
