"""One question about one video, and the protocol of a set of them.

First stop of the journey: a task set yields `Task`s, `env.reset` opens the video of one of them,
    and the reward terms
compare the final answer with `Task.answer`. Run the examples with `python -m doctest
paravt_env/task.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, get_args, runtime_checkable

TaskKind = Literal["mcq", "open", "grounding"]
TASK_KINDS: tuple[str, ...] = get_args(TaskKind)
OPTION_LETTERS = "ABCDEFGHIJ"


class TaskError(ValueError):
    """A task that cannot be used, or an identifier that no task has."""


@dataclass(frozen=True)
class Subtitle:
    """One subtitle line, shown from `start` to `end` (seconds)."""

    start: float
    end: float
    text: str


@dataclass(frozen=True)
class Task:
    """A question, its gold answer and the video that holds the evidence.

    Attributes:
        id: Unique in its task set.
        video: Path of the video; absolute once loaded.
        question: The question alone, without the options.
        kind: `mcq`, `open` or `grounding`.
        options: Option texts without letters (mcq only; at most ten).
        answer: Letter (mcq), text (open) or `"12.0-19.5"`, seconds (grounding).
        evidence: Gold (start, end) spans in seconds; may be empty.
        subtitles: Subtitle lines in time order.
        category: Question category of the source, for per-category accuracy.
        source: Data set the task comes from.
        family: Question template or generator.
        metadata: Whatever else the source says; JSON-able.

    Raises:
        TaskError: Unknown kind, options that do not fit the kind, or a gold letter without its
            option.

    >>> task = Task("t1", "/v.mp4", "Which colour?", "mcq", ("red", "blue"), "B")
    >>> print(task.prompt)
    Which colour?
    A. red
    B. blue
    """

    id: str
    video: str
    question: str
    kind: TaskKind
    options: tuple[str, ...] = ()
    answer: str = ""
    evidence: tuple[tuple[float, float], ...] = ()
    subtitles: tuple[Subtitle, ...] = ()
    category: str = ""
    source: str = ""
    family: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Reject what no reward term could score."""
        if self.kind not in TASK_KINDS:
            raise TaskError(
                f"task {self.id!r}: kind {self.kind!r} is not one of {', '.join(TASK_KINDS)}"
            )
        if (self.kind == "mcq") != bool(self.options):
            raise TaskError(f"task {self.id!r}: a {self.kind} task has {len(self.options)} options")
        if len(self.options) > len(OPTION_LETTERS):
            raise TaskError(
                f"task {self.id!r}: {len(self.options)} options, {len(OPTION_LETTERS)} at most"
            )
        letters = OPTION_LETTERS[: len(self.options)]
        if self.kind == "mcq" and (len(self.answer) != 1 or self.answer not in letters):
            raise TaskError(
                f"task {self.id!r}: gold answer {self.answer!r} is not one of {letters}"
            )

    @property
    def prompt(self) -> str:
        """The question and, for mcq, one line `A. text` per option."""
        lines = [
            f"{letter}. {text}" for letter, text in zip(OPTION_LETTERS, self.options, strict=False)
        ]
        return "\n".join([self.question, *lines])


@runtime_checkable
class TaskSet(Protocol):
    """An ordered, indexable set of tasks."""

    name: str

    @property
    def ids(self) -> tuple[str, ...]:
        """Identifiers in index order."""
        ...

    def __len__(self) -> int:
        """Number of tasks."""
        ...

    def __getitem__(self, index: int) -> Task:
        """The task at `index`."""
        ...

    def by_id(self, task_id: str) -> Task:
        """The task called `task_id`; raises `TaskError` where there is none."""
        ...
