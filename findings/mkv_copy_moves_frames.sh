#!/usr/bin/env bash
# The same packets copied from mp4 to mkv: at index / rate, a third to half show the frame before.
#
# Versions: av 18.1.0 (its FFmpeg and libx264). Seen: 2026-12-01.
# Matters to: whoever asks for a frame by index / frames-a-second. Matroska's clock counts whole
# milliseconds; where the rounding goes up, the frame on screen at that time is still the one
# before. The rate in the header stays exact, and 25 and 50 frames a second are not affected, so
# tests with them pass. Ask for the middle of a frame, (index + 0.5) / rate, or by the file's own
# timestamps.

set -euo pipefail
unset PYTHONPATH
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet av==18.1.0 numpy==2.3.5

venv/bin/python - <<'PYTHON'
import sys
from bisect import bisect_right
from fractions import Fraction

import av
import numpy as np

FRAMES = 200


def encode(rate):
    with av.open("a.mp4", "w") as film:
        stream = film.add_stream("libx264", rate=rate)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        for level in range(FRAMES):
            picture = np.full((64, 64, 3), level, np.uint8)
            film.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        film.mux(stream.encode())


def copy():
    with av.open("a.mp4") as source, av.open("a.mkv", "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)


def others(path, rate, shift):
    """Of the times (index + shift) / rate, how many do not show the frame `index`."""
    with av.open(path) as film:
        times = [frame.pts * frame.time_base for frame in film.decode(video=0)]
        assert film.streams.video[0].average_rate == rate
    assert len(times) == FRAMES
    return sum(bisect_right(times, (i + shift) / rate) - 1 != i for i in range(FRAMES))


EXPECTED = {
    Fraction(24): (0, 67, 0),
    Fraction(25): (0, 0, 0),
    Fraction(30): (0, 66, 0),
    Fraction(24000, 1001): (0, 100, 0),
}
print(f"guess: 0 of {FRAMES} in every column; seen:")
print("rate          mp4   mkv   mkv at (index + 1/2) / rate")
seen = {}
for rate in EXPECTED:
    encode(rate)
    copy()
    seen[rate] = (
        others("a.mp4", rate, 0),
        others("a.mkv", rate, 0),
        others("a.mkv", rate, Fraction(1, 2)),
    )
    print(f"{rate!s:12}{seen[rate][0]:5}{seen[rate][1]:6}{seen[rate][2]:6}")
if seen != EXPECTED:
    sys.exit("changed")
PYTHON
