"""What the learner is handed: optimizer, packing, adapters, faults, and the method.

The recipe's groups `optimizer`, `packing`, `lora` and `faults`; `LearnerConfig` joins what one
learner needs of a run. Read by `train.learner`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from agents.algorithm.config import PARAGRPOConfig
from paravt_env.common.names import known_name
from train.config.checks import at_least

Attention = Literal["auto", "split", "dense", "flex"]
Decay = Literal["constant", "linear", "cosine"]


@dataclass
class OptimizerConfig:
    """AdamW, and which weights it moves; the defaults are ParaVT's published ones."""

    learning_rate: float = 2e-6
    """Adam's step size after the warm-up."""
    warmup_steps: int = 0
    """Optimizer steps over which the learning rate rises linearly."""
    decay: Decay = "constant"
    """How the learning rate falls after the warm-up: not at all, by a line or by a cosine."""
    decay_steps: int = 0
    """Optimizer steps, the warm-up's included, after which it has fallen; 0: those of the run."""
    decay_to: float = 0.0
    """What is left of it then, as a share of `learning_rate`."""
    adam_betas: tuple[float, float] = (0.9, 0.999)
    """Decay rates of Adam's first and second moments."""
    weight_decay: float = 0.01
    """Decoupled weight decay (AdamW) of matrices; norms, biases and embeddings are spared."""
    decay_all: bool = False
    """Decay norms, biases and embeddings too."""
    max_grad_norm: float = 1.0
    """Gradients are clipped to this global norm."""
    freeze_vision: bool = False
    """Leave the vision tower as it is."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in ("learning_rate", "max_grad_norm"):
            value = getattr(self, name)
            if not (value > 0 and math.isfinite(value)):
                raise ValueError(f"optimizer.{name} must be positive and finite, not {value}")
        at_least(self, 0, "weight_decay", "warmup_steps", "decay_steps")
        known_name("optimizer.decay", self.decay, get_args(Decay))
        if not 0 <= self.decay_to <= 1:
            raise ValueError(f"optimizer.decay_to is a share, between 0 and 1: {self.decay_to}")
        if 0 < self.decay_steps <= self.warmup_steps:
            raise ValueError(
                f"optimizer.decay_steps = {self.decay_steps}: the warm-up alone takes "
                f"{self.warmup_steps}, so that the learning rate would never fall"
            )
        if not all(0 <= beta < 1 for beta in self.adam_betas):
            raise ValueError(f"optimizer.adam_betas must be in [0, 1): {self.adam_betas}")


@dataclass
class PackingConfig:
    """How a batch is cut for the memory: changes speed and memory, never the result."""

    micro_batch_tokens: int = 16384
    """Padded tokens of one forward and backward pass."""
    logit_chunk: int = 4096
    """Tokens whose vocabulary logits exist at the same time."""
    attention: Attention = "auto"
    """How packed trees attend (`train/learner/attention.py`)."""

    def __post_init__(self) -> None:
        """Check names and ranges."""
        at_least(self, 1, "micro_batch_tokens", "logit_chunk")
        known_name("packing.attention", self.attention, get_args(Attention))


@dataclass
class LoraConfig:
    """Low-rank adapters (arXiv 2106.09685) instead of full training."""

    rank: int = 0
    """Rank of the adapters; 0 trains all weights."""
    alpha: float = 32.0
    """The adapters' product is scaled by alpha / rank."""
    targets: tuple[str, ...] = (
        "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj",
    )  # fmt: skip
    """Names of the decoder's linear layers that get one."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        at_least(self, 0, "rank")
        if not self.alpha > 0 or not self.targets:
            raise ValueError("LoraConfig.alpha must be positive and .targets name a layer")


@dataclass
class FaultConfig:
    """What happens to an update that went wrong."""

    explode: float | None = None
    """Gradient norm, before clipping, above which a step is skipped; None: only if not finite."""
    in_a_row: int = 3
    """Skipped steps in a row that end the run."""
    dumps: int = 5
    """Batches of skipped steps that are kept in the run's folder."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        at_least(self, 1, "in_a_row")
        at_least(self, 0, "dumps", "explode")


@dataclass(frozen=True)
class LearnerConfig:
    """All that a learner is told of a run."""

    algorithm: PARAGRPOConfig = field(default_factory=PARAGRPOConfig)
    """The method."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    """How weights are moved."""
    packing: PackingConfig = field(default_factory=PackingConfig)
    """How a batch is cut."""
    faults: FaultConfig = field(default_factory=FaultConfig)
    """When a step is skipped, and when the run ends."""
    temperature: float = 1.0
    """The one that rollouts are sampled with."""
    seed: int = 0
    """Of the order of the mini-batches."""
    staleness: int = 0
    """Updates by which the weights that drew a rollout may be older, at most."""
    steps: int = 0
    """Optimizer steps of the whole run, over which the learning rate falls if it does; 0: unknown.
    """
    folder: Path | None = None
    """Of the run, where the batches of skipped steps are kept; None keeps none."""

    def __post_init__(self) -> None:
        """Greedy rollouts have no probabilities to train on; what falls, falls to somewhere."""
        if self.temperature <= 0:
            raise ValueError(
                f"rollouts sampled at temperature {self.temperature} are greedy and cannot be "
                "trained on"
            )
        last = self.optimizer.decay_steps or self.steps
        if self.optimizer.decay != "constant" and last <= self.optimizer.warmup_steps:
            raise ValueError(
                f"optimizer.decay={self.optimizer.decay} over {last} optimizer steps, of which the "
                f"warm-up takes {self.optimizer.warmup_steps}: give a longer run or decay_steps"
            )
