"""The `evaluation` group of a recipe: which tasks, at which frame budgets, how sure the intervals.

Read by `train.evaluation`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from agents.chat.client import ChatConfig
from agents.scripted import SCRIPTED
from paravt_env.common.names import known_name
from train.config.checks import at_least
from train.config.suites import SUITES

EvalMode = Literal["tools", "sequential", "direct", "blind"]


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
    untagged: bool | None = None
    """Whether a turn without a call and without `<answer>` answers with its text, as the published
    evaluators read it; None: in a suite of published sets, yes; elsewhere as the environment says
    (`env.untagged_answers`). Such rows are counted."""
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
    """Resume an earlier evaluation of the same settings where it stopped; false starts anew."""
    retry_errors: bool = False
    """Play samples that ended in an error again when resuming."""
    stop_after_errors: int = 10
    """Rows that may fail one after another for want of a server (agent or judge) before the run is
    stopped, to be continued; 0 never stops it."""
    keep_tokens: int = 128
    """Rollouts whose tokens are kept for `paravt view`, spread over the samples (about 10 bytes a
    sampled token on disk); 0 keeps none."""
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
        at_least(self, 1, "tasks", "budgets_per_task", "num_envs", "resamples")
        at_least(self, 0, "temperature", "seed", "stop_after_errors", "keep_tokens")
        for name in ("frame_budgets", "sweep_frames"):
            if any(budget < 0 for budget in getattr(self, name)):
                raise ValueError(f"EvalConfig.{name} = {getattr(self, name)}: none may be negative")
        if not 0 < self.confidence < 1:
            raise ValueError(f"EvalConfig.confidence = {self.confidence}: between 0 and 1")


@dataclass(frozen=True)
class Shard:
    """Part `index` (from 1) of `count` parts."""

    index: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Read "1/4"; "" is the whole.

        Raises:
            ValueError: Anything else.

        >>> Shard.parse("2/4")
        Shard(index=2, count=4)
        """
        if not text:
            return cls(1, 1)
        index, _, count = text.partition("/")
        if not (index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
            last = f"{count}/{count}" if count.isdecimal() and int(count) else "4/4"
            raise ValueError(f"shard {text!r}: write i/n, from 1/{last.split('/')[1]} to {last}")
        return cls(int(index), int(count))

    def suffix(self) -> str:
        """What the name of its file ends with."""
        return "" if self.count == 1 else f"-{self.index}of{self.count}"
