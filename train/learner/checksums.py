"""Checksums of a checkpoint's files: what a disk has lost is found before a run resumes.

Written and checked by `train/learner/checkpoint.py`. A file is hashed in pieces, several at a time,
so that a checkpoint of 100 GB takes as long as reading it. Tests: `pytest
tests/loop/test_run_folder.py`.
"""

from __future__ import annotations

import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

FILE = "checksums.json"
PIECE = 64 * 2**20
"""Bytes of a file that are hashed on their own."""


def write(folder: Path) -> None:
    """Note the checksum of every file below a folder in its `FILE`."""
    sums = {str(path.relative_to(folder)): digest(path) for path in _files(folder)}
    (folder / FILE).write_text(json.dumps(sums, indent=1), encoding="utf-8")


def problems(folder: Path) -> list[str]:
    """What differs from the checksums of a folder; nothing where it has none."""
    path = folder / FILE
    if not path.exists():
        return []
    try:
        sums = dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError):
        return [f"{FILE} is no list of checksums"]
    found = []
    for name, expected in sums.items():
        file = folder / name
        if not file.is_file():
            found.append(f"{name} is missing")
        elif digest(file) != expected:
            found.append(f"{name} differs from its checksum")
    return found


def digest(path: Path, piece: int = PIECE) -> str:
    """SHA-256 over the SHA-256 of each piece of a file, in hexadecimal."""
    starts = range(0, os.path.getsize(path), piece)

    def of(start: int) -> bytes:
        with path.open("rb") as file:
            file.seek(start)
            return hashlib.sha256(file.read(piece)).digest()

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        return hashlib.sha256(b"".join(pool.map(of, starts))).hexdigest()


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.name != FILE)
