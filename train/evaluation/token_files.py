"""The tokens of some rollouts of an evaluation on disk, one small file each, for `paravt view`.

Beside the rows (`train.evaluation.row_file`), in the folder `NAME.tokens` (a shard's is
`NAME.tokens-1of4`). At most `evaluation.keep_tokens` rollouts are kept, spread over the samples. A
file is written whole before its row is, so a killed evaluation can be resumed. Tests: `pytest
tests/evaluation/test_token_files.py`.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agents.base import Agent
from paravt_env.common.files import write_whole
from paravt_env.common.infos import plain
from train.common.rollout_file import RolloutFileError, unpacked
from train.config.evaluation import Shard
from train.evaluation.row import EvalRow
from train.rollout.play import Rollout
from train.rollout.record import token_record
from train.rollout.starts import Start

TOKENS = ".tokens"


class TokenFiles:
    """Writes the tokens of some rollouts.

    Args:
        folder: Made when the first file is written.
        keep: Rollouts at most; 0 keeps none.
        again: The evaluation starts anew, so files of an earlier one are removed.
    """

    def __init__(self, folder: Path, keep: int, again: bool) -> None:
        self.folder, self.keep = folder, keep
        if again and folder.is_dir():
            for path in folder.glob("*.json.gz"):
                path.unlink()

    def chosen(self, starts: Sequence[Start]) -> set[Start]:
        """Which samples are kept: every n-th, so that all frame budgets are among them."""
        return set(every_nth(starts, self.keep))

    def add(self, agent: Agent, rollout: Rollout, row: EvalRow) -> None:
        """Keep a rollout's tokens; nothing where the agent has none, as a scripted one."""
        vlm = getattr(agent, "vlm", None)
        if vlm is None or not rollout.trajectories:
            return
        records = [
            token_record(one, vlm.tokenizer, vlm.visual_ids, None, None)
            for one in rollout.trajectories
        ]
        text = json.dumps(plain(records), allow_nan=False).encode("utf-8", "replace")
        self.folder.mkdir(parents=True, exist_ok=True)
        write_whole(self.folder / file_name(row), gzip.compress(text, 6, mtime=0))


def every_nth(starts: Sequence[Start], keep: int) -> list[Start]:
    """At most `keep` of the starts at equal distances.

    >>> every_nth(range(10), 4), every_nth(range(3), 4), every_nth(range(3), 0)
    ([0, 3, 6, 9], [0, 1, 2], [])
    """
    return list(starts[:: -(-len(starts) // keep)]) if keep and starts else []


def tokens_path(report: Path, shard: Shard) -> Path:
    """The folder of the tokens of the report that will be at `report`."""
    return report.with_name(f"{report.stem}{TOKENS}{shard.suffix()}")


def token_folders(report: Path) -> list[Path]:
    """The folders with tokens of a report: its own, and those of its shards."""
    found = [report.with_name(f"{report.stem}{TOKENS}")]
    return found + sorted(report.parent.glob(f"{report.stem}{TOKENS}-*"))


def kept_tokens(report: Path) -> tuple[int, int]:
    """How many rollouts of a report have kept their tokens, and their bytes on disk."""
    paths = [path for folder in token_folders(report) for path in folder.glob("*.json.gz")]
    return len(paths), sum(path.stat().st_size for path in paths)


def read_tokens(report: Path, row: EvalRow) -> list[dict[str, Any]]:
    """The conversations of a row, as `token_record` made them; none where they were not kept.

    Raises:
        RolloutFileError: The file is damaged.
    """
    for folder in token_folders(report):
        path = folder / file_name(row)
        if path.is_file():
            try:
                found = json.loads(unpacked(path))
            except (ValueError, RecursionError) as error:
                raise RolloutFileError(f"{path} is damaged: {error}") from error
            if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
                raise RolloutFileError(f"{path} holds something else than conversations")
            return found
    return []


def file_name(row: EvalRow) -> str:
    """The name of a row's file; task identifiers may hold anything, so it is their digest."""
    sample = json.dumps([row.task_id, row.frame_budget]).encode("utf-8", "replace")
    return f"{hashlib.blake2b(sample, digest_size=12).hexdigest()}.json.gz"
