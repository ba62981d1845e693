"""A task set read from a JSONL manifest: one task a line, with the fields of `Task`.

Start of the journey for videos of your own: `load_tasks("my/tasks.jsonl")`; the fields are listed
in docs/data.md. `paravt data validate my/tasks.jsonl` names every problem by file, line and field.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from paravt_env.common.names import known_name
from paravt_env.span import Span, parse_span
from paravt_env.task import ONE_MEDIUM, TASK_KINDS, Subtitle, Task, TaskError, task_problems
from paravt_env.tasksets.base import TaskList
from paravt_env.tasksets.files import open_folder, resolve_file
from paravt_env.tasksets.rows import Place, Problem, absent, is_number, read_rows
from paravt_env.tasksets.subtitle_files import SubtitleFile, as_subtitles, read_entry

FIELDS = (*(field.name for field in fields(Task)), "split")
REQUIRED = ("id", "question", "kind")
"""And, of `video` and `images`, one."""


class JsonlTasks(TaskList):
    """Tasks of a manifest, in file order.

    Args:
        path: The manifest.
        root: Folder that video paths are relative to and may not leave; default the manifest's own.
        split: Keep the lines of this split, and those that name none; `None` keeps every line.
        name: Name of the set; default the file's stem.
        strict: Whether a bad line is an error; if not, `problems` holds all of them.

    Raises:
        TaskError: Unreadable file; with `strict` also a bad line (a missing, unknown or ill-typed
            field, a video outside the root, a repeated id) or no task left. The message names the
            file, the line and the field.
    """

    def __init__(
        self,
        path: str | Path,
        root: str | Path | None = None,
        split: str | None = None,
        name: str = "",
        strict: bool = True,
    ):
        path = Path(path)
        super().__init__(name or path.stem)
        try:
            base = open_folder(path.parent if root is None else root, "the root folder")
        except ValueError as error:
            raise TaskError(f"{path}: cannot read the manifest: {error}") from error
        splits = set()
        for row in read_rows(path):
            if isinstance(row, Problem):
                self.problems.append(row)
                continue
            row_split = row.data.get("split")
            splits.add(str(row_split))
            if split is not None and row_split not in (None, split):
                continue
            task, problems = read_task(row.data, base)
            self.problems += [Problem(row.place, *problem) for problem in problems]
            if task is not None:
                self._add(task, row.place)
        if not self._tasks and not self.problems:
            has = f" in split {split!r}; it has {', '.join(sorted(splits))}" if splits else ""
            self.problems.append(Problem(Place(str(path), "line", 0), "", f"no tasks{has}"))
        self._check(strict)


def read_task(row: Mapping[str, Any], folder: Path) -> tuple[Task | None, list[tuple[str, str]]]:
    """Read one line of a manifest.

    Args:
        row: The line's object.
        folder: Resolved folder that its paths may not leave.

    Returns:
        The task, or None, and every (field, message) that is wrong with the line.
    """
    required = REQUIRED if row.get("images") else (REQUIRED[0], "video", *REQUIRED[1:])
    problems = [(name, absent(name, row)) for name in required if name not in row]
    values: dict[str, Any] = {}
    for name, value in row.items():
        try:
            known_name("field", name, FIELDS)
            values[name] = _READERS.get(name, _text)(value, folder)
        except (TypeError, ValueError) as error:
            problems.append((name, str(error)))
    values.pop("split", None)
    if row.get("images") and row.get("video"):
        problems.append(("images", ONE_MEDIUM))
    values.setdefault("video", "")
    wrong = {name for name, _ in problems}
    if not wrong & {"kind", "options", "answer"}:
        kind, answer = values["kind"], values.get("answer", "")
        problems += task_problems(kind, values.get("options", ()), answer)
        if kind == "grounding" and parse_span(answer) is None:
            problems.append(("answer", f"{answer!r} is not start-end in seconds, as 12.0-19.5"))
        if kind == "open" and not answer.strip():
            problems.append(("answer", "empty: no answer would ever be right"))
    return (None, problems) if problems else (Task(**values), [])


def _text(value: Any, folder: Path) -> str:
    if not isinstance(value, str):
        raise TypeError(f"text expected, not {value!r}")
    return value


def _filled(value: Any, folder: Path) -> str:
    if not _text(value, folder).strip():
        raise ValueError("the text is empty")
    return value


def _kind(value: Any, folder: Path) -> str:
    return known_name("kind", _text(value, folder), TASK_KINDS)


def _split(value: Any, folder: Path) -> str | None:
    return None if value is None else _text(value, folder)


def _video(value: Any, folder: Path) -> str:
    return resolve_file(_text(value, folder), folder)


def _images(value: Any, folder: Path) -> tuple[str, ...]:
    return tuple(resolve_file(name, folder) for name in _texts(value, folder))


def _texts(value: Any, folder: Path) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise TypeError(f"a list of texts expected, not {value!r}")
    return tuple(value)


def _spans(value: Any, folder: Path) -> tuple[Span, ...]:
    if not isinstance(value, list):
        raise TypeError(f"a list of [start, end] expected, not {value!r}")
    for span in value:
        if not isinstance(span, list) or len(span) != 2 or not all(map(is_number, span)):
            raise TypeError(f"{span!r} is not [start, end] in seconds")
    spans = tuple((float(start), float(end)) for start, end in value)
    for start, end in spans:
        if not 0 <= start < end:
            raise ValueError(f"({start}, {end}) is not a span of seconds")
    return spans


def _subtitles(value: Any, folder: Path) -> tuple[Subtitle, ...] | SubtitleFile:
    if isinstance(value, str):
        if Path(value).suffix.lower() not in (".srt", ".vtt", ".json"):
            raise ValueError(f"{value!r} is neither .srt, .vtt nor .json")
        path = resolve_file(value, folder)
        if not Path(path).is_file():
            raise ValueError(f"{value!r} is not there")
        return SubtitleFile(path)
    if not isinstance(value, list):
        raise TypeError(f"a list of subtitles or the path of a file expected, not {value!r}")
    return as_subtitles(read_entry(entry, number) for number, entry in enumerate(value, 1))


def _metadata(value: Any, folder: Path) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError(f"an object expected, not {value!r}")
    json.dumps(value, allow_nan=False)
    return value


_READERS: dict[str, Callable[[Any, Path], Any]] = {
    "id": _filled,
    "video": _video,
    "images": _images,
    "question": _filled,
    "kind": _kind,
    "options": _texts,
    "evidence": _spans,
    "subtitles": _subtitles,
    "metadata": _metadata,
    "split": _split,
}
