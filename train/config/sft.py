"""The settings of `paravt sft`: stages of the cold start, its traces, published conversations.

Read by `train.sft`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Literal

from agents.config import AgentConfig
from agents.model.shape import MiniConfig
from paravt_env.common.names import known_name
from train.config.checks import at_least, shares
from train.config.env import EnvConfig
from train.config.evaluation import EvalConfig
from train.config.learner import LoraConfig
from train.config.parallel import ParallelConfig
from train.config.run import RunConfig

TRACE_DIALS = ("call", "weigh", "native", "native_call")
"""Fields of `TraceConfig` that a stage may replace."""


@dataclass
class TraceConfig:
    """How often a trace does what, where it has the choice (probabilities)."""

    call: float = 0.45
    """Call when the overview does not suffice; otherwise guess: the strength of the tool prior."""
    direct: float = 0.7
    """Answer from the overview where it suffices."""
    blind: float = 0.2
    """Crop next to the last frame when no frame shows the asked scene."""
    single: float = 0.1
    """Ask for one window where several are needed."""
    mistake: float = 0.1
    """First write a call that cannot run."""
    retry: float = 0.5
    """Look on the other side when a crop did not show the event."""
    weigh: float = 0.0
    """Weigh the options one by one and answer with a letter; otherwise answer in words."""
    native: float = 0.0
    """Write the whole trace in the native form of the models' family, a bare thought, a call in its
    tag, a bare answer; otherwise in the structure that is rewarded."""
    native_call: float | None = None
    """Replaces `call` in native traces: form and calling may go together."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        shares(self, *(one.name for one in fields(self)))


@dataclass
class StageConfig:
    """A stage of the cold start: what each of its steps imitates."""

    name: str = "traces"
    """In the log."""
    steps: int = 1000
    """Optimizer steps."""
    rollouts: int = 0
    """Episodes that the trace agent plays for this stage."""
    words: float = 0.0
    """Share of the overview's frames in whose place words say what they show."""
    call: float | None = None
    """Replaces `traces.call` in this stage: to call is learned best where it is frequent."""
    weigh: float | None = None
    """Replaces `traces.weigh` in this stage."""
    native: float | None = None
    """Replaces `traces.native` in this stage."""
    native_call: float | None = None
    """Replaces `traces.native_call` in this stage."""
    conversations: int = 0
    """Main conversations of one step."""
    readings: int = 0
    """Sub-agent readings of one step."""
    frames: int = 0
    """Descriptions of single frames, or of what code shows of pictures, in one step."""
    published: int = 0
    """Conversations of one step that the task set publishes (`train/sft/conversations.py`)."""
    learning_rate: float | None = None
    """Replaces the recipe's peak learning rate in this stage."""
    freeze_vision: bool = True
    """Leave the vision tower as it is."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.learning_rate is not None and not self.learning_rate > 0:
            raise ValueError(f"StageConfig.learning_rate = {self.learning_rate}: must be positive")
        at_least(self, 0, "steps", "rollouts", "conversations", "readings", "frames")
        at_least(self, 0, "published")
        shares(self, "words", *TRACE_DIALS)
        if not self.conversations + self.readings + self.frames + self.published:
            raise ValueError(
                f"stage {self.name!r} has nothing to learn: give it conversations, readings, "
                "frames or published"
            )
        if bool(self.rollouts) != bool(self.conversations + self.readings):
            raise ValueError(
                f"stage {self.name!r}: rollouts are what conversations and readings come from; "
                "give both or neither"
            )


@dataclass
class PublishedConfig:
    """How published conversations are written (`train/sft/conversations.py`)."""

    opening: Literal["rollout", "published"] = "rollout"
    """Before the first turn: what a rollout of these settings shows (system message of
    `agent.prompt_style`, overview, question), or the published messages as they are."""
    max_tokens: int = 0
    """Leave out conversations with more tokens, those of frames included; 0 keeps all."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        known_name("PublishedConfig.opening", self.opening, ("rollout", "published"))
        at_least(self, 0, "max_tokens")


@dataclass
class SFTConfig:
    """Supervised fine-tuning: on oracle-written traces, or on published conversations."""

    env: EnvConfig = field(default_factory=EnvConfig)
    agent: AgentConfig = field(default_factory=AgentConfig)
    evaluation: EvalConfig = field(default_factory=EvalConfig)
    run: RunConfig = field(default_factory=lambda: RunConfig(name="sft"))
    output: str = ""
    """Where the checkpoint is written; empty is the run's folder."""
    mini: MiniConfig = field(default_factory=MiniConfig)
    """Shape of the policy that is built where `agent.checkpoint` names none."""
    traces: TraceConfig = field(default_factory=TraceConfig)
    """What the traces do how often."""
    published: PublishedConfig = field(default_factory=PublishedConfig)
    """How published conversations are written."""
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    """Processes, and what is traded for memory: `parallel.recompute` is gradient checkpointing."""
    lora: LoraConfig = field(default_factory=LoraConfig)
    """Adapters instead of full training."""
    frames_per_video: int = 120
    """Single frames that are described of each video; where the tool is code, symbols of each
    picture."""
    stages: tuple[StageConfig, ...] = (StageConfig(rollouts=6400, conversations=16, readings=16),)
    """What is taught, in this order."""
    learning_rate: float = 1e-3
    """Peak learning rate; cosine to zero."""
    warmup_fraction: float = 0.05
    """Part of the steps with a rising learning rate."""
    weight_decay: float = 0.01
    """AdamW's decoupled weight decay."""
    decay_all: bool = True
    """Decay norms, biases and embeddings too, as the shipped cold start was made; false spares
    them."""
    grad_clip: float = 1.0
    """Largest gradient norm."""
    micro_batch_tokens: int = 8192
    """Padded tokens of one forward and backward pass."""
    log_every: int = 25
    """Steps between records of the loss."""
    save_every: int = 0
    """Steps between checkpoints inside a stage; 0 writes one after each stage only."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        at_least(self, 0, "weight_decay", "warmup_fraction", "save_every")
        at_least(self, 1, "frames_per_video", "log_every")
        if not self.stages:
            raise ValueError("SFTConfig.stages is empty: nothing would be learned")
        if not self.learning_rate > 0 or not self.grad_clip > 0:
            raise ValueError("SFTConfig.learning_rate and .grad_clip must be positive")
