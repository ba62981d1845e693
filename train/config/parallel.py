"""The `parallel` group of a recipe: how the processes of `torchrun` share a run.

Read by `train/distributed/processes.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

from paravt_env.common.names import known_name
from train.config.checks import at_least


@dataclass
class ParallelConfig:
    """How the processes of `torchrun` share a run, and what is traded for memory."""

    sequence: int = 1
    """Processes that share one packed sequence and its frames; the rest divides the groups."""
    layout: str = "colocated"
    """colocated: all processes play and train; disaggregated: the first `generator_ranks` play, the
    rest train."""
    generator_ranks: int = 1
    """disaggregated: processes that only play."""
    reshard: bool = True
    """Free a block's gathered weights between forward and backward pass (ZeRO-3); else ZeRO-2."""
    recompute: bool = False
    """Activation checkpointing: keep only the inputs of each block; also on one process."""
    offload: bool = False
    """Keep sharded weights, gradients and optimizer moments in the memory of the CPU."""
    gpus: int = 0
    """GPUs that the recipe is sized for: what `paravt plan` takes where none are given. A run takes
    the processes that torchrun starts; 0 says nothing."""
    timeout: float = 600.0
    """Seconds after which processes that wait for another one give up and say for whom."""
    long_timeout: float = 3600.0
    """The same where others have long work meanwhile: they play, one writes a checkpoint, pass
    rates are measured; disaggregated: some update. Never less than `timeout`. In an asynchronous
    run of one process: seconds after which rollouts that make no turn are given up."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        at_least(self, 1, "sequence", "generator_ranks", "timeout", "long_timeout")
        at_least(self, 0, "gpus")
        if self.layout == "split":
            raise ValueError("parallel.layout=split is parallel.layout=disaggregated now")
        known_name("ParallelConfig.layout", self.layout, ("colocated", "disaggregated"))
