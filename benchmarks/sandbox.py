"""Code turns a second: sessions of model-written code, each in a sandbox that is killed after it.

Eight rows play episodes side by side, as the environment plays them: a session takes a worker that
was forked ahead, its turns zoom into a picture of 1 megapixel and show what they found, and the
worker is killed at the end. For episodes of 1, 3 and 5 turns, the median of five rounds; `start` is
how long a pool takes from its start, with that of its fork server, to its first reply, `turn` the
median of a turn. The goal is 20 turns a second on two cores.

    python benchmarks/sandbox.py
    python benchmarks/sandbox.py --output benchmarks/results/sandbox.txt
"""

from __future__ import annotations

import argparse
import os
import platform
import shlex
import sys
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np

from paravt_env.common.progress import counted
from paravt_env.sandbox.limits import CodeLimits
from paravt_env.sandbox.pool import SandboxPool

ROWS, TURNS, ROUNDS = 8, (1, 3, 5), 5
LIMITS = CodeLimits(seconds=30.0, size=(64, 64))
ZOOM = "x, y = {x}, {y}\nshow(images[0].crop((x, y, x + 128, y + 128)))"
ZOOM_NUMPY = "a = np.asarray(images[0])\nshow(a[{y}:{y} + 128, {x}:{x} + 128])"


class OnePicture:
    """The media of a task with one picture."""

    def __init__(self) -> None:
        self.picture = np.random.default_rng(0).integers(0, 256, (1024, 1024, 3), np.uint8)

    def about(self) -> dict[str, Any]:
        """No video, one picture."""
        return {"video": None, "images": 1}

    def frames(self, start: float, end: float, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Never asked for."""
        raise NotImplementedError

    def image(self, index: int) -> np.ndarray:
        """The picture."""
        return self.picture


def play(pool: SandboxPool, media: OnePicture, turns: int, code: str) -> tuple[float, list[float]]:
    """Turns a second of one round of episodes, and the seconds of each turn of all rows."""
    seconds = []
    began = perf_counter()
    sessions = [pool.session(media) for _ in range(ROWS)]
    for turn in range(turns):
        asked = [(one, code.format(x=64 * row, y=64 * turn)) for row, one in enumerate(sessions)]
        start = perf_counter()
        replies = pool.run_all(asked)
        seconds.append(perf_counter() - start)
        if any(reply.status != "ok" or len(reply.pictures) != 1 for reply in replies):
            raise SystemExit(f"a run failed: {[reply.text for reply in replies]}")
    for session in sessions:
        session.close()
    return ROWS * turns / (perf_counter() - began), seconds


def started(media: OnePicture) -> float:
    """Seconds from the start of a fork server to its first session's first reply."""
    pool = SandboxPool(LIMITS, spare=0)
    began = perf_counter()
    session = pool.session(media)
    session.run("1")
    taken = perf_counter() - began
    session.close()
    pool.close()
    return taken


def main() -> None:
    """Measure and print, and write where `--output` says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path)
    output = parser.parse_args().output
    media = OnePicture()
    cores = len(os.sched_getaffinity(0))
    lines = [
        f"$ {shlex.join(['python', *sys.argv])}",
        f"{platform.machine()}, {cores} cores, Python {platform.python_version()}; {ROWS} rows, "
        f"median of {ROUNDS} rounds",
        f"start of a pool: {median(started(media) for _ in range(ROUNDS)):.3f} s",
        "",
        f"{'code':>6} {'turns an episode':>17} {'turns a second':>15} {'a turn of 8 rows, s':>20}",
    ]
    pool = SandboxPool(LIMITS, spare=ROWS, parallel=4)
    programs = {"PIL": ZOOM, "numpy": ZOOM_NUMPY}
    for name, turns in counted("cells", [(name, turns) for name in programs for turns in TURNS]):
        code = programs[name]
        play(pool, media, turns, code)
        rounds = [play(pool, media, turns, code) for _ in range(ROUNDS)]
        rate = median(rate for rate, _ in rounds)
        turn = median(second for _, seconds in rounds for second in seconds)
        lines.append(f"{name:>6} {turns:>17} {rate:>15.1f} {turn:>20.3f}")
    pool.close()
    lines.append(f"load average at the end: {os.getloadavg()[0]:.1f}")
    text = "\n".join(lines) + "\n"
    print(text, end="")
    if output:
        output.write_text(text)


if __name__ == "__main__":
    main()
