"""Rows of annotation files: JSONL, JSON and Parquet as mappings, each with its place.

Start of the journey: file -> **rows** -> tasks. All three are read as data: nothing is unpickled
and nothing is evaluated; a line and a file have a largest size. A row that cannot be read is a
`Problem` in its place, so that one bad line hides no other. Run the tests with `pytest
tests/tasksets/test_tasksets_files.py`.
"""

from __future__ import annotations

import difflib
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from paravt_env.task import TaskError

MAX_LINE_BYTES = 8 * 2**20
"""The longest line of a JSONL manifest; a task with an hour of subtitles has about 0.1 MiB."""
MAX_JSON_BYTES = 256 * 2**20
"""The largest JSON file: it is parsed in memory, at several times its size."""


class Place(NamedTuple):
    """Where a row stands: `unit` is `line` or `row`, counted from 1; 0 is the file as a whole."""

    file: str
    unit: str
    number: int

    def __str__(self) -> str:
        return f"{self.file}, {self.unit} {self.number}" if self.number else self.file


class Problem(NamedTuple):
    """What is wrong with one field of one row; `field` is "" where no field is at fault."""

    place: Place
    field: str
    message: str

    def __str__(self) -> str:
        named = f"field {self.field!r}: " if self.field else ""
        return f"{self.place}: {named}{self.message}"


class FieldError(ValueError):
    """A field that cannot be used; raised while a row is read, reported as a `Problem`."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


class Row:
    """One row with readers that check types; every error is a `FieldError` that names the field."""

    def __init__(self, data: Mapping[str, Any], place: Place) -> None:
        self.data, self.place = data, place

    def get(self, field: str) -> Any:
        """The value; a field that is absent, or null, is an error."""
        value = self.data.get(field)
        if value is None:
            raise FieldError(field, absent(field, self.data))
        return value

    def text(self, field: str) -> str:
        """A text that is not blank, without surrounding space."""
        value = self.get(field)
        if not isinstance(value, str) or not value.strip():
            raise FieldError(field, f"text expected, not {value!r}")
        return value.strip()

    def label(self, field: str) -> str:
        """A short text or a number, as text; "" where the field is null or absent."""
        value = self.data.get(field)
        if value is None:
            return ""
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise FieldError(field, f"text or a number expected, not {value!r}")
        return str(value).strip()

    def texts(self, field: str) -> list[str]:
        """A list of texts."""
        value = self.get(field)
        if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
            raise FieldError(field, f"a list of texts expected, not {value!r}")
        return value

    def number(self, field: str) -> float:
        """A finite number."""
        value = self.get(field)
        if not is_number(value):
            raise FieldError(field, f"a number expected, not {value!r}")
        return float(value)


def is_number(value: Any) -> bool:
    """Whether `value` is an int or float that a float can hold, finite, and no bool.

    >>> [is_number(value) for value in (1, 2.5, True, "3", float("nan"), 10**400)]
    [True, True, False, False, False, False]
    """
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and abs(value) <= sys.float_info.max


def absent(field: str, present: Mapping[str, Any] | Sequence[str]) -> str:
    """What to say of a field that is not there: the nearest name, or all names."""
    names = sorted(map(str, present))
    near = difflib.get_close_matches(field, [name for name in names if name != field], n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(names) or 'none'}"
    return "null" if field in present else f"missing; {hint}"


def read_rows(path: Path, columns: Sequence[str] | None = None) -> Iterator[Row | Problem]:
    """The rows of one annotation file, by its suffix: `.jsonl`, `.json` or `.parquet`.

    Args:
        path: A regular file.
        columns: Columns of a Parquet file that are read (embedded media are not, unless named);
            None reads all.

    Raises:
        TaskError: The file cannot be opened or is of another kind.
    """
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise TaskError(f"{path}: a manifest is one of {', '.join(READERS)}")
    if not path.is_file():
        raise TaskError(f"{path}: cannot read the manifest: there is no such file")
    try:
        yield from reader(path, columns)
    except OSError as error:
        raise TaskError(f"{path}: cannot read the manifest: {error}") from error


def _jsonl(path: Path, columns: Sequence[str] | None) -> Iterator[Row | Problem]:
    with path.open("rb") as file:
        number = 0
        while line := file.readline(MAX_LINE_BYTES + 1):
            number += 1
            place = Place(str(path), "line", number)
            if len(line) > MAX_LINE_BYTES:
                while line and not line.endswith(b"\n"):
                    line = file.readline(MAX_LINE_BYTES)
                yield Problem(place, "", f"longer than {MAX_LINE_BYTES} bytes")
                continue
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
                if text.strip():
                    yield _row(json.loads(text), place)
            except (ValueError, RecursionError) as error:
                yield Problem(place, "", f"not JSON: {error}")


def _json(path: Path, columns: Sequence[str] | None) -> Iterator[Row | Problem]:
    whole = Place(str(path), "row", 0)
    if path.stat().st_size > MAX_JSON_BYTES:
        yield Problem(whole, "", f"larger than {MAX_JSON_BYTES} bytes: write it as JSONL")
        return
    try:
        rows = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        yield Problem(whole, "", f"not JSON: {error}")
        return
    if not isinstance(rows, list):
        yield Problem(whole, "", f"a list of objects expected, not {type(rows).__name__}")
        return
    for number, row in enumerate(rows, 1):
        yield _row(row, Place(str(path), "row", number))


def _parquet(path: Path, columns: Sequence[str] | None) -> Iterator[Row | Problem]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            chosen = names if columns is None else [name for name in columns if name in names]
            number = 0
            rows = 8 if "image" in chosen else 256  # embedded pictures have megabytes
            for batch in file.iter_batches(batch_size=rows, columns=chosen):
                for row in batch.to_pylist():
                    number += 1
                    yield _row(row, Place(str(path), "row", number))
    except pa.ArrowException as error:
        yield Problem(Place(str(path), "row", 0), "", f"not Parquet: {error}")


def _row(value: Any, place: Place) -> Row | Problem:
    if isinstance(value, Mapping):
        return Row(value, place)
    return Problem(place, "", f"a JSON object expected, not {type(value).__name__}")


READERS: dict[str, Callable[[Path, Sequence[str] | None], Iterator[Row | Problem]]] = {
    ".parquet": _parquet,
    ".jsonl": _jsonl,
    ".json": _json,
}
