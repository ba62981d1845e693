"""A player and settings for tests of evaluations, in a module that needs no torch."""

from __future__ import annotations

from dataclasses import dataclass

from agents.base import Decision
from paravt_env.protocol import action_from_completion, render_completion

HEADER = {"identity": {"seed": 0}, "settings": {"seed": 0}, "shard": "1/1", "planned": 2}


@dataclass(frozen=True)
class Settings:
    """The part of `EvalConfig` that `evaluate` reads."""

    frame_budgets: tuple = (4,)
    budgets_per_task: int | None = None
    tasks: int | None = None
    seed: int = 0
    shard: str = ""
    resamples: int = 50
    confidence: float = 0.95


class Always:
    """Answers B at once; counts whom it was asked about."""

    def __init__(self):
        self.asked = 0

    def begin(self, rows):
        pass

    def act(self, observations, rows):
        self.asked += len(rows)
        text = render_completion("it is blue", [], "B")
        return [Decision(action_from_completion(text, 3)) for _ in rows]
