"""A server that is gone stops an evaluation, instead of failing every row that is left.

Between `train.evaluation.evaluate` and the rows it keeps: rows that failed in a row are held back
until one succeeds, so that a run that is stopped plays them again. Tests: `pytest
tests/evaluation/test_outage.py`.
"""

from __future__ import annotations

from collections.abc import Callable

from agents.base import AgentError
from train.evaluation.row import EvalRow, RowKey

SERVERS = ("agent_error", "judge_error")
"""Errors of a row that a server may have caused."""


class Outage:
    """Passes rows on to where they are kept, unless a server seems to be gone.

    Args:
        keep: Takes a row.
        most: Rows that may fail one after another; 0 for any number.
    """

    def __init__(self, keep: Callable[[RowKey, EvalRow], None], most: int) -> None:
        self._keep, self.most = keep, most
        self._held: list[tuple[RowKey, EvalRow]] = []

    def add(self, key: RowKey, row: EvalRow) -> None:
        """Keep a row, or hold it back while nothing succeeds.

        Raises:
            AgentError: As many as are allowed failed one after another.
        """
        if not self.most or row.error_kind not in SERVERS:
            self.flush()
            self._keep(key, row)
            return
        self._held.append((key, row))
        if len(self._held) >= self.most:
            raise AgentError(
                f"{self.most} rows in a row failed, the last with: {row.error}. What was played "
                "before is kept: the same command resumes from there, and plays these again "
                "(--evaluation.stop_after_errors=0 counts them as wrong answers instead)"
            )

    def flush(self) -> None:
        """The rows that were held back are errors like others."""
        for key, row in self._held:
            self._keep(key, row)
        self._held = []
