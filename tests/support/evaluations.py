"""Rows, reports, an agent and settings for tests of evaluations; needs no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace

from agents.base import Decision
from paravt_env.protocol import action_from_completion, render_completion
from train.evaluation.row import EvalRow
from train.evaluation.scores import EvalReport
from train.rollout.play import Rollout
from train.rollout.starts import Start

HEADER = {"identity": {"seed": 0}, "settings": {"seed": 0}, "shard": "1/1", "planned": 2}


@dataclass(frozen=True)
class Settings:
    """The part of `EvalConfig` that `evaluate` reads."""

    frame_budgets: tuple = (4,)
    budgets_per_task: int | None = None
    tasks: int | None = None
    seed: int = 0
    shard: str = ""
    stop_after_errors: int = 0
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


def rollout(start, **changes):
    """A finished episode that gave the letter B."""
    base = Rollout(
        task_id=start.task_id,
        video="/v.mp4",
        family="colour",
        category="",
        frame_budget=start.frame_budget,
        reward=1.0,
        terms={"answer": 1.0, "total": 1.0},
        stop_reason="answered",
        answer="B",
        correct=1.0,
        compliant=True,
        turns=({"completion": "x", "crops": [{"window": (math.nan, 1.0), "status": "ok"}]},),
        calls=2,
        executed=1,
        parallel=2,
        frames_seen=7,
        evidence_recall=math.nan,
        duration=30.0,
        usage={"frames": 7.0},
    )
    return replace(base, **changes)


def row(task_id="a", score=1.0, **changes):
    """A row; the changes are its own, or of its rollout."""
    if "error_kind" in changes:
        changes["stop_reason"] = changes.pop("error_kind")
    base = EvalRow(
        rollout(
            Start(task_id, 4),
            category="spatial",
            correct=score,
            reward=score,
            terms={},
            turns=(),
            calls=1,
            parallel=1,
            frames_seen=4,
            duration=0.0,
            usage={},
        ),
        kind="mcq",
        question="Which?",
        gold="B",
        evidence=((1.0, 2.0),),
        majority=0.5,
    )
    own = {field.name for field in fields(EvalRow)} & changes.keys()
    played = replace(base.rollout, **{k: v for k, v in changes.items() if k not in own})
    return replace(base, rollout=played, **{name: changes[name] for name in own})


def report(*rows):
    return EvalReport(rows, {"resamples": 200, "confidence": 0.95, "seed": 0})
