"""Manifests in the style of Qwen-VL's fine-tuning data: `image` or `video`, and `conversations`.

`load_tasks("qwen_vl", root=..., annotations="data.jsonl")`: a question is the first message of the
user without its `<image>` and `<video>` marks, the gold answer the first of the assistant; options
that stand in the question make it multiple choice. Later turns are not asked.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar

from paravt_env.task import Task
from paravt_env.tasksets.published.base import PublishedTasks
from paravt_env.tasksets.published.options import gold_letter, split_options
from paravt_env.tasksets.rows import FieldError, Row

_MARKS = re.compile(r"<(?:image|video)>\n?")
USERS, ASSISTANTS = ("human", "user"), ("gpt", "assistant")


class QwenVLTasks(PublishedTasks):
    """Any annotation file of that form; see `PublishedTasks` for the arguments."""

    set_name = "qwen_vl"
    hub_dataset = ""
    splits: ClassVar = {"train": ("train", "data"), "val": ("val",), "test": ("test",)}
    columns = ("conversations",)
    more_columns = ("id", "image", "images", "video")

    def read(self, row: Row) -> Task:
        """The task of one row."""
        turns = row.get("conversations")
        if not isinstance(turns, list):
            raise FieldError("conversations", f"a list of messages expected, not {turns!r}")
        question, options = split_options(_MARKS.sub("", _said(turns, USERS)).strip())
        answer = _said(turns, ASSISTANTS).strip()
        letter = gold_letter(answer, len(options)) if options else ""
        if options and not letter:
            raise FieldError("conversations", f"{answer[:40]!r} is no letter of the options")
        video, images = self._media(row)
        return Task(
            id=row.label("id") or f"row-{self.position}",
            video=video,
            images=images,
            question=question,
            kind="mcq" if options else "open",
            options=options,
            answer=letter or answer,
            source=self.name,
        )

    def _media(self, row: Row) -> tuple[str, tuple[str, ...]]:
        """The video, or the images, that a row names."""
        field = "images" if row.data.get("images") else "image"
        named = row.data.get(field) or []
        listed = [named] if isinstance(named, str) else named
        if not isinstance(listed, list) or not all(isinstance(one, str) for one in listed):
            raise FieldError(field, f"a path or a list of paths expected, not {named!r}")
        if listed:
            return "", tuple(self.video(field, one) for one in listed)
        return self.video("video", row.text("video")), ()


def _said(turns: list[Any], roles: tuple[str, ...]) -> str:
    """What the first message of one of these roles says; `from` and `value`, or `role`."""
    for turn in turns:
        if isinstance(turn, Mapping) and turn.get("from", turn.get("role")) in roles:
            text = turn.get("value", turn.get("content"))
            if isinstance(text, str) and text.strip():
                return text
    raise FieldError("conversations", f"no text of {roles[0]} in it")
