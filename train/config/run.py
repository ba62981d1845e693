"""The settings of every command, as typed dataclasses: what a recipe may contain, in which range.

Before the journey starts: `train.config.recipe` fills these from YAML and dotted overrides, and the
rooms behind take them ready-made. `paravt train paragrpo_mini --print-config` prints all of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args

from agents.base import AgentConfig
from agents.chat.client import ChatConfig
from agents.model.mini import MiniConfig
from agents.paragrpo import PARAGRPOConfig
from agents.scripted import SCRIPTED
from paravt_env.common.names import known_name
from paravt_env.episode.episode import StopReason
from paravt_env.settings import EnvSettings
from paravt_env.vector import LongVideoVectorEnv
from train.evaluation.row_file import Shard
from train.evaluation.suite import SUITES
from train.sft.traces import TraceConfig

WandbMode = Literal["auto", "online", "offline", "disabled"]
EvalMode = Literal["tools", "sequential", "direct", "blind"]
SCORED = tuple(map(str, (StopReason.answered, StopReason.unanswered, StopReason.turn_limit)))
"""Stop reasons of episodes that have a reward."""


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
    """Instead of the checkpoint: a scripted agent (random, uniform, oracle, majority), ``openai``
    (the server of ``chat``), or ``module:factory`` or ``file.py:factory``, called with the
    environment."""
    chat: ChatConfig = field(default_factory=ChatConfig)
    """The chat server of the policy ``openai``."""
    mode: EvalMode = "tools"
    """``tools``; ``sequential``: one crop a turn; ``direct``: one turn without tools; ``blind``:
    the same without any frame."""
    split: str = "test"
    """Part of the task set."""
    suite: str = ""
    """Instead of one split: a suite of published sets (``paravt7``)."""
    suite_root: str = "data"
    """Folder with a folder for each set of the suite."""
    sweep: Literal["", "frames"] = ""
    """``frames``: every task at each of ``sweep_frames`` overview frames, and a plot."""
    sweep_frames: tuple[int, ...] = (4, 8, 16, 32, 64, 128, 256, 512)
    """Overview frames of the sweep."""
    blind: bool = False
    """Play every task once without frames too; that score stands beside as a baseline."""
    shard: str = ""
    """``i/n``: play part i of n; `paravt merge` joins the parts."""
    resume: bool = True
    """Go on where an earlier evaluation of the same settings stopped; false starts anew."""
    retry_errors: bool = False
    """Play samples that ended in an error again when going on."""
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
        if ":" not in self.policy:
            known_name("EvalConfig.policy", self.policy, ("", *SCRIPTED, "openai"))
        known_name("EvalConfig.mode", self.mode, get_args(EvalMode))
        known_name("EvalConfig.suite", self.suite, ("", *SUITES))
        known_name("EvalConfig.sweep", self.sweep, ("", "frames"))
        Shard.parse(self.shard)
        for name in ("frame_budgets", "sweep_frames"):
            if len(set(getattr(self, name))) < len(getattr(self, name)):
                raise ValueError(f"EvalConfig.{name} = {getattr(self, name)}: one is there twice")
        _at_least(self, 1, "tasks", "budgets_per_task", "num_envs", "resamples")
        _at_least(self, 0, "temperature", "seed")
        for name in ("frame_budgets", "sweep_frames"):
            if any(budget < 0 for budget in getattr(self, name)):
                raise ValueError(f"EvalConfig.{name} = {getattr(self, name)}: none may be negative")
        if not 0 < self.confidence < 1:
            raise ValueError(f"EvalConfig.confidence = {self.confidence}: between 0 and 1")


@dataclass
class SelectionConfig:
    """What is trained of what was played (`train/rollout/selection.py`).

    The defaults train everything that could be scored.
    """

    oversample: float = 1.0
    """Groups played at a time, as a multiple of `algorithm.groups`."""
    rounds: int = 1
    """Times that groups are played for one batch, at most: again while groups are missing."""
    drop_zero_variance: bool = False
    """Leave out groups whose rewards are all equal."""
    rank_by_std: bool = False
    """Keep the groups with the largest standard deviation of the reward, not the first ones."""
    max_tokens: int = 0
    """Leave out rollouts whose main conversation has more tokens; 0 keeps all."""
    stop_reasons: tuple[str, ...] = SCORED
    """Leave out rollouts that ended in another way."""
    over_long_limit: int = 0
    """Sampled tokens of a rollout from which the over-long penalty is 1; 0 for no penalty."""
    over_long_buffer: int = 0
    """Tokens before that limit over which the penalty rises from 0."""
    over_long_weight: float = 1.0
    """Weight of the penalty in the reward."""
    prior_rollouts: int = 0
    """Rollouts of each task before training; tasks always or never solved are left out; 0: none."""
    prior_file: str = ""
    """JSON of measured pass rates (task id -> share), instead of measuring them."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        _at_least(self, 1, "oversample", "rounds")
        _at_least(self, 0, "max_tokens", "over_long_limit", "over_long_buffer", "over_long_weight")
        _at_least(self, 0, "prior_rollouts")
        if self.over_long_buffer > self.over_long_limit:
            raise ValueError(
                f"SelectionConfig.over_long_buffer = {self.over_long_buffer} cannot exceed "
                f"over_long_limit = {self.over_long_limit}"
            )
        if self.rounds > 1 and not self.drop_zero_variance:
            raise ValueError("SelectionConfig.rounds > 1 needs drop_zero_variance=true")
        if not self.stop_reasons:
            raise ValueError("SelectionConfig.stop_reasons = (): no rollout would be kept")
        for reason in self.stop_reasons:
            known_name("SelectionConfig.stop_reasons", reason, SCORED)


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
    asynchronous: bool = False
    """Play the next batches during the updates; several processes need the layout `split`."""
    staleness: int = 1
    """asynchronous: updates by which the weights that play a batch may be older than those that it
    updates; with 0 playing and updating take turns. Several processes are ahead by 1 at most."""
    lanes: int = 1
    """Parts of a batch that play side by side: one generates while another decodes crops."""
    resume: bool = False
    """Continue from the last checkpoint in the run's folder."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        _at_least(self, 0, "seed", "checkpoint_every", "eval_every", "staleness")
        _at_least(self, 1, "steps", "threads", "eval_tasks", "lanes")
        if not self.name or Path(self.name).name != self.name:
            raise ValueError(f"RunConfig.name = {self.name!r}: a plain folder name is needed")

    @property
    def path(self) -> Path:
        """Folder of this run."""
        return Path(self.folder) / self.name


@dataclass
class ParallelConfig:
    """How the processes of `torchrun` share a run, and what is traded for memory."""

    sequence: int = 1
    """Processes that share one packed sequence and its frames; the rest divides the groups."""
    layout: Literal["colocated", "split"] = "colocated"
    """colocated: all processes play and train; split: the first `servers` play, the rest train."""
    servers: int = 1
    """split: processes that only play."""
    reshard: bool = True
    """Free a block's gathered weights between forward and backward pass (ZeRO-3); else ZeRO-2."""
    recompute: bool = False
    """Activation checkpointing: keep only the inputs of each block; also on one process."""
    offload: bool = False
    """Keep sharded weights, gradients and optimizer moments in the memory of the CPU."""
    timeout: float = 600.0
    """Seconds after which processes that wait for another one give up and say for whom."""
    long_timeout: float = 3600.0
    """The same where others have long work meanwhile: they play, one writes a checkpoint, pass
    rates are measured; split: some update. Never less than `timeout`. In an asynchronous run of one
    process: seconds after which rollouts that make no turn are given up."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        _at_least(self, 1, "sequence", "servers", "timeout", "long_timeout")
        known_name("ParallelConfig.layout", self.layout, ("colocated", "split"))


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
        _at_least(self, 0, "rank")
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
        _at_least(self, 1, "in_a_row")
        _at_least(self, 0, "dumps", "explode")


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
        _at_least(self, 0, "every", "groups")
        if self.groups == 1:
            raise ValueError("DiagnosticsConfig.groups = 1: two halves need 2; 0 for no gradients")


@dataclass
class TrainConfig:
    """A training run from end to end; `paravt eval` and `paravt demo` read the same recipes."""

    env: EnvConfig = field(default_factory=EnvConfig)
    agent: AgentConfig = field(default_factory=AgentConfig)
    algorithm: PARAGRPOConfig = field(default_factory=PARAGRPOConfig)
    selection: SelectionConfig = field(default_factory=SelectionConfig)
    evaluation: EvalConfig = field(default_factory=EvalConfig)
    run: RunConfig = field(default_factory=RunConfig)
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    lora: LoraConfig = field(default_factory=LoraConfig)
    faults: FaultConfig = field(default_factory=FaultConfig)
    diagnostics: DiagnosticsConfig = field(default_factory=DiagnosticsConfig)


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
    conversations: int = 0
    """Main conversations of one step."""
    readings: int = 0
    """Sub-agent readings of one step."""
    frames: int = 0
    """Descriptions of single frames in one step."""
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
        _at_least(self, 0, "steps", "rollouts", "conversations", "readings", "frames")
        _at_least(self, 0, "published")
        for name in ("words", "call", "weigh"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise ValueError(f"StageConfig.{name} = {value}: a share, between 0 and 1")
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
        _at_least(self, 0, "max_tokens")


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
    """Single frames that are described of each video."""
    stages: tuple[StageConfig, ...] = (StageConfig(rollouts=6400, conversations=16, readings=16),)
    """What is taught, in this order."""
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
    save_every: int = 0
    """Steps between checkpoints inside a stage; 0 writes one after each stage only."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        _at_least(self, 0, "weight_decay", "warmup_fraction", "save_every")
        _at_least(self, 1, "frames_per_video", "log_every")
        if not self.stages:
            raise ValueError("SFTConfig.stages is empty: nothing would be learned")
        if not self.learning_rate > 0 or not self.grad_clip > 0:
            raise ValueError("SFTConfig.learning_rate and .grad_clip must be positive")
