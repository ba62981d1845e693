"""Rows, reports, an agent and settings for tests of evaluations; needs no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from types import SimpleNamespace

from agents.base import Decision
from paravt_env.protocol import action_from_completion, render_completion
from train.evaluation.scores import EvalReport, EvalRow

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


def row(task_id="a", score=1.0, **changes):
    base = EvalRow(
        task_id=task_id,
        video="/v.mp4",
        family="colour",
        category="spatial",
        kind="mcq",
        frame_budget=4,
        question="Which?",
        gold="B",
        evidence=((1.0, 2.0),),
        score=score,
        majority=0.5,
        reward=score,
        compliant=True,
        calls=1,
        executed=1,
        parallel=1,
        frames_seen=4,
        evidence_recall=None,
        stop_reason="answered",
        answer="B",
        error="",
    )
    return replace(base, **changes)


def report(*rows):
    return EvalReport(rows, {"resamples": 200, "confidence": 0.95, "seed": 0})


def rollout(start, **changes):
    base = {
        "task_id": start.task_id,
        "frame_budget": start.frame_budget,
        "reward": 1.0,
        "stop_reason": "answered",
        "answer": "B",
        "correct": 1.0,
        "compliant": True,
        "calls": 2,
        "executed": 1,
        "parallel": 2,
        "frames_seen": 7,
        "evidence_recall": math.nan,
        "turns": ({"completion": "x", "crops": [{"window": (math.nan, 1.0), "status": "ok"}]},),
        "error": "",
        "duration": 30.0,
        "usage": {"frames": 7.0},
    }
    return SimpleNamespace(**(base | changes))
