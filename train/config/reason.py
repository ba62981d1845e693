"""The settings of `paravt data reason`: clips, captions, questions, checks, and what it may cost.

Read by `train.datagen`. Tests: `pytest tests/datagen`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from agents.chat.client import ChatConfig
from paravt_env.common.names import known_name
from paravt_env.task import OPTION_LETTERS
from train.config.checks import at_least

CATEGORIES = ("temporal", "goal", "spatial", "plot")
"""Of LongVILA-R1 (arXiv 2507.07966): temporal, goal and purpose, spatial, plot and narrative."""


@dataclass
class ClipConfig:
    """How a video is divided, and what a captioner is shown of each clip."""

    boundaries: Literal["windows", "shots"] = "windows"
    """``windows`` of equal length; ``shots``: where PySceneDetect sees a cut (extra ``shots``)."""
    seconds: float = 10.0
    """Longest clip; what is longer is divided evenly."""
    shortest: float = 2.0
    """A shot of fewer seconds is joined to the one before it."""
    frames: int = 8
    """Frames of a clip that the captioner sees."""
    height: int = 360
    """Pixels of these frames; the width follows the video's."""
    threshold: float = 27.0
    """``shots``: content difference from which there is a cut (PySceneDetect's ContentDetector)."""
    scan_fps: float = 4.0
    """``shots``: frames a second that are compared."""
    caption_tokens: int = 512
    """Tokens of a caption at most."""
    caption_characters: int = 2000
    """A longer caption is cut here."""
    least_captions: float = 0.9
    """A video with a smaller share of captioned clips is not asked about."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        known_name("ClipConfig.boundaries", self.boundaries, ("windows", "shots"))
        at_least(self, 1, "frames", "caption_tokens", "caption_characters")
        at_least(self, 2, "height")
        at_least(self, 0, "shortest", "threshold", "least_captions")
        if not (self.seconds > 0 and self.scan_fps > 0):
            raise ValueError("ClipConfig.seconds and .scan_fps must be above 0")
        if self.shortest > self.seconds or self.least_captions > 1:
            raise ValueError(
                f"ClipConfig.shortest = {self.shortest} may not exceed seconds = {self.seconds}, "
                f"nor least_captions = {self.least_captions} 1"
            )


@dataclass
class QuestionConfig:
    """What is asked about each video."""

    categories: tuple[str, ...] = CATEGORIES
    """Categories, each with one request a video."""
    per_category: int = 2
    """Questions of a category."""
    options: int = 4
    """Options of a question."""
    tokens: int = 8192
    """Tokens of the writer's reply at most, its own thinking included."""

    def __post_init__(self) -> None:
        """Check names and ranges."""
        for name in self.categories:
            known_name("QuestionConfig.categories", name, CATEGORIES)
        if not self.categories or len(set(self.categories)) < len(self.categories):
            raise ValueError(f"QuestionConfig.categories = {self.categories}: each once")
        at_least(self, 1, "per_category", "tokens")
        if not 2 <= self.options <= len(OPTION_LETTERS):
            raise ValueError(f"QuestionConfig.options = {self.options}: from 2 to 10")


@dataclass
class CheckConfig:
    """What a question has to pass."""

    longest_option: float = 2.0
    """The longest option may have so many times the characters of the shortest."""
    slack: int = 12
    """Characters by which the longest option may exceed the shortest in any case."""
    widest_evidence: float = 0.5
    """The evidence may cover this share of the video."""
    blind_tries: int = 3
    """A question whose answer is found without the video in all of so many tries, each with another
    order of the options, is rejected; a guess passes as right in (1 / options) ** tries; 0 tries
    none."""
    solvers: int = 2
    """Solvers that must find the answer, each in a conversation of its own."""
    solvers_see: Literal["captions", "frames"] = "captions"
    """What they are shown: all captions, or frames of the evidence (vision models): only these can
    find a wrong caption."""
    solver_frames: int = 16
    """Frames of the evidence at most."""
    tokens: int = 4096
    """Tokens of a solver's reply at most, its own thinking included."""

    def __post_init__(self) -> None:
        """Check names and ranges."""
        known_name("CheckConfig.solvers_see", self.solvers_see, ("captions", "frames"))
        at_least(self, 0, "slack", "blind_tries", "solvers")
        at_least(self, 1, "longest_option", "tokens", "solver_frames")
        if not 0 < self.widest_evidence <= 1:
            raise ValueError(f"CheckConfig.widest_evidence = {self.widest_evidence}: above 0, to 1")


@dataclass
class SplitConfig:
    """Shares of the videos; a video's split follows from its content and the seed alone."""

    train: float = 0.8
    """Share of the videos."""
    val: float = 0.1
    """Share of the videos."""
    test: float = 0.1
    """Share of the videos."""

    def __post_init__(self) -> None:
        """Check the sum."""
        at_least(self, 0, "train", "val", "test")
        if abs(self.train + self.val + self.test - 1) > 1e-9:
            raise ValueError("SplitConfig: train, val and test must add up to 1")


@dataclass
class ReasonConfig:
    """A set of question - reasoning - answer rows from a folder of videos."""

    source: str = ""
    """Folder of the videos, with its folders."""
    output: str = "runs/reason"
    """Output folder; the same command resumes there."""
    captioner: ChatConfig = field(default_factory=ChatConfig)
    """Server of the vision model that captions clips."""
    writer: ChatConfig = field(default_factory=ChatConfig)
    """Server of the reasoning model that writes questions, reasoning and answers."""
    solvers: tuple[ChatConfig, ...] = ()
    """Servers that solve, in turn; none: the writer's."""
    clips: ClipConfig = field(default_factory=ClipConfig)
    """Clips and captions."""
    questions: QuestionConfig = field(default_factory=QuestionConfig)
    """Categories and counts."""
    checks: CheckConfig = field(default_factory=CheckConfig)
    """What a row has to pass."""
    splits: SplitConfig = field(default_factory=SplitConfig)
    """Train, val and test, by video."""
    videos: int | None = None
    """At most this many videos, by name; None takes all."""
    max_cost: float = 0.0
    """Stop before a request once so much was spent, by the servers' prices; 0 never stops."""
    max_tokens: int = 0
    """The same for tokens, sent and sampled; 0 never stops."""
    ask_again: bool = False
    """Ask again where a server's last reply was of no use; otherwise such a row stays rejected."""
    samples: int = 10
    """Rows that the page shows with frames."""
    seed: int = 0
    """Of splits, letters and the orders of options that solvers see."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        at_least(self, 0, "max_cost", "max_tokens", "samples")
        if self.videos is not None:
            at_least(self, 1, "videos")
        servers = (self.captioner, self.writer, *self.solvers)
        if self.max_cost and not any(one.prompt_price or one.completion_price for one in servers):
            raise ValueError(
                f"ReasonConfig.max_cost = {self.max_cost} needs a server with a prompt_price or a "
                "completion_price; without prices set max_tokens"
            )
