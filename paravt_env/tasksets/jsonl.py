"""A task set read from a JSONL manifest: one task a line, with the fields of `Task`.

Start of the journey for videos of your own: `load_tasks("my/tasks.jsonl")`. Only `id`, `video`,
`question` and `kind` are needed on every line; `split` may mark the split a line belongs to.
"""

from __future__ import annotations

import difflib
import json
from dataclasses import fields
from pathlib import Path
from typing import Any

from paravt_env.names import known_name
from paravt_env.task import Subtitle, Task, TaskError

_FIELDS = tuple(f.name for f in fields(Task))
_REQUIRED = ("id", "video", "question", "kind")
_TEXTS = ("id", "video", "question", "kind", "answer", "category", "source", "family")


class JsonlTasks:
    """Tasks of a manifest, in file order.

    Args:
        path: The manifest.
        root: Folder that video paths are relative to and may not leave; default the manifest's own.
        split: Keep the lines of this split, and those that name none; `None` keeps every line.
        name: Name of the set; default the file's stem.

    Raises:
        TaskError: Unreadable file or line, a missing, unknown or ill-typed field, a video outside
            the root, a repeated id, or no task left; the message names the file, the line and the
            field.
    """

    def __init__(
        self,
        path: str | Path,
        root: str | Path | None = None,
        split: str | None = None,
        name: str = "",
    ):
        path = Path(path)
        self.name = name or path.stem
        base = (path.parent if root is None else Path(root)).resolve()
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise TaskError(f"{path}: cannot read the manifest: {error}") from error
        self._tasks: list[Task] = []
        self._index: dict[str, int] = {}
        splits = set()
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            where = f"{path}, line {number}"
            row = _parse_row(line, where)
            row_split = row.pop("split", None)
            splits.add(str(row_split))
            if split is not None and row_split not in (None, split):
                continue
            task = _build_task(row, base, where)
            if task.id in self._index:
                raise TaskError(f"{where}: field 'id': {task.id!r} occurs twice")
            self._index[task.id] = len(self._tasks)
            self._tasks.append(task)
        if not self._tasks:
            has = f" in split {split!r}; it has {', '.join(sorted(splits))}" if splits else ""
            raise TaskError(f"{path}: no tasks{has}")

    @property
    def ids(self) -> tuple[str, ...]:
        """Identifiers in file order."""
        return tuple(self._index)

    def __len__(self) -> int:
        """Number of tasks."""
        return len(self._tasks)

    def __getitem__(self, index: int) -> Task:
        """The task at `index`."""
        return self._tasks[index]

    def by_id(self, task_id: str) -> Task:
        """The task called `task_id`; raises `TaskError` with the nearest id where there is none."""
        if task_id not in self._index:
            near = difflib.get_close_matches(str(task_id), self._index, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; the first is {self.ids[0]!r}"
            raise TaskError(f"task set {self.name!r} has no task {task_id!r}{hint}")
        return self._tasks[self._index[task_id]]


def resolve_video(video: str, root: Path, where: str) -> str:
    """Absolute path of `video` under the resolved folder `root`.

    Raises:
        TaskError: The path leaves the root, through `..`, an absolute path or a link.
    """
    resolved = (root / video).resolve()
    if not resolved.is_relative_to(root) or resolved == root:
        raise TaskError(f"{where}: field 'video': {video!r} is not inside {root}")
    return str(resolved)


def _parse_row(line: str, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise TaskError(f"{where}: not JSON: {error}") from error
    if not isinstance(row, dict):
        raise TaskError(f"{where}: a task is a JSON object, not {type(row).__name__}")
    for field in row:
        try:
            known_name("field", field, (*_FIELDS, "split"))
        except ValueError as error:
            raise TaskError(f"{where}: {error}") from error
    for field in _REQUIRED:
        if field not in row:
            raise TaskError(f"{where}: field {field!r} is missing")
    for field in _TEXTS:
        if not isinstance(row.get(field, ""), str):
            raise TaskError(f"{where}: field {field!r}: text expected, not {row[field]!r}")
    return row


def _build_task(row: dict[str, Any], root: Path, where: str) -> Task:
    row["video"] = resolve_video(row["video"], root, where)
    for field, build in (
        ("options", _texts),
        ("evidence", _spans),
        ("subtitles", _subtitles),
        ("metadata", dict),
    ):
        if field in row:
            try:
                row[field] = build(row[field])
            except (TypeError, ValueError, KeyError) as error:
                raise TaskError(f"{where}: field {field!r}: {error}") from error
    try:
        return Task(**row)
    except TaskError as error:
        raise TaskError(f"{where}: {error}") from error


def _texts(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise TypeError(f"a list of texts expected, not {value!r}")
    return tuple(value)


def _spans(value: Any) -> tuple[tuple[float, float], ...]:
    spans = tuple((float(start), float(end)) for start, end in value)
    for start, end in spans:
        if not 0 <= start < end < float("inf"):
            raise ValueError(f"({start}, {end}) is not a span of seconds")
    return spans


def _subtitles(value: Any) -> tuple[Subtitle, ...]:
    return tuple(
        Subtitle(float(line["start"]), float(line["end"]), str(line["text"])) for line in value
    )
