"""`paravt data materialize`: ParaVT-Parquet files with the paths of this machine in them.

The published files name videos relative to the folder that the source archives were unpacked to.
Other programs want addresses that they can open, so the same files are written again with
`file://` and the absolute path. What a row names must lie under that folder; a file that is not
there is written all the same, counted and listed. Run the tests with `pytest
tests/tasksets/test_tasksets_paravt.py`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from paravt_env.common.files import atomic_path
from paravt_env.task import TaskError
from paravt_env.tasksets.files import open_folder, resolve_file
from paravt_env.tasksets.published.paravt_parquet import FILE_SCHEME, as_json, media_parts
from paravt_env.tasksets.rows import FieldError, Place, Problem

COLUMNS = ("videos", "messages")
"""Columns that name files; a file has one of them at least."""


@dataclass
class Materialized:
    """What was written.

    Attributes:
        files: The new files.
        rows: Rows of all of them.
        missing: Paths that nothing is at, as published, each once.
        buckets: How many of those lie under each first folder.
        problems: Paths that were refused; they are written as they were.
    """

    files: list[Path] = field(default_factory=list)
    rows: int = 0
    missing: dict[str, None] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    @property
    def buckets(self) -> Counter[str]:
        """Missing paths by first folder."""
        return Counter(path.partition("/")[0] for path in self.missing)


def materialize(sources: Sequence[Path], root: str | Path, output: str | Path) -> Materialized:
    """Write each Parquet file again with absolute paths, row by row and column by column the same.

    Args:
        sources: Parquet files, or folders of them.
        root: Folder that the source archives were unpacked to.
        output: Folder of the new files, which have the names of the old ones.

    Raises:
        TaskError: No such file or folder, a file without a column that names files, or an output
            that would overwrite its source.
    """
    try:
        folder = open_folder(root, "root")
    except ValueError as error:
        raise TaskError(str(error)) from error
    files = [
        file
        for source in sources
        for file in (sorted(source.glob("*.parquet")) if source.is_dir() else [source])
    ]
    if not files:
        raise TaskError(f"no Parquet file in {', '.join(map(str, sources))}")
    target = Path(output)
    target.mkdir(parents=True, exist_ok=True)
    done = Materialized()
    for file in files:
        written = target / file.name
        if written.resolve() == file.resolve():
            raise TaskError(f"{file} would overwrite itself: give another --output")
        _rewrite(file, written, folder, done)
        done.files.append(written)
    return done


def _rewrite(source: Path, target: Path, root: Path, done: Materialized) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with atomic_path(target) as partial, pq.ParquetFile(source) as file:
            done.rows += _write(file, partial, source, root, done)
    except (OSError, pa.ArrowException) as error:
        raise TaskError(f"{source}: {error}") from error


def _write(file: Any, partial: Path, source: Path, root: Path, done: Materialized) -> int:
    """Write the rows of `file` with absolute paths to `partial`; returns how many there are."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = file.schema_arrow
    columns = [name for name in COLUMNS if name in schema.names]
    if not columns:
        names = ", ".join(schema.names)
        raise TaskError(f"{source}: neither videos nor messages among {names}")
    number = 0
    with pq.ParquetWriter(partial, schema) as writer:
        for batch in file.iter_batches(batch_size=256):
            for name in columns:
                values = [
                    _value(name, value, Place(str(source), "row", number + i), root, done)
                    for i, value in enumerate(batch.column(name).to_pylist(), 1)
                ]
                place = schema.get_field_index(name)
                array = pa.array(values, type=schema.field(name).type)
                batch = batch.set_column(place, schema.field(name), array)
            number += batch.num_rows
            writer.write_batch(batch)
    return number


def _value(name: str, value: Any, place: Place, root: Path, done: Materialized) -> Any:
    def absolute(path: Any) -> Any:
        try:
            return _absolute(path, root, done)
        except ValueError as error:
            done.problems.append(Problem(place, name, str(error)))
            return path

    try:
        return _videos(value, absolute) if name == "videos" else _messages(value, absolute)
    except FieldError as error:
        done.problems.append(Problem(place, name, str(error)))
        return value


def _videos(value: Any, absolute: Callable[[Any], Any]) -> Any:
    if not isinstance(value, list) or not all(isinstance(entry, Mapping) for entry in value):
        raise FieldError("videos", f"a list of objects with video expected, not {value!r}")
    return [{**entry, "video": absolute(entry.get("video"))} for entry in value]


def _messages(value: Any, absolute: Callable[[Any], Any]) -> Any:
    messages = as_json("messages", value)
    if not isinstance(messages, list):
        raise FieldError("messages", f"a list of messages expected, not {messages!r}")
    for part in media_parts(messages):
        entry: Mapping[str, Any] = part[part["type"]]
        part[part["type"]] = {**entry, "url": absolute(entry.get("url"))}
    return json.dumps(messages, ensure_ascii=False) if isinstance(value, str) else messages


def _absolute(path: Any, root: Path, done: Materialized) -> str:
    if not isinstance(path, str):
        raise ValueError(f"a path expected, not {path!r}")
    name = path.removeprefix(FILE_SCHEME)
    resolved = resolve_file(name, root)
    if not Path(resolved).is_file():
        done.missing[name] = None
    return FILE_SCHEME + resolved
