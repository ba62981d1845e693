"""What a study trains from and what it compares: starts and arms.

Read with `train.lab.study.settings`, and made in numbers by `train.lab.study.grid`. Tests: `pytest
tests/lab/test_study.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class StartingPolicy:
    """A policy that arms start from: a checkpoint, or a cold start that is made first."""

    checkpoint: str = ""
    """Folder or name; where `sft` is set, what the cold start itself starts from."""
    after: str = ""
    """Name of an earlier start that the cold start continues, in place of a checkpoint."""
    sft: str = ""
    """Recipe of `paravt sft`; empty takes the checkpoint as it is."""
    overrides: dict[str, Any] = field(default_factory=dict)
    """Settings of that recipe, by dotted name."""


@dataclass
class Arm:
    """One way of training (or, with no steps, of playing) that the study compares."""

    title: str = ""
    start: str = ""
    """Name of the start; empty takes the study's first."""
    overrides: dict[str, Any] = field(default_factory=dict)
    """What differs from the study's recipe, by dotted name."""
    evaluate_only: bool = False
    """Play the start as it is: greedily once, and sampled with every seed."""
    control: str = ""
    """Arm that this one is compared with; empty takes the study's baseline."""
