"""What an evaluation depends on besides its settings, as digests: tasks, weights, a plug-in's code.

Under `train.evaluation.measure`, whose row files start with them: a row is never taken for that of
another question, of weights from before a training step, or of an agent that was edited since. Pure
functions of files and tasks. Tests: `pytest tests/evaluation/test_digests.py`.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Sequence
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from paravt_env.common.files import cache_root
from paravt_env.task import TaskSet
from train.rollout.starts import Start

WHOLE = 64 * 2**20
"""Bytes up to which a file is read whole."""
HEAD, EVERY, BLOCK = 2**20, 2**20, 2**12
"""Of a larger file: its first bytes (the header of a safetensors file), then a block of every so
many bytes. A training step changes every tensor that it trains, and one of a mebibyte is met."""
UNREAD = (".md", ".jsonl", ".yaml")
"""Files beside the weights that say how they were made; nothing loads them."""


def samples_digest(tasks: TaskSet, starts: Sequence[Start]) -> str:
    """Digest of what is asked: each planned task with its gold answer, and its frame budget."""
    digest = sha256()
    for start in starts:
        assert start.task_id is not None  # an evaluation plays named tasks
        task = tasks.by_id(start.task_id)
        asked: list[Any] = [
            task.id,
            start.frame_budget,
            _place(task.video),
            task.question,
            task.options,
        ]
        asked += [task.kind, task.answer, task.evidence, task.family, task.category]
        asked += [_place(path) for path in task.images]
        digest.update(json.dumps(asked).encode() + b"\n")
    return digest.hexdigest()


def _place(name: str) -> str:
    """The path of a video or an image; inside the cache folder, which differs between machines."""
    path = Path(name)
    return str(path.relative_to(cache_root()) if path.is_relative_to(cache_root()) else path)


def code_digest(place: str) -> str:
    """Digest of the file of a plug-in: `file.py`, or the file of an importable module.

    What that file imports is not in it.

    Raises:
        ImportError: No such module.
        OSError: No such file.
    """
    path = place
    if not place.endswith(".py"):
        try:
            spec = importlib.util.find_spec(place)
        except ValueError as error:  # a relative name, or a module without a spec
            raise ImportError(str(error)) from error
        if spec is None or not spec.has_location or spec.origin is None:
            raise ImportError(f"no file of a module {place!r}")
        path = spec.origin
    return sha256(Path(path).read_bytes()).hexdigest()


def weights_digest(folder: Path) -> dict[str, str]:
    """Digest of each file of a checkpoint: equal for its copies, wherever and whenever made."""
    files = sorted(path for path in folder.iterdir() if path.is_file())
    return {
        path.name: file_digest(path)
        for path in files
        if path.suffix not in UNREAD and not path.name.startswith(".")
    }


def file_digest(path: Path) -> str:
    """Digest of a file's size and content, sampled above `WHOLE`; read again if it was written."""
    stat = path.stat()
    return _content(str(path.resolve()), stat.st_size, stat.st_ino, stat.st_mtime_ns)


@lru_cache(maxsize=1024)
def _content(path: str, size: int, inode: int, written: int) -> str:
    del inode, written  # of another file, or of other content, at the same place
    digest = sha256(f"{size}:".encode())
    with open(path, "rb") as file:
        if size <= WHOLE:
            while part := file.read(2**20):
                digest.update(part)
        else:
            digest.update(file.read(HEAD))
            for offset in range(HEAD, size, EVERY):
                file.seek(offset)
                digest.update(file.read(BLOCK))
    return digest.hexdigest()
