"""The settings of every command, as typed dataclasses: what a recipe may contain, in which range.

Before the journey starts: `train.config.recipe` fills these from YAML and dotted overrides, and the
packages take them ready-made. `paravt train paragrpo_mini --print-config` prints all of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from agents.algorithm.config import PARAGRPOConfig
from agents.config import AgentConfig
from train.config.checks import at_least
from train.config.env import EnvConfig
from train.config.evaluation import EvalConfig
from train.config.learner import FaultConfig, LoraConfig, OptimizerConfig, PackingConfig
from train.config.parallel import ParallelConfig
from train.config.selection import SelectionConfig

WandbMode = Literal["auto", "online", "offline", "disabled"]


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
    wandb_project: str = "paravt"
    """Project of the W&B run."""
    wandb_entity: str = ""
    """User or team that the W&B run belongs to; empty: the key's own."""
    wandb_tags: tuple[str, ...] = ()
    """Tags of the W&B run."""
    tensorboard: bool = False
    """Write TensorBoard's event files into the run's folder, too."""
    checkpoint_every: int = 10
    """Steps between checkpoints; 0 keeps only the last."""
    keep_checkpoints: int = 2
    """Newest checkpoints that are kept; beside them stays the best by validation, which is saved at
    its step (`eval_every`)."""
    keep_rollouts: int = 8
    """Rollouts of every step that are kept for `paravt view`, token by token: whole groups, at
    least one; 0 for none. Their size is logged as `rollouts_kept/bytes`."""
    eval_every: int = 0
    """Steps between evaluations on the split `eval_split`; 0 for none."""
    eval_split: str = "val"
    """Split of those evaluations; it may hold no task that is trained on."""
    eval_set: str = ""
    """Task set of those evaluations, as `env.tasks`; empty: the one that is trained on."""
    eval_set_kwargs: dict[str, Any] | None = None
    """Arguments of `eval_set`, as `env.tasks_kwargs`."""
    eval_tasks: int = 32
    """Tasks of each of those evaluations."""
    asynchronous: bool = False
    """Play the next batches during the updates; several processes need `parallel.layout=
    disaggregated`."""
    staleness: int = 1
    """asynchronous: updates by which the weights that play a batch may be older than those that it
    updates; with 0 playing and updating take turns. Several processes are ahead by 1 at most."""
    lanes: int = 1
    """Parts of a batch that play side by side: one generates while another decodes crops."""
    resume: bool = False
    """Continue from the last checkpoint in the run's folder."""
    allow_changes: bool = False
    """resume: continue although settings that decide what is learned differ from the run's own."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        at_least(self, 0, "seed", "checkpoint_every", "eval_every", "staleness", "keep_rollouts")
        at_least(self, 1, "steps", "threads", "eval_tasks", "lanes", "keep_checkpoints")
        if not self.name or Path(self.name).name != self.name:
            raise ValueError(f"RunConfig.name = {self.name!r}: a plain folder name is needed")
        if self.eval_set_kwargs and not self.eval_set:
            raise ValueError("run.eval_set_kwargs belong to run.eval_set, which is empty")
        if not self.wandb_project or set(self.wandb_project) & set("/\\#?%:"):
            raise ValueError(
                f"run.wandb_project = {self.wandb_project!r}: a name without / \\ # ? % : is needed"
            )
        if odd := [tag for tag in self.wandb_tags if not 1 <= len(tag) <= 64]:
            raise ValueError(f"run.wandb_tags holds {odd[0]!r}: W&B takes 1 to 64 characters")

    @property
    def path(self) -> Path:
        """Folder of this run."""
        return Path(self.folder) / self.name


@dataclass
class DiagnosticsConfig:
    """What is measured of the batches beside training on them (`docs/diagnostics.md`)."""

    every: int = 0
    """Steps between measurements; 0 for none."""
    groups: int = 2
    """Groups of the batch on which the gradients of single terms are compared, at the cost of as
    many more passes over them as there are terms; 0 for none."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        at_least(self, 0, "every", "groups")
        if self.groups == 1:
            raise ValueError("DiagnosticsConfig.groups = 1: two halves need 2; 0 for no gradients")


@dataclass
class TrainConfig:
    """A training run from end to end; `paravt eval` and `paravt demo` read the same recipes."""

    env: EnvConfig = field(default_factory=EnvConfig)
    agent: AgentConfig = field(default_factory=AgentConfig)
    algorithm: PARAGRPOConfig = field(default_factory=PARAGRPOConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    packing: PackingConfig = field(default_factory=PackingConfig)
    selection: SelectionConfig = field(default_factory=SelectionConfig)
    evaluation: EvalConfig = field(default_factory=EvalConfig)
    run: RunConfig = field(default_factory=RunConfig)
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    lora: LoraConfig = field(default_factory=LoraConfig)
    faults: FaultConfig = field(default_factory=FaultConfig)
    diagnostics: DiagnosticsConfig = field(default_factory=DiagnosticsConfig)
