"""`frames.py --files`: CPU seconds of 16 random frames and of a crop of 16, on ten encodings.

A reader is exact on a file if each of its frames carries the number that the picture on screen
carries in a decode in order. The ratio compares ParaVT with the fastest of the readers that are
exact on the file: below 1 it needs less. Rounds are interleaved, each starts with the next reader,
on times of its own; the table shows medians. Then the peak memory of 512 frames of three hours, in
a process of its own.
"""

from __future__ import annotations

import gc
import itertools
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import av
import numpy as np
from ten_files import ENCODINGS, FETCHES, FPS, SCALED, Encoding, make_encoding, read_number

from paravt_env.common.progress import counted

RANDOM, CROP, CROP_SECONDS = 16, 16, 20.0
MEMORY_FRAMES = 512
OURS = "ParaVT"


@dataclass
class Measured:
    """What a reader did on a file."""

    random: list[float] = field(default_factory=list)
    """CPU seconds of each round."""
    crop: list[float] = field(default_factory=list)
    wrong: int = 0
    """Frames that were not the one on screen."""
    failed: str = ""


def measure_files(folder: Path, rounds: int) -> list[str]:
    """The tables of all encodings, written into `folder` first."""
    lines = [f"CPU seconds, median of {rounds} interleaved rounds; * a reader that is not exact"]
    lines.append(f"{'file':14}{'request':9}" + "".join(f"{name:>12}" for name in FETCHES))
    lines[-1] += f"{'ratio':>8}  of the fastest exact peer"
    ratios = []
    for encoding in counted("files", ENCODINGS):
        path = make_encoding(encoding, folder)
        measured = measure(encoding, path, rounds)
        for request in ("random", "crop"):
            line, ratio = told(encoding, request, measured)
            lines.append(line)
            if ratio is not None:
                ratios.append(ratio)
        print("\n".join(lines[-2:]), file=sys.stderr)
    lines.append("")
    median, worst = statistics.median(ratios), max(ratios)
    lines.append(f"ratios: median {median:.2f} (aim <= 0.7), worst {worst:.2f} (aim <= 1)")
    lines += memory(folder)
    return lines


def measure(encoding: Encoding, path: Path, rounds: int) -> dict[str, Measured]:
    """Every reader on one file."""
    found = {name: Measured() for name in FETCHES}
    names = list(FETCHES)
    duration = encoding.minutes * 60.0
    path.read_bytes()  # into the page cache
    numbers = seen_in_order(path, encoding)
    for turn in range(rounds):
        rng = np.random.default_rng(turn)
        frame = rng.integers(FPS, duration * FPS - FPS, RANDOM)
        start = rng.uniform(0, duration - CROP_SECONDS - 1)
        middles = start + (np.arange(CROP) + 0.5) * CROP_SECONDS / CROP
        asked = {"random": (frame + 0.5) / FPS, "crop": (np.floor(middles * FPS) + 0.5) / FPS}
        k = turn % len(names)
        for name in names[k:] + names[:k]:
            for request, times in asked.items():
                expected = numbers[np.floor(times * FPS).astype(int) % encoding.pictures]
                run(name, path, times, expected, request, found[name])
    return found


def seen_in_order(path: Path, encoding: Encoding) -> np.ndarray:
    """The numbers that the pictures of a part show once encoded, by a decode in order, (N,)."""
    height, width = SCALED
    with av.open(str(path)) as container:
        frames = itertools.islice(container.decode(video=0), encoding.pictures)
        shape = {"format": "rgb24", "height": height, "width": width}
        return np.array([read_number(frame.to_ndarray(**shape)) for frame in frames])


def run(
    name: str, path: Path, times: np.ndarray, expected: np.ndarray, request: str, into: Measured
) -> None:
    """One request of one reader, timed and compared with the truth."""
    if into.failed:
        return
    gc.collect()
    began = time.process_time()
    try:
        frames = FETCHES[name](str(path), times)
    except Exception as error:
        into.failed = type(error).__name__
        return
    getattr(into, request).append(time.process_time() - began)
    into.wrong += sum(read_number(f) != n for f, n in zip(frames, expected, strict=True))


def told(
    encoding: Encoding, request: str, measured: dict[str, Measured]
) -> tuple[str, float | None]:
    """A line of the table, and ParaVT's ratio to the fastest exact peer, if there is one."""
    cells, exact = [], []
    for name, one in measured.items():
        if one.failed:
            cells.append(f"{one.failed[:10]:>12}")
            continue
        seconds = statistics.median(getattr(one, request))
        cells.append(f"{seconds:10.3f}{' *' if one.wrong else '  '}")
        if name != OURS and not one.wrong:
            exact.append(seconds)
    ours = statistics.median(getattr(measured[OURS], request))
    ratio = ours / min(exact) if exact else None
    shown = f"{ratio:8.2f}" if ratio is not None else f"{'none':>8}"
    return f"{encoding.name:14}{request:9}{''.join(cells)}{shown}", ratio


def memory(folder: Path) -> list[str]:
    """Peak memory of many frames of the long file; Linux only."""
    path = make_encoding(ENCODINGS[-1], folder)
    code = (
        "import sys; import numpy as np; from paravt_env.video import FrameStore;"
        f"times = (np.arange({MEMORY_FRAMES}) + 0.5) * 10800 / {MEMORY_FRAMES};"
        f"frames = FrameStore(workers=2).frames(sys.argv[1], times, {SCALED});"
        f"assert len(frames) == {MEMORY_FRAMES};"
        "lines = open('/proc/self/status').read().splitlines();"
        "print(next(int(line.split()[1]) for line in lines if line.startswith('VmHWM')) / 1024)"
    )
    command = [sys.executable, "-c", code, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    peak = float(done.stdout)
    return [f"peak memory of {MEMORY_FRAMES} frames of 3 hours: {peak:.0f} MB (aim < 200)"]
