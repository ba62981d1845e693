"""Joining the shards of an evaluation into one report, and the blind rows to the rows that saw.

After `train.evaluation.row_file`: every machine writes the row file of its shard, and `paravt merge
FOLDER` makes the report of all. A shard that is missing or unfinished is an error, not a smaller
denominator. Tests: `pytest tests/evaluation/test_evaluate_resume.py`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from train.common.errors import ConfigError
from train.config.evaluation import Shard
from train.evaluation.identity import changed
from train.evaluation.row import EvalRow
from train.evaluation.row_file import ROWS, read_rows
from train.evaluation.scores import EvalReport, with_blind

BLIND = ".blind"
"""What the name of a report without frames ends with."""


def merge(folder: Path) -> list[tuple[Path, EvalReport]]:
    """Join the row files under a folder into reports, and save them.

    Returns:
        The path of each report and the report, in order of the paths; one of blind rows that stand
        beside the rows that saw is saved and not returned.

    Raises:
        ConfigError: No row files, or shards that are missing, unfinished or of different
            evaluations: what is missing is named, and nothing is saved.
    """
    found: dict[Path, list[Path]] = {}
    for path in sorted(folder.rglob(f"*{ROWS}*.jsonl")):
        name = path.name.rpartition(ROWS)[0]
        found.setdefault(path.with_name(f"{name}.json"), []).append(path)
    if not found:
        raise ConfigError(f"{folder} holds no rows of an evaluation (*{ROWS}*.jsonl)")
    reports = {path: _join(parts) for path, parts in found.items()}
    beside = set()
    for path in reports:
        seen = path.with_name(f"{path.stem.removesuffix(BLIND)}.json")
        if seen != path and seen in reports:
            reports[seen] = with_blind(reports[seen], reports[path])
            beside.add(path)
    for path, report in reports.items():
        report.save(path)
    return [(path, report) for path, report in reports.items() if path not in beside]


def _join(parts: list[Path]) -> EvalReport:
    """One report of all shards of an evaluation."""
    rows: list[EvalRow] = []
    shards: dict[int, Path] = {}
    first: dict[str, Any] = {}
    seconds, count = 0.0, 1
    for path in parts:
        header, own, spent = read_rows(path)
        first = first or header
        changes = list(changed(first["identity"], header["identity"]))
        shard = Shard.parse(header["shard"])
        if changes or (shards and shard.count != count):
            what = "; ".join(changes[:4]) or f"{shard.count} and {count} shards"
            raise ConfigError(f"{path} and {parts[0]} are of different evaluations: {what}")
        if len(own) != header["planned"]:
            raise ConfigError(
                f"{path} holds {len(own)} of {header['planned']} rows: finish that run first"
            )
        count = shard.count
        shards[shard.index] = path
        rows += own
        seconds += spent
    missing = [f"{index}/{count}" for index in range(1, count + 1) if index not in shards]
    if missing:
        raise ConfigError(f"{parts[0].parent} lacks the shards {', '.join(missing)}")
    rows.sort(key=lambda row: (row.frame_budget, row.task_id))
    left_out = tuple(first.get("left_out", ()))
    return EvalReport(tuple(rows), first["settings"], round(seconds, 3), left_out=left_out)
