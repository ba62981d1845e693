"""The settings of every command, as typed dataclasses: what a recipe may contain, in which range.

Before the journey starts: `train.recipe` fills these from YAML and dotted overrides, and the rooms
behind take them ready-made. `paravt train paragrpo_mini --print-config` prints all of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from agents.base import AgentConfig
from agents.mini import MiniConfig
from agents.paragrpo import PARAGRPOConfig
from agents.scripted import SCRIPTED
from paravt_env.names import known_name
from paravt_env.settings import EnvSettings
from paravt_env.vector import LongVideoVectorEnv
from train.traces import TraceConfig

WandbMode = Literal["auto", "online", "offline", "disabled"]


def _at_least(config: Any, least: float, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        if value is not None and not (value >= least and math.isfinite(value)):
            raise ValueError(
                f"{type(config).__name__}.{name} = {value}: at least {least} is needed"
            )


@dataclass(frozen=True)
class EnvConfig(EnvSettings):
    """The environment's own settings, narrowed to what a YAML file can hold."""

    tasks: str = "synthetic"
    tasks_kwargs: dict[str, Any] | None = None
    frame_budget: int | dict[str, Any] | None = None
    reward: str | dict[str, Any] = "paravt"
    scorer: None = None

    def make(
        self, num_envs: int, split: str | None = None, budgets: tuple[int, ...] = ()
    ) -> LongVideoVectorEnv:
        """A vector environment of `num_envs` rows.

        Args:
            num_envs: Rows (B).
            split: Replaces the configured split.
            budgets: Frame budgets that will be asked for by reset options; the observation has room
                for them.
        """
        settings = {field.name: getattr(self, field.name) for field in fields(self)}
        if split:
            settings["split"] = split
        if budgets:
            settings["frame_budget"] = {"kind": "choice", "values": list(budgets)}
        return LongVideoVectorEnv(num_envs, **settings)


@dataclass
class EvalConfig:
    """What is measured: which tasks, at which frame budgets, and how sure the intervals are."""

    policy: str = ""
    """A scripted agent (random, uniform, oracle, majority) instead of the checkpoint."""
    split: str = "test"
    """Part of the task set."""
    tasks: int | None = None
    """At most this many tasks, a seeded sample of the split; None takes all."""
    frame_budgets: tuple[int, ...] = (4, 8, 16, 32, 64)
    """Overview frames K; () leaves the draw to the environment."""
    budgets_per_task: int | None = 1
    """How many of the budgets each task is asked at (cycling); None asks at all of them."""
    num_envs: int = 16
    """Rows that play at once."""
    temperature: float = 0.0
    """Sampling temperature; 0 is greedy."""
    seed: int = 0
    """Of the environment's draws, of sampling and of the bootstrap."""
    resamples: int = 2000
    """Bootstrap resamples."""
    confidence: float = 0.95
    """Coverage of the percentile intervals."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        known_name("EvalConfig.policy", self.policy, ("", *SCRIPTED))
        _at_least(self, 1, "tasks", "budgets_per_task", "num_envs", "resamples")
        _at_least(self, 0, "temperature", "seed")
        if any(budget < 0 for budget in self.frame_budgets):
            raise ValueError(
                f"EvalConfig.frame_budgets = {self.frame_budgets}: none may be negative"
            )
        if not 0 < self.confidence < 1:
            raise ValueError(f"EvalConfig.confidence = {self.confidence}: between 0 and 1")


@dataclass
class RunConfig:
    """Where a run is kept and what happens along the way."""

    name: str = "paragrpo"
    """Name of the run; its files are in `folder/name`."""
    folder: str = "runs"
    """Folder of all runs."""
    steps: int = 100
    """Updates of the whole run."""
    seed: int = 0
    """Of every generator."""
    threads: int = 1
    """Torch threads. More than the idle cores makes a step many times slower."""
    wandb: WandbMode = "auto"
    """`auto`: online where `WANDB_API_KEY` is set, else offline."""
    checkpoint_every: int = 10
    """Steps between checkpoints; 0 keeps only the last."""
    eval_every: int = 0
    """Steps between evaluations on the validation split; 0 for none."""
    eval_tasks: int = 32
    """Tasks of each of those evaluations."""
    resume: bool = False
    """Continue from the last checkpoint in the run's folder."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        _at_least(self, 0, "seed", "checkpoint_every", "eval_every")
        _at_least(self, 1, "steps", "threads", "eval_tasks")
        if not self.name or Path(self.name).name != self.name:
            raise ValueError(f"RunConfig.name = {self.name!r}: a plain folder name is needed")

    @property
    def path(self) -> Path:
        """Folder of this run."""
        return Path(self.folder) / self.name


@dataclass
class TrainConfig:
    """A training run from end to end; `paravt eval` and `paravt demo` read the same recipes."""

    env: EnvConfig = field(default_factory=EnvConfig)
    agent: AgentConfig = field(default_factory=AgentConfig)
    algorithm: PARAGRPOConfig = field(default_factory=PARAGRPOConfig)
    evaluation: EvalConfig = field(default_factory=EvalConfig)
    run: RunConfig = field(default_factory=RunConfig)


@dataclass
class SFTConfig:
    """The cold start: supervised fine-tuning on oracle-written traces."""

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
    frames_per_video: int = 120
    """Single frames that the warm-up takes from each video."""
    warmup_steps: int = 500
    """Steps of the single-frame warm-up; 0 for none."""
    warmup_batch: int = 64
    """Frames of one warm-up step."""
    word_frames: int = 8
    """Most frames of a list in which words stand for some frames."""
    word_steps: int = 250
    """Steps on lists of words alone, and as many on words and frames mixed; 0 for none."""
    list_frames: int = 12
    """Most frames of the second lesson, which lists frames by their times."""
    list_steps: int = 500
    """Steps of the second lesson; 0 for none."""
    list_batch: int = 32
    """Lists of one step."""
    rollouts: int = 6400
    """Episodes that the trace agent plays."""
    steps: int = 1500
    """Steps on the mixture of conversations and readings."""
    batch: int = 16
    """Main conversations of one step."""
    readings: int = 16
    """Sub-agent readings of one step."""
    rehearsal: int = 0
    """Lists of the second lesson in one step."""
    learning_rate: float = 1e-3
    """Peak learning rate; cosine to zero."""
    warmup_fraction: float = 0.05
    """Part of the steps with a rising learning rate."""
    weight_decay: float = 0.01
    """AdamW's decoupled weight decay."""
    grad_clip: float = 1.0
    """Largest gradient norm."""
    micro_batch_tokens: int = 8192
    """Padded tokens of one forward and backward pass."""
    log_every: int = 25
    """Steps between records of the loss."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        steps = ("warmup_steps", "word_steps", "list_steps", "steps")
        counts = ("word_frames", "list_frames", "list_batch", "warmup_batch", "batch", "rollouts")
        _at_least(self, 0, *steps, "weight_decay", "warmup_fraction", "readings", "rehearsal")
        _at_least(self, 1, *counts, "frames_per_video", "log_every")
        if not self.learning_rate > 0 or not self.grad_clip > 0:
            raise ValueError("SFTConfig.learning_rate and .grad_clip must be positive")
