"""What a data set publishes, as messages: read, checked, and divided into turns.

The first stretch of `paravt sft` on published conversations: from a task of the set to messages of
known structure, without a tokenizer and without opening a file; `train/sft/writer.py` makes tokens
of them. What cannot be used is an `Unusable` with its reason. Rows are hostile: nothing about them
is taken for granted. Tests: `pytest tests/sft/test_published.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import dropwhile, groupby
from typing import Any

from paravt_env.protocol import render_completion
from paravt_env.protocol.tags import THINK, closing, opening
from paravt_env.task import Task, TaskSet
from paravt_env.tasksets.base import TaskList
from paravt_env.tasksets.jsonl import JsonlTasks
from paravt_env.tasksets.published.base import PublishedTasks
from paravt_env.tasksets.published.longvideo_reason import LongVideoReasonTasks
from paravt_env.tasksets.published.paravt_parquet import (
    FILE_SCHEME,
    MEDIA,
    PLACEHOLDER,
    ParaVTSFTTasks,
    as_json,
)
from paravt_env.tasksets.rows import FieldError
from train.common.errors import ConfigError

MALFORMED, MEDIUM, OPENING, TOO_LONG = "malformed", "media", "opening", "too_long"
"""Why a conversation is left out: its structure; a file that cannot be read; messages before the
first turn that a rollout's opening cannot stand for; its tokens."""
ASSISTANT, SYSTEM_ROLE, USER, TOOL = "assistant", "system", "user", "tool"
VIDEO = MEDIA[0]


class Unusable(ValueError):
    """A conversation that cannot be trained on; `kind` is one of the reasons above."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True)
class Medium:
    """A file that a message shows: `video_url` or `image_url`, and its path as published."""

    kind: str
    path: str


@dataclass(frozen=True)
class PublishedMessage:
    """One message: texts and files in their order."""

    role: str
    parts: tuple[str | Medium, ...]

    @property
    def is_turn(self) -> bool:
        """Whether it is the assistant's, which is trained."""
        return self.role == ASSISTANT

    @property
    def is_system(self) -> bool:
        """Whether it is a system message."""
        return self.role == SYSTEM_ROLE

    @property
    def text(self) -> str:
        """Its texts."""
        return "".join(part for part in self.parts if isinstance(part, str))

    @property
    def media(self) -> list[Medium]:
        """Its files."""
        return [part for part in self.parts if isinstance(part, Medium)]


def published_messages(task: Task) -> list[PublishedMessage]:
    """The conversation of a task of ParaVT-Parquet: the column `messages`.

    Raises:
        Unusable: It is not made of messages with a known role and known parts.
    """
    try:
        messages = as_json("messages", task.metadata["messages"])
    except FieldError as error:
        raise Unusable(MALFORMED, str(error)) from error
    if not isinstance(messages, list):
        raise Unusable(MALFORMED, f"a list of messages expected, not {type(messages).__name__}")
    return [_message(number, message) for number, message in enumerate(messages, 1)]


def _message(number: int, message: Any) -> PublishedMessage:
    role = message.get("role") if isinstance(message, Mapping) else None
    if role not in (SYSTEM_ROLE, USER, TOOL, ASSISTANT):
        raise Unusable(MALFORMED, f"message {number} has the role {role!r}")
    content = message.get("content")
    if isinstance(content, str):
        content = [{"type": "text", "text": content}]
    if not isinstance(content, list):
        raise Unusable(MALFORMED, f"message {number}: content is neither text nor a list")
    parts: list[str | Medium] = []
    for part in content:
        kind = part.get("type") if isinstance(part, Mapping) else None
        value = part.get(kind) if kind in ("text", *MEDIA) else None
        if kind in MEDIA and isinstance(value, Mapping):
            value = value.get("url")
        if kind is None or not isinstance(value, str):
            raise Unusable(MALFORMED, f"message {number}: a part is neither text nor a file")
        if kind == "text":
            parts.append(value if role == ASSISTANT else value.replace(PLACEHOLDER, ""))
        else:
            parts.append(Medium(kind, value.removeprefix(FILE_SCHEME)))
    return PublishedMessage(role, tuple(parts))


def reasoning_messages(task: Task) -> list[PublishedMessage]:
    """The conversation of a task of LongVideo-Reason, or of a manifest with reasoning.

    Question, `reasoning` of the metadata and answer: the CoT-SFT stage of LongVILA-R1 (arXiv
    2507.07966).

    Raises:
        Unusable: There is no reasoning, or there are other tags than one `<think>` around it.
    """
    thought = reasoning_of(task).strip()
    thought = thought.removeprefix(opening(THINK)).removesuffix(closing(THINK)).strip()
    if not thought:
        raise Unusable(MALFORMED, "'reasoning' is empty")
    try:
        said = render_completion(thought, answer=task.answer)
    except ValueError as error:
        raise Unusable(MALFORMED, f"'reasoning': {error}") from error
    asked = PublishedMessage(USER, (Medium(VIDEO, task.video), task.prompt))
    return [asked, PublishedMessage(ASSISTANT, (said,))]


def reasoning_of(task: Task) -> str:
    """The chain of thought in a task's metadata; "" where there is none."""
    thought = task.metadata.get("reasoning")
    return thought if isinstance(thought, str) else ""


SOURCES: dict[str, Callable[[Task], list[PublishedMessage]]] = {
    ParaVTSFTTasks.set_name: published_messages,
    LongVideoReasonTasks.set_name: reasoning_messages,
}
"""Task sets that publish conversations, and what reads them."""


def source_of(tasks: TaskSet) -> tuple[TaskList, Callable[[Task], list[PublishedMessage]]]:
    """A task set and what reads its conversations; raises `ConfigError` where it has none."""
    known = SOURCES.get(tasks.name)
    if known is not None and isinstance(tasks, PublishedTasks):
        return tasks, known
    if isinstance(tasks, JsonlTasks) and any(map(reasoning_of, tasks)):
        return tasks, reasoning_messages
    raise ConfigError(
        f"env.tasks={tasks.name}: a stage with published > 0 needs a task set that publishes "
        f"conversations: {' or '.join(SOURCES)}, or a manifest whose metadata hold `reasoning` "
        "(`paravt data reason`)"
    )


def divided(
    messages: Sequence[PublishedMessage],
) -> tuple[list[PublishedMessage], list[list[PublishedMessage]]]:
    """Messages before the first turn, and the blocks from it to the last turn.

    A block is a turn, or all messages between two turns; what follows the last turn is left off.

    Raises:
        Unusable: The turns do not follow one another as those of a rollout do.
    """
    blocks = [list(block) for _, block in groupby(messages, key=lambda message: message.is_turn)]
    before = blocks.pop(0) if blocks and not blocks[0][0].is_turn else []
    while blocks and not blocks[-1][0].is_turn:
        blocks.pop()
    if not blocks:
        raise Unusable(MALFORMED, "there is no assistant turn")
    for block in blocks:
        if block[0].is_turn:
            if len(block) > 1:
                raise Unusable(MALFORMED, "two assistant turns in a row")
            if block[0].media or not block[0].text.strip():
                raise Unusable(MALFORMED, "an assistant turn is not text alone, or empty")
        elif any(message.is_system for message in block):
            raise Unusable(MALFORMED, "a system message after the first turn")
    roles = [message.role for message in dropwhile(lambda one: one.is_system, before)]
    if not roles or set(roles) != {USER}:
        raise Unusable(MALFORMED, "no question before the first assistant turn")
    return before, blocks


def refuse_marks(messages: Sequence[PublishedMessage], marks: Iterable[str]) -> None:
    """Refuse texts that a tokenizer would take for marks between messages or for frames.

    Raises:
        Unusable: A message holds one of `marks`.
    """
    known = set(marks)
    for number, message in enumerate(messages, 1):
        found = sorted(mark for mark in known if mark in message.text)
        if found:
            raise Unusable(MALFORMED, f"message {number} holds {found[0]} as text")


def check_opening(before: Sequence[PublishedMessage]) -> None:
    """Refuse messages before the first turn that a rollout's opening cannot stand for.

    Raises:
        Unusable: They do not show one video.
    """
    shown = [medium.kind for message in before for medium in message.media]
    if shown != [VIDEO]:
        raise Unusable(
            OPENING,
            f"the question shows {', '.join(shown) or 'no file'}, a rollout's opening shows "
            "one video: published.opening=published trains it",
        )
