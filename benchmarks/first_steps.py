"""How long a newcomer waits: the notebook from top to bottom, and the first block about PPO.

Runs the cells of `examples/quickstart.ipynb` in one process with an empty cache, and the first
block of `docs/sb3.md` in another until it prints. Run it with `python benchmarks/first_steps.py >
benchmarks/results/first_steps.txt`.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

from paravt_env.common.progress import counted

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK, PAGE = ROOT / "examples" / "quickstart.ipynb", ROOT / "docs" / "sb3.md"


def cells() -> list[str]:
    """The notebook's code."""
    content = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    return ["".join(cell["source"]) for cell in content["cells"] if cell["cell_type"] == "code"]


def spent() -> tuple[float, float]:
    """Seconds on the clock, and of processor time of this process and those it has waited for."""
    times = os.times()
    return times.elapsed, sum(times[:4])


def since(began: tuple[float, float]) -> str:
    """Seconds since then (of processor time)."""
    clock, processor = (now - then for now, then in zip(spent(), began, strict=True))
    return f"{clock:7.1f} s ({processor:5.1f})"


def run_notebook() -> None:
    """Run the cells, and print the seconds and the output of each."""
    names: dict[str, object] = {"__name__": "notebook"}
    began = spent()
    for number, cell in counted("cells", enumerate(cells(), 1)):
        started, said = spent(), io.StringIO()
        with contextlib.redirect_stdout(said):
            exec(compile(cell, f"cell {number}", "exec"), names)
        head = cell.strip().splitlines()[0]
        print(f"{since(started)}  cell {number}: {head[:60]}", flush=True)
        for line in said.getvalue().splitlines()[-3:]:
            print(f"{' ' * 19}{line[:90]}", flush=True)
    print(f"{since(began)}  the notebook", flush=True)


def first_line(block: str, cache: str) -> str:
    """Seconds until a program prints, and what; it is ended then."""
    began = spent()
    started = subprocess.Popen(
        [sys.executable, "-u", "-c", block],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PARAVT_CACHE": cache},
    )
    assert started.stdout is not None
    line = started.stdout.readline().strip()
    clock = spent()[0] - began[0]
    started.kill()
    started.wait()
    processor = spent()[1] - began[1]
    return f"{clock:7.1f} s ({processor:5.1f})  docs/sb3.md, first block, until it prints: {line}"


def main() -> None:
    """Measure and print."""
    print(f"$ {shlex.join(['python', *sys.argv])}\n")
    load = os.getloadavg()[0]
    print(
        f"{os.cpu_count()} cores, one thread, empty caches; load {load:.1f}; processor time in ()"
    )
    with tempfile.TemporaryDirectory() as cache:
        os.environ["PARAVT_CACHE"] = cache
        run_notebook()
    (block, *_) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    with tempfile.TemporaryDirectory() as cache:
        print(first_line(block, cache), flush=True)
        print(first_line(block, cache).replace("first block", "the same again"), flush=True)


if __name__ == "__main__":
    main()
