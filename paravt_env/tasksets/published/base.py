"""What the loaders of published data sets share: find the annotations, read rows, resolve files.

Start of the journey. A loader is one file with one subclass: it names the columns and the usual
folders of its set and turns one row into a `Task`. Annotations are local files under `root`, or
come from the hub when asked (`hub=True`); videos always lie under `root`. A video that is missing
keeps its task: `paravt data list` counts it and `reset` says which one. Run the tests with `pytest
tests/tasksets/test_tasksets.py`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from paravt_env.task import OPTION_LETTERS, Task, TaskError
from paravt_env.tasksets.base import TaskList
from paravt_env.tasksets.files import open_folder, resolve_file
from paravt_env.tasksets.published.hub import hub_rows
from paravt_env.tasksets.published.options import gold_letter
from paravt_env.tasksets.rows import READERS, FieldError, Problem, Row, absent, read_rows
from paravt_env.tasksets.subtitle_files import SubtitleFile

SPLIT_ALIASES = {"val": "validation", "validation": "val"}


class PublishedTasks(TaskList, ABC):
    """A published data set.

    Args:
        root: Folder that holds the videos, which may not lie outside it, and the annotations.
        split: Split of the set; None is its only one.
        annotations: Annotation files (`.parquet`, `.jsonl` or `.json`); default: looked for in
            `root` and its folders by the names that the publisher gives them.
        videos: Folder inside `root` that video paths are relative to; default: the usual ones.
        hub: Read the annotations from the Hugging Face hub: True, or `owner/name` of a copy.
        strict: Whether a row that is no task is an error; if not, `problems` holds all of them.

    Attributes:
        position: Number of the row that is being read, from 1, over all files: an id for sets
            that publish none.

    Raises:
        TaskError: No such folder, split or file; with `strict` also a bad row.
    """

    set_name: ClassVar[str]
    hub_dataset: ClassVar[str]
    hub_config: ClassVar[str | None] = None
    splits: ClassVar[Mapping[str, tuple[str, ...]]] = {"test": ("test",)}
    """Split -> names under which it is published: first words of its files, splits of the hub."""
    columns: ClassVar[tuple[str, ...]]
    """Columns that every row must have."""
    more_columns: ClassVar[tuple[str, ...]] = ()
    """Columns that are read where they exist."""
    video_folders: ClassVar[tuple[str, ...]] = ("",)
    """Folders under `root` in which videos may lie, the usual one first."""

    def __init__(
        self,
        root: str | Path | None = None,
        split: str | None = None,
        *,
        annotations: str | Path | Sequence[str | Path] | None = None,
        videos: str | None = None,
        hub: bool | str = False,
        strict: bool = True,
    ) -> None:
        super().__init__(self.set_name)
        self.split = self._known_split(split)
        if root is None:
            raise TaskError(f"{self.name}: give root=, the folder that holds its videos")
        try:
            self.root = open_folder(root, f"{self.name}: root")
        except ValueError as error:
            raise TaskError(str(error)) from error
        self._folders = self.video_folders if videos is None else (videos,)
        self.position = 0
        for row in self._rows(annotations, hub):
            self.position += 1
            if isinstance(row, Problem):
                self.problems.append(row)
                continue
            try:
                for column in self.columns:
                    if column not in row.data:
                        raise FieldError(column, absent(column, row.data))
                task = self.read(row)
                if task.id in self._index:
                    self.note(row, "", f"{task.id!r} occurs twice: kept under another id")
                    task = replace(task, id=f"{task.id}#{self.position}")
                self._add(task, row.place)
            except FieldError as error:
                self.problems.append(Problem(row.place, error.field, str(error)))
            except TaskError as error:
                self.problems.append(Problem(row.place, "", str(error)))
        self._check(strict)
        if not self._tasks and strict:
            raise TaskError(f"{self.name}: the annotations of split {self.split!r} hold no row")

    @abstractmethod
    def read(self, row: Row) -> Task:
        """The task of one row.

        Raises:
            FieldError: A field is missing or holds something else than is published.
        """

    def video(self, field: str, *names: str) -> str:
        """Absolute path of a row's video: the first of `names` that is there, else the first.

        Args:
            field: The field that named it, for errors.
            *names: Paths relative to each of the video folders.
        """
        places = [f"{folder}/{name}" if folder else name for folder in self._folders
                  for name in names]  # fmt: skip
        return self._first(field, places)

    def subtitles(self, field: str, *names: str, offset: float = 0.0) -> Sequence:
        """The lines of a row's subtitle file; () where none of `names` (under `root`) is there."""
        path = self._first(field, names)
        if Path(path).is_file():
            return SubtitleFile(path, offset)
        if path not in self.missing_subtitles:
            self.missing_subtitles.append(path)
        return ()

    def note(self, row: Row, field: str, message: str) -> None:
        """Record that a row is kept although something about it is odd."""
        self.notes.append(Problem(row.place, field, message))

    def letter(self, row: Row, field: str, count: int) -> str:
        """The gold letter that a field holds, of `count` options."""
        letter = gold_letter(row.text(field), count)
        if not letter:
            letters = OPTION_LETTERS[:count]
            raise FieldError(field, f"{row.data[field]!r} is not a letter of {letters}")
        return letter

    def _first(self, field: str, names: Sequence[str]) -> str:
        try:
            paths = [resolve_file(name, self.root) for name in names]
        except ValueError as error:
            raise FieldError(field, str(error)) from error
        return next((path for path in paths if Path(path).is_file()), paths[0])

    def _known_split(self, split: str | None) -> str:
        names = tuple(self.splits)
        if split is None and len(names) == 1:
            return names[0]
        for name in (split, SPLIT_ALIASES.get(split or "")):
            if name in names:
                return str(name)
        asked = "needs a split" if split is None else f"has no split {split!r}"
        raise TaskError(f"{self.name} {asked}: use split={' or '.join(map(repr, names))}")

    def _rows(
        self, annotations: str | Path | Sequence[str | Path] | None, hub: bool | str
    ) -> Iterator[Row | Problem]:
        columns = (*self.columns, *self.more_columns)
        published = self.splits[self.split]
        if hub:
            dataset = hub if isinstance(hub, str) else self.hub_dataset
            yield from hub_rows(dataset, self.hub_config, published, columns)
            return
        if annotations is None:
            files = find_annotations(self.root, published, self.name)
        elif isinstance(annotations, str | Path):
            files = [Path(annotations)]
        else:
            files = [Path(path) for path in annotations]
        for file in files:
            yield from read_rows(file, columns)


def find_annotations(root: Path, published: Sequence[str], name: str) -> list[Path]:
    """The annotation files of a split under `root`, or in one of its folders: shards in order.

    Args:
        root: Where to look.
        published: First words of the files' names: `test` finds `test.jsonl` and
            `test-00000-of-00002.parquet`.
        name: Of the data set, for errors.

    Raises:
        TaskError: There are none, or they lie in several folders.
    """
    for suffix in READERS:
        for word in published:
            for depth in ("", "*/"):
                patterns = (f"{word}{suffix}", f"{word}-*-of-*{suffix}")
                found = sorted({path for one in patterns for path in root.glob(depth + one)})
                folders = {path.parent for path in found}
                if len(folders) > 1:
                    places = ", ".join(sorted(map(str, folders)))
                    raise TaskError(f"{name}: annotations lie in {places}: give annotations=")
                if found:
                    return found
    words = " or ".join(f"{word}{suffix}" for word in published for suffix in READERS)
    raise TaskError(f"{name}: {root} holds no annotations ({words}): give annotations= or hub=True")
