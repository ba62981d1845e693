"""The house in numbers: rooms, arrows, circles, what one step enters, and how long loading takes.

Reads the source tree and takes three steps of ParaVT-Mini. Run it with `python
benchmarks/house.py`; the committed output is `benchmarks/results/house.txt`.
"""

from __future__ import annotations

import ast
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from train.config.recipe import load
from train.config.run import TrainConfig
from train.loop.launch import train
from train.loop.trainer import Trainer

ROOT = Path(__file__).parent.parent
sys.path.append(str(ROOT / "tests"))
from support.imports import SourceTree  # noqa: E402
from support.rooms import DOORS, HOUSE, circles, room_of, wrong_way  # noqa: E402

NOT_COUNTED = ("paravt_env/tasksets", "paravt_env/video", "train/report")
"""Rooms that a reader of the step may leave closed."""
LOADS = {
    "import paravt_env": [sys.executable, "-c", "import paravt_env"],
    "paravt --help": [sys.executable, "-m", "train", "--help"],
    "paravt train nosuch": [sys.executable, "-m", "train", "train", "nosuch"],
    "--print-config": [sys.executable, "-m", "train", "train", "demo", "--print-config"],
}


def lines(path: Path) -> int:
    """Lines of a file."""
    return len(path.read_text(encoding="utf-8").splitlines())


def rooms(tree: SourceTree) -> dict[str, tuple[int, int]]:
    """Files and lines of each room, in the order of the floors."""
    found: dict[str, tuple[int, int]] = {}
    for module, path in sorted(tree.files.items()):
        files, count = found.get(room_of(module), (0, 0))
        found[room_of(module)] = files + 1, count + lines(ROOT / path)
    return found


def most_fields(tree: SourceTree) -> list[tuple[int, str]]:
    """The classes with the most annotated fields, those of settings included."""
    counted = []
    for path in tree.files.values():
        for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                fields = sum(isinstance(child, ast.AnnAssign) for child in node.body)
                counted.append((fields, f"{node.name} ({path})"))
    return sorted(counted, reverse=True)[:3]


def entered_by_a_step() -> set[str]:
    """Our files in which a function is called during the second synchronous step of a run."""
    seen: set[str] = set()
    steps = Counter[str]()
    original = Trainer.step

    def look(frame: FrameType, event: str, argument: Any) -> None:
        path = Path(frame.f_code.co_filename)
        if event == "call" and path.is_relative_to(ROOT) and "site-packages" not in path.parts:
            seen.add(path.relative_to(ROOT).as_posix())

    def watched(trainer: Trainer) -> None:
        steps["taken"] += 1
        if steps["taken"] == 2:
            threading.setprofile(look)
            sys.setprofile(look)
        try:
            original(trainer)
        finally:
            sys.setprofile(None)
            threading.setprofile(None)  # type: ignore[arg-type]

    Trainer.step = watched  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as folder:
        changes = {
            "env.tasks_kwargs": {"videos": 1, "root": folder},
            "algorithm.groups": "2",
            "algorithm.group_size": "4",
            "run.steps": "3",
            "run.eval_every": "0",
            "run.folder": folder,
            "run.wandb": "disabled",
        }
        train(load(TrainConfig, "paragrpo_mini", changes))
    tests = (ROOT / "tests", ROOT / "benchmarks")
    return {path for path in seen if not any((ROOT / path).is_relative_to(t) for t in tests)}


def seconds(command: list[str], times: int = 5) -> float:
    """Median wall time of a command that is allowed to fail."""
    found = []
    for _ in range(times):
        began = time.perf_counter()
        subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
        found.append(time.perf_counter() - began)
    return statistics.median(found)


def main() -> None:
    """Print everything."""
    torch.set_num_threads(1)
    tree = SourceTree.read(ROOT, tuple(HOUSE), DOORS)
    print("$ python benchmarks/house.py\n\nroom: files, lines")
    found = rooms(tree)
    for room, (files, count) in found.items():
        print(f"  {room:28} {files:4} {count:6}")
    files, count = (sum(column) for column in zip(*found.values(), strict=True))
    print(f"  all {files} files, {count} lines")
    for folder in ("tests", "benchmarks", "examples"):
        paths = sorted((ROOT / folder).rglob("*.py"))
        print(f"  {folder}: {len(paths)} files, {sum(map(lines, paths))} lines")
    print(f"\narrows between files: {len(tree.arrows)}")
    print(f"circles of files: {len(circles(tree))}; upward arrows: {len(wrong_way(tree))}")
    print("classes with the most fields: " + ", ".join(f"{n} {c}" for n, c in most_fields(tree)))
    entered = entered_by_a_step()
    counted = {path for path in entered if not path.startswith(NOT_COUNTED)}
    total = sum(lines(ROOT / path) for path in entered)
    print(
        f"\na synchronous step enters {len(entered)} files of {total} lines, {len(counted)} of them"
    )
    print("outside task sets, video and reports")
    for name, command in LOADS.items():
        print(f"{name}: {seconds(command):.2f} s (median of 5)")


if __name__ == "__main__":
    main()
