"""The rows of an evaluation on disk: append-only, so that a killed evaluation can be resumed.

Between `train.evaluation.evaluate`, which plays, and the report. A file `NAME.rows.jsonl` (a
shard's is `NAME.rows-1of4.jsonl`) starts with a header that says what is evaluated, and gets one
line for every finished sample. A torn last line, all that a killed process can leave, is cut off;
any other line that cannot be read is an error. `train.evaluation.shards` joins shards. Tests:
`pytest tests/evaluation/test_evaluate_resume.py`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from paravt_env.common.infos import plain
from train.common.errors import ConfigError
from train.common.lock import take
from train.config.evaluation import Shard
from train.evaluation.identity import changed
from train.evaluation.row import EvalRow, RowKey

FORMAT = 1
ROWS = ".rows"


class RowFile:
    """Rows in a file that is locked while it is open.

    Args:
        path: The file; made with its folders.
        header: What is evaluated, as plain data: `identity` decides whether a file may be
            continued, the rest is kept for merging.
        resume: Continue a file that is there; False starts it anew.
        retry_errors: Play samples that ended in an error again.

    Raises:
        ConfigError: Another process writes the file, it holds another evaluation, or a line of it
            is no row.
    """

    def __init__(
        self,
        path: Path,
        header: Mapping[str, Any],
        resume: bool = True,
        retry_errors: bool = False,
    ) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            if not take(self._file, path):
                raise ConfigError(f"another process is evaluating into {path}")
            if not resume:
                os.ftruncate(self._file, 0)
            self._done = self._continue(header, retry_errors)
        except BaseException:
            self.close()
            raise

    def add(self, key: RowKey, row: EvalRow) -> None:
        """Append the row of a sample: one write, so that a killed process tears the last line."""
        self._append({"key": list(key), "row": plain(row.as_json())})
        self._done.add(key)

    @property
    def done(self) -> set[RowKey]:
        """Samples that are in the file and need not be played."""
        return self._done

    def note_seconds(self, seconds: float) -> None:
        """Append how long a session took."""
        self._append({"seconds": round(seconds, 3)})

    def load(self) -> list[EvalRow]:
        """All rows in the order of their samples; the last one of a sample counts."""
        return read_rows(self.path)[1]

    def seconds(self) -> float:
        """Seconds of all sessions that ended."""
        return read_rows(self.path)[2]

    def close(self) -> None:
        """Write everything through to the disk and unlock the file."""
        os.fsync(self._file)
        os.close(self._file)

    def _append(self, line: Mapping[str, Any]) -> None:
        data = (json.dumps(line, allow_nan=False) + "\n").encode()
        while data:
            data = data[os.write(self._file, data) :]

    def _continue(self, header: Mapping[str, Any], retry_errors: bool) -> set[RowKey]:
        """Cut a torn line off, check or write the header, and say which samples are there."""
        whole = 0
        with self.path.open("rb") as lines:
            for line in lines:
                whole += len(line) if line.endswith(b"\n") else 0
        os.ftruncate(self._file, whole)
        header = plain({"format": FORMAT, **header})
        if not whole:
            self._append(header)
            return set()
        there, errors, _ = _read(self.path)
        changes = list(changed(there["identity"], header["identity"]))
        if there["format"] != FORMAT or changes:
            raise ConfigError(
                f"{self.path} holds another evaluation ({'; '.join(changes[:4])}): give "
                "another --run.name, or --evaluation.resume=false to start it anew"
            )
        return {key for key, failed in errors.items() if not (failed and retry_errors)}


def rows_path(report: Path, shard: Shard) -> Path:
    """The row file of the report that will be at `report`."""
    return report.with_name(f"{report.stem}{ROWS}{shard.suffix()}.jsonl")


def read_rows(path: Path) -> tuple[dict[str, Any], list[EvalRow], float]:
    """Header, rows (the last one of each sample) and seconds of a file.

    Raises:
        ConfigError: It has no header, or a line that is not ours.
    """
    rows: dict[RowKey, EvalRow] = {}
    seconds = 0.0
    lines = _lines(path)
    header = next(lines, None)
    if header is None:
        raise ConfigError(f"{path} is empty: finish that run first, or remove the file")
    for number, line in enumerate(lines, 2):
        try:
            if "row" in line:
                rows[_key(line)] = EvalRow.from_json(line["row"])
            else:
                seconds += line["seconds"]
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise _not_ours(path, number, error) from error
    return header, list(rows.values()), seconds


def _read(path: Path) -> tuple[dict[str, Any], dict[RowKey, bool], int]:
    """Header, whether each sample failed, and the number of lines; keeps no row in memory."""
    failed: dict[RowKey, bool] = {}
    header: dict[str, Any] = {}
    number = 0
    for number, line in enumerate(_lines(path), 1):
        if number == 1:
            header = line
        elif "row" in line:
            try:
                failed[_key(line)] = bool(line["row"]["error"])
            except (ValueError, TypeError, KeyError) as error:
                raise _not_ours(path, number, error) from error
    return header, failed, number


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a file; a torn last one, of a run in progress, is left out.

    Raises:
        ConfigError: A line that is not ours.
    """
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.endswith(b"\n"):
                return
            try:
                content = json.loads(line)
                known = {"identity", "shard", "planned", "settings", "format"}
                there = content.keys()
                ours = known <= there if number == 1 else bool({"row", "seconds"} & there)
            except (ValueError, AttributeError):
                ours = False
            if not ours:
                raise _not_ours(path, number)
            yield content


def _not_ours(path: Path, number: int, error: Exception | None = None) -> ConfigError:
    why = f" ({type(error).__name__}: {error})" if error else ""
    return ConfigError(f"{path}, line {number}: not a row of an evaluation{why}")


def _key(line: Mapping[str, Any]) -> RowKey:
    task_id, budget = line["key"]
    return task_id, budget
