"""How a run is probed: the settings of `paravt diagnose` that its probe takes, without torch.

Read by `train.commands.diagnose` and by `train.lab.diagnose.probe`. Tests: `pytest
tests/lab/test_diagnostics.py`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ProbeSettings:
    """How a run is probed.

    Attributes:
        groups: Groups that are played, at least 2.
        seed: Of their tasks and of the sampling.
        noise: s of the PAC-Bayes figure, in units of weights.
        delta: Probability with which it may fail.
    """

    groups: int = 4
    seed: int = 0
    noise: float = 0.01
    delta: float = 0.05
