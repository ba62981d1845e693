"""ParaVT-Parquet (arXiv 2605.20342): the questions of the RL stage, the conversations of SFT.

`load_tasks("paravt_rl", root=...)` and `load_tasks("paravt_sft", root=...)`. Videos are named by
paths such as `museg/charades/<id>.mp4` relative to the folder that the source archives were
unpacked to; `paravt data materialize` writes the same files with absolute paths, and both forms are
read here. A conversation becomes the task that it answers, with the conversation itself, as it was
published, in `metadata["messages"]`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from paravt_env.protocol.parser import parse
from paravt_env.span import parse_span, sole_span
from paravt_env.task import Task
from paravt_env.tasksets.published.base import PublishedTasks
from paravt_env.tasksets.published.options import gold_letter, split_options
from paravt_env.tasksets.rows import FieldError, Row

PLACEHOLDER = "<video>"
"""What stands in a prompt where the video's frames go."""
FILE_SCHEME = "file://"
MEDIA = ("video_url", "image_url")
"""Types of the parts of a message that name a file."""
QUESTION_TYPES = {"mcq": "mcq", "tvg": "grounding", "oe": "open"}


class ParaVTRLTasks(PublishedTasks):
    """Split `train`: questions with their gold answers; see `PublishedTasks` for the arguments."""

    set_name = "paravt_rl"
    hub_dataset = "ParaVT/ParaVT-Parquet"
    splits: ClassVar = {"train": ("paravt_rl*", "train")}
    columns: ClassVar[tuple[str, ...]] = ("prompt", "videos", "extra_info")
    video_field: ClassVar[str] = "videos"
    answer_field: ClassVar[str] = "extra_info"

    def read(self, row: Row) -> Task:
        """The task of one row."""
        gold = as_json("extra_info", row.get("extra_info"))
        if not isinstance(gold, Mapping):
            raise FieldError("extra_info", f"an object expected, not {gold!r}")
        known = QUESTION_TYPES.get(str(gold.get("question_type")))
        if known is None:
            types = ", ".join(QUESTION_TYPES)
            raise FieldError("extra_info", f"question_type {gold.get('question_type')!r}: {types}")
        videos = row.get("videos")
        if not isinstance(videos, list) or len(videos) != 1 or not isinstance(videos[0], Mapping):
            raise FieldError("videos", f"one video expected, not {videos!r}")
        text = " ".join(_texts("prompt", last_turn("prompt", row.get("prompt"), "user")))
        answer = gold.get("answer")
        if answer is None or not str(answer).strip():
            raise FieldError("extra_info", "'answer' is missing")
        return self.task(row, text, known, str(answer).strip(), videos[0].get("video"), {})

    def task(
        self,
        row: Row,
        text: str,
        kind: str,
        answer: str,
        video: Any,
        metadata: dict[str, Any],
    ) -> Task:
        """A task from a question as published; its options are inside `text`."""
        question = text.replace(PLACEHOLDER, "").strip()
        options: tuple[str, ...] = ()
        if kind == "mcq":
            stem, options = split_options(question)
            letter = gold_letter(answer, len(options))
            if letter:
                question, answer = stem, letter
            else:
                self.note(row, "", "no option has the gold letter: asked as an open question")
                kind, options = "open", ()
        span = parse_span(answer) if kind == "grounding" else None
        if kind == "grounding" and (span is None or not span[0] < span[1]):
            raise FieldError(self.answer_field, f"{answer!r} is not start-end in seconds")
        if not isinstance(video, str):
            raise FieldError(self.video_field, f"a path expected, not {video!r}")
        path = video.removeprefix(FILE_SCHEME)
        return Task(
            id=f"{self.name}-{self.position}",
            video=self.video(self.video_field, path),
            question=question,
            kind=kind,  # type: ignore[arg-type]
            options=options,
            answer=f"{span[0]}-{span[1]}" if span else answer,
            evidence=(span,) if span else (),
            category=path.removeprefix(f"{self.root}/").split("/")[0],
            source=self.name,
            family=kind,
            metadata=metadata,
        )


class ParaVTSFTTasks(ParaVTRLTasks):
    """Split `train`: conversations; see `PublishedTasks` for the arguments.

    The question is the first user turn, the gold answer the last `<answer>` of the conversation;
    the file is the first video (or image) that the conversation names.
    """

    set_name = "paravt_sft"
    splits: ClassVar = {"train": ("paravt_sft*", "train")}
    columns = ("messages",)
    video_field: ClassVar[str] = "messages"
    answer_field: ClassVar[str] = "messages"

    def read(self, row: Row) -> Task:
        """The task of one row."""
        published = row.get("messages")
        messages = as_json("messages", published)
        asked = first_turn("messages", messages, "user")
        text = " ".join(_texts("messages", asked))
        media = next(
            (part[kind].get("url") for kind in MEDIA for part in media_parts(messages, kind)), None
        )
        answer = ""
        for said in _texts("messages", last_turn("messages", messages, "assistant")):
            answer = parse(said).answer or answer
        if not answer:
            raise FieldError("messages", "the last turn holds no <answer>")
        _, options = split_options(text)
        kind = "mcq" if gold_letter(answer, len(options)) else "open"
        if kind == "open" and sole_span(answer) is not None:
            kind = "grounding"
        kept = published if isinstance(published, str) else json.dumps(published)
        return self.task(row, text, kind, answer, media, {"messages": kept})


def as_json(field: str, value: Any) -> Any:
    """The value of a column that holds JSON text, or the object itself."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        raise FieldError(field, f"not JSON: {error}") from error


def _turns(field: str, messages: Any, role: str) -> list[Mapping[str, Any]]:
    if not isinstance(messages, list) or not all(isinstance(turn, Mapping) for turn in messages):
        raise FieldError(field, "a list of messages with role and content expected")
    turns = [turn for turn in messages if turn.get("role") == role]
    if not turns:
        raise FieldError(field, f"no message has the role {role!r}")
    return turns


def first_turn(field: str, messages: Any, role: str) -> Any:
    """Content of the first message of a role; raises `FieldError` where there is none."""
    return _turns(field, messages, role)[0].get("content")


def last_turn(field: str, messages: Any, role: str) -> Any:
    """Content of the last message of a role; raises `FieldError` where there is none."""
    return _turns(field, messages, role)[-1].get("content")


def _texts(field: str, content: Any) -> list[str]:
    """The texts of a message's content, which is one text or a list of parts."""
    if isinstance(content, str):
        return [content]
    if not isinstance(content, list) or not all(isinstance(part, Mapping) for part in content):
        raise FieldError(field, f"content is neither text nor a list of parts: {content!r}")
    return [str(part["text"]) for part in content if part.get("type") == "text" and "text" in part]


def media_parts(messages: Any, *kinds: str) -> Iterator[dict[str, Any]]:
    """Parts that name a file, `{"type": kind, kind: {"url": ...}}`, of all messages in order."""
    for message in messages:
        content = message.get("content") if isinstance(message, Mapping) else None
        for part in content if isinstance(content, list) else ():
            kind = part.get("type") if isinstance(part, Mapping) else None
            if kind in (kinds or MEDIA) and isinstance(part.get(kind), Mapping):
                yield part
