"""What a rollout did at its first turn: the structure or the native form, a call or an answer.

Between played rollouts and who counts them: the log (`train/loop/metrics.py`) and the drift that
is predicted from a start (`train/lab/diagnose/drift.py`). Form and calling are two habits that a
policy has from different lessons; where they conflict, the four pairs are what training chooses
among. Tests: `pytest tests/rollout/test_behaviours.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from paravt_env.protocol import parse
from paravt_env.rewards.compliance import turn_complies

PREFIX = "behaviour/"
BEHAVIOURS = ("structured_calls", "structured_skips", "native_calls", "native_skips")
"""In the order of tables; `native` is every first turn that is not exactly the structure."""


class Played(Protocol):
    """What is asked of a rollout, or of a row of an evaluation."""

    @property
    def turns(self) -> Sequence[dict[str, Any]]:
        """Each with its `completion` and its `crops`."""

    @property
    def error(self) -> str:
        """Why it was not played to its end, else ""."""


def behaviour(rollout: Played) -> str:
    """Which of `BEHAVIOURS` the first turn is; "" where nothing was written, or the row failed.

    A turn calls where it asks for a crop, whatever became of it.
    """
    first = rollout.turns[0] if rollout.turns and not rollout.error else None
    if first is None or not any(turn["completion"] for turn in rollout.turns):
        return ""
    calls = bool(first["crops"])
    structured = turn_complies(parse(first["completion"]), answers=not calls)
    return f"{'structured' if structured else 'native'}_{'calls' if calls else 'skips'}"


def shares(rollouts: Sequence[Played]) -> dict[str, float]:
    """The share of each behaviour, under its name in the log; empty if nothing was written."""
    done = [name for name in map(behaviour, rollouts) if name]
    return {f"{PREFIX}{name}": done.count(name) / len(done) for name in BEHAVIOURS if done}
