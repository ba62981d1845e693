"""One question about one video, or about pictures, and the protocol of a set of them.

First stop of the journey: a task set yields `Task`s, `env.reset` opens the video of one of them,
and the reward terms compare the final answer with `Task.answer`. Run the examples with `python -m
doctest paravt_env/task.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, get_args, runtime_checkable

from paravt_env.span import parse_span

TaskKind = Literal["mcq", "open", "grounding"]
TASK_KINDS: tuple[str, ...] = get_args(TaskKind)
OPTION_LETTERS = "ABCDEFGHIJ"


ONE_MEDIUM = "a task has a video or images: give one of the two fields"


class TaskError(ValueError):
    """A task that cannot be used, or an identifier that no task has."""


@dataclass(frozen=True)
class Subtitle:
    """One subtitle line, shown from `start` to `end` (seconds; infinity: to the end)."""

    start: float
    end: float
    text: str


def task_problems(kind: str, options: Sequence[str], answer: str) -> list[tuple[str, str]]:
    """What no reward term could score, as (field, message); empty for a sound task.

    >>> task_problems("mcq", ("red", "blue"), "C")
    [('answer', "gold answer 'C' is not one of AB")]
    """
    if kind not in TASK_KINDS:
        return [("kind", f"kind {kind!r} is not one of {', '.join(TASK_KINDS)}")]
    if (kind == "mcq") != bool(options):
        return [("options", f"a {kind} task has {len(options)} options")]
    problems = []
    if len(options) > len(OPTION_LETTERS):
        problems.append(("options", f"{len(options)} options, {len(OPTION_LETTERS)} at most"))
    letters = OPTION_LETTERS[: len(options)]
    if kind == "mcq" and (len(answer) != 1 or answer not in letters):
        problems.append(("answer", f"gold answer {answer!r} is not one of {letters}"))
    span = parse_span(answer) if kind == "grounding" else None
    if span is not None and not span[0] < span[1]:
        problems.append(("answer", f"gold answer {answer!r} ends before it starts, or at once"))
    return problems


@dataclass(frozen=True)
class Task:
    """A question, its gold answer and the video, or the images, that hold the evidence.

    Attributes:
        id: Unique in its task set.
        video: Path of the video; absolute once loaded. "" for a task about images.
        question: The question alone, without the options.
        kind: `mcq`, `open` or `grounding`.
        options: Option texts without letters (mcq only; at most ten).
        answer: Letter (mcq), text (open) or `"12.0-19.5"`, seconds (grounding).
        evidence: Gold (start, end) spans in seconds; may be empty.
        subtitles: Subtitle lines by start time; may be read from a file when first looked at.
        category: Question category of the source, for per-category accuracy.
        source: Data set the task comes from.
        family: Question template or generator.
        metadata: Whatever else the source says; JSON-able.
        images: Paths of pictures, in the order that the question counts them in; absolute once
            loaded. A task has a video or images.

    Raises:
        TaskError: Neither a video nor images, or both; unknown kind, options that do not fit the
            kind, a gold letter without its option, or a gold span that does not end after it
            starts.

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
    subtitles: Sequence[Subtitle] = ()
    category: str = ""
    source: str = ""
    family: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    images: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Reject what no reward term could score."""
        if bool(self.video) == bool(self.images):
            raise TaskError(f"task {self.id!r}: {ONE_MEDIUM}")
        for _, message in task_problems(self.kind, self.options, self.answer):
            raise TaskError(f"task {self.id!r}: {message}")

    @property
    def medium(self) -> str:
        """The path of the video, or of the first image: tasks that share it are not independent."""
        return self.video or self.images[0]

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
