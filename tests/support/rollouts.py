"""Rollouts that nobody played, with the reward and the length that a test wants."""

import numpy as np

from agents.base import Trajectory
from train.rollout.play import Rollout


def trajectory(sampled, prompt=3, kind="main"):
    """`sampled` sampled tokens and one that was not."""
    n = sampled + 1
    mask = np.arange(n) < sampled
    zeros = np.zeros(n, dtype=np.float32)
    return Trajectory(
        np.arange(prompt), np.arange(n), mask, zeros, zeros.astype(np.int8), kind=kind
    )


def rollout(reward=0.0, sampled=4, stop_reason="answered", error="", task="t", correct=0.0):
    trajectories = () if error else (trajectory(sampled), trajectory(90, kind="subagent"))
    return Rollout(
        task_id=task, video="v", family="", category="", frame_budget=4, reward=reward,
        terms={} if error else {"answer": reward, "total": reward}, stop_reason=stop_reason,
        answer="", correct=correct, compliant=True, turns=(), calls=0, executed=0, parallel=0,
        frames_seen=4, evidence_recall=0.0, trajectories=trajectories, error=error,
    )  # fmt: skip
