"""The rollouts that a run keeps of its steps: their files, and how they are read.

Written by `train/loop/rollout_log.py` while a run trains, read by `paravt view`. Each step has one
compressed file of its rollouts, whole or absent. `index.jsonl` has one line a step. A line begins
with the step's counts, families and frame budgets, so a list of steps reads these alone; then come
the few values by which rollouts are listed and filtered. Where a resumed run plays a step again,
the later line counts. Tests: `pytest tests/loop/test_rollout_log.py`.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from paravt_env.common.files import write_whole
from paravt_env.common.infos import plain

FOLDER = "rollouts"
INDEX = "index.jsonl"
VERSION = 2
LARGEST = 256 * 2**20
"""Bytes of a step's rollouts, unpacked, that are read at most: a file may claim to be anything."""

LISTED = (
    *("group", "member", "task_id", "family", "frame_budget", "correct", "reward", "compliant"),
    *("calls", "executed", "forced", "stop_reason", "error", "answer"),
)
"""What the index holds of a rollout, in this order."""
REST = "rollouts"
"""The last key of a line of the index."""


class RolloutFileError(ValueError):
    """A file of kept rollouts that cannot be read."""


def step_path(folder: Path, step: int) -> Path:
    """The file of a step's rollouts in a run's folder."""
    return folder / FOLDER / f"step-{step:06d}.jsonl.gz"


def write_step(folder: Path, step: int, rollouts: Sequence[Mapping[str, Any]]) -> int:
    """Write a step's rollouts, then its line of the index; returns the bytes on disk.

    Args:
        folder: Of the run.
        step: The step, as in `metrics.jsonl`.
        rollouts: Plain data; each has the values of `LISTED`.
    """
    path = step_path(folder, step)
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps(plain(one), allow_nan=False) + "\n" for one in rollouts)
    packed = gzip.compress(lines.encode("utf-8", "replace"), 6, mtime=0)
    write_whole(path, packed)
    with (path.parent / INDEX).open("ab") as index:
        index.write(index_line(step, len(packed), rollouts))
    return len(packed)


def index_line(step: int, size: int, rollouts: Sequence[Mapping[str, Any]]) -> bytes:
    """A step's line of the index: the head, then the values of `LISTED` of every rollout."""
    line = {
        "version": VERSION,
        "step": step,
        "bytes": size,
        "count": len(rollouts),
        "families": sorted({str(one["family"]) for one in rollouts}),
        "frame_budgets": sorted({int(one["frame_budget"]) for one in rollouts}),
        REST: plain([[one[name] for name in LISTED] for one in rollouts]),
    }
    return (json.dumps(line, allow_nan=False) + "\n").encode("utf-8", "replace")


def read_step(folder: Path, step: int) -> list[dict[str, Any]]:
    """The rollouts of a step.

    Raises:
        RolloutFileError: There are none, or the file is damaged or larger than `LARGEST`.
    """
    path = step_path(folder, step)
    if not path.is_file():
        raise RolloutFileError(f"step {step} kept no rollouts (run.keep_rollouts)")
    data = unpacked(path)
    try:
        rollouts = [json.loads(line) for line in data.decode("utf-8").splitlines()]
    except (ValueError, RecursionError) as error:
        raise RolloutFileError(f"{path} is damaged: {error}") from error
    if not all(isinstance(one, dict) and set(LISTED) <= one.keys() for one in rollouts):
        raise RolloutFileError(f"{path} holds something else than rollouts")
    return rollouts


def unpacked(path: Path) -> bytes:
    """The content of a compressed file.

    Raises:
        RolloutFileError: It is damaged, empty, or larger than `LARGEST`.
    """
    try:
        with gzip.open(path) as file:
            data = file.read(LARGEST + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise RolloutFileError(f"{path} cannot be read: {error}") from error
    if not 0 < len(data) <= LARGEST:
        raise RolloutFileError(f"{path} holds nothing, or more than {LARGEST} bytes")
    return data


class IndexLine(NamedTuple):
    """The head of a step's line in the index; `text` is the whole line, which `rows` reads.

    `size` is in bytes on disk, `rollouts` how many there are; `families` and `frame_budgets` are
    theirs.
    """

    step: int
    size: int
    rollouts: int
    families: frozenset[str]
    frame_budgets: frozenset[int]
    text: bytes

    def rows(self) -> list[list[Any]]:
        """The values of `LISTED` of every rollout; none where the rest of the line is damaged."""
        try:
            rows = json.loads(self.text)[REST]
            whole = len(rows) == self.rollouts and all(len(row) == len(LISTED) for row in rows)
        except (ValueError, TypeError, KeyError, RecursionError):
            return []
        return rows if whole else []


def index_lines(lines: bytes) -> Iterator[IndexLine]:
    r"""The head of each whole line, without reading the rest of it; other lines are passed over.

    >>> line = b'{"version": 2, "step": 3, "bytes": 9, "count": 1, "families": ["order"], '
    >>> (found,) = index_lines(line + b'"frame_budgets": [4], "rollouts": [[]]}\nnonsense\n')
    >>> found.step, found.rollouts, sorted(found.frame_budgets), found.rows()
    (3, 1, [4], [])
    """
    for line in lines.splitlines():
        try:
            head = json.loads(line.partition(f', "{REST}": '.encode())[0] + b"}")
            if head["version"] != VERSION:
                continue
            step, size, count = int(head["step"]), int(head["bytes"]), int(head["count"])
            families = frozenset(map(str, head["families"]))
            budgets = frozenset(map(int, head["frame_budgets"]))
        except (ValueError, TypeError, KeyError, RecursionError, OverflowError):
            continue
        if min(step, size, count) >= 0:
            yield IndexLine(step, size, count, families, budgets, line)


def drop_steps(folder: Path, first: int) -> None:
    """Forget the steps from `first` on: a resumed run plays them again."""
    index = folder / FOLDER / INDEX
    if not index.is_file():
        return
    kept = []
    for line in index.read_bytes().splitlines(keepends=True):
        known = next(index_lines(line), None)
        if known is None or known.step < first:
            kept.append(line if line.endswith(b"\n") else b"")
        else:
            step_path(folder, known.step).unlink(missing_ok=True)
    write_whole(index, b"".join(kept))
