"""LVBench (arXiv 2406.08035): questions on videos of about an hour, six abilities.

`load_tasks("lvbench", root=...)`: videos under their `video_path`. `time_reference` says where the
evidence lies and becomes the gold span; a question may count for several abilities.
"""

from __future__ import annotations

import re
from typing import ClassVar

from paravt_env.span import Span
from paravt_env.task import Task
from paravt_env.tasksets.published.base import PublishedTasks
from paravt_env.tasksets.published.options import split_options
from paravt_env.tasksets.rows import FieldError, Row
from paravt_env.tasksets.subtitle_files import clock

_SPAN = re.compile(r"\s*((?:\d+:)?\d{1,3}:\d{2})\s*-\s*((?:\d+:)?\d{1,3}:\d{2})\s*")


class LVBenchTasks(PublishedTasks):
    """Split `test` (a mirror calls it `train`); see `PublishedTasks` for the arguments."""

    set_name = "lvbench"
    hub_dataset = "lmms-lab/LVBench"
    splits: ClassVar = {"test": ("test", "train")}
    columns = (
        "uid",
        "question",
        "answer",
        "question_type",
        "time_reference",
        "video_path",
    )
    more_columns = ("video_info",)
    video_folders: ClassVar[tuple[str, ...]] = ("", "all_videos", "videos")

    def read(self, row: Row) -> Task:
        """The task of one row."""
        question, options = split_options(row.text("question"))
        if not options:
            raise FieldError("question", "holds no options such as (A) ...")
        reference = row.label("time_reference")
        span = time_span(reference)
        return Task(
            id=row.label("uid") or row.text("uid"),
            video=self.video("video_path", row.text("video_path")),
            question=question,
            kind="mcq",
            options=options,
            answer=self.letter(row, "answer", len(options)),
            evidence=(span,) if span else (),
            category=", ".join(row.texts("question_type")),
            source=self.name,
            family="mcq",
            metadata={"time_reference": reference},
        )


def time_span(text: str) -> Span | None:
    """Seconds of "mm:ss-mm:ss"; None for anything else, and for a span without length.

    >>> time_span("00:15-01:19"), time_span("12:00")
    ((15.0, 79.0), None)
    """
    match = _SPAN.fullmatch(text)
    if match is None:
        return None
    start, end = clock(match[1]), clock(match[2])
    return (start, end) if start < end else None
