"""LongVideoBench (arXiv 2407.15754): referring questions on videos of seconds to an hour.

`load_tasks("longvideobench", root=..., split="validation")`: videos in `videos/`, subtitles (JSON)
in `subtitles/`. A short video is cut from a longer one whose subtitles come with it:
`starting_timestamp_for_subtitles` is where the cut starts.
"""

from __future__ import annotations

from typing import ClassVar

from paravt_env.task import OPTION_LETTERS, Task
from paravt_env.tasksets.published.base import PublishedTasks
from paravt_env.tasksets.rows import FieldError, Row

OPTIONS = tuple(f"option{i}" for i in range(5))
ABSENT = "N/A"
"""What stands in place of an option that a question does not have."""


class LongVideoBenchTasks(PublishedTasks):
    """Split `validation`; see `PublishedTasks` for the arguments."""

    set_name = "longvideobench"
    hub_dataset = "longvideobench/LongVideoBench"
    splits: ClassVar = {"validation": ("validation",)}
    columns = (
        "id",
        "video_id",
        "video_path",
        "subtitle_path",
        "correct_choice",
        "question",
        *OPTIONS,
        "duration",
        "duration_group",
        "question_category",
        "topic_category",
        "starting_timestamp_for_subtitles",
    )
    video_folders: ClassVar[tuple[str, ...]] = ("videos", "")

    def read(self, row: Row) -> Task:
        """The task of one row."""
        listed = [row.label(name) for name in OPTIONS]
        options = [text for text in listed if text not in ("", ABSENT)]
        if listed[: len(options)] != options:
            raise FieldError(OPTIONS[listed.index(ABSENT)], "an absent option before another one")
        choice = row.get("correct_choice")
        if (
            not isinstance(choice, int)
            or isinstance(choice, bool)
            or not 0 <= choice < len(options)
        ):
            expected = f"a number below {len(options)}"
            raise FieldError("correct_choice", f"{choice!r} is not {expected}")
        path = row.label("subtitle_path")
        offset = row.number("starting_timestamp_for_subtitles")
        names = ("video_id", "duration", "duration_group", "topic_category")
        return Task(
            id=row.text("id"),
            video=self.video("video_path", row.text("video_path")),
            question=row.text("question"),
            kind="mcq",
            options=tuple(options),
            answer=OPTION_LETTERS[choice],
            subtitles=(
                self.subtitles("subtitle_path", f"subtitles/{path}", path, offset=offset)
                if path
                else ()
            ),
            category=row.text("question_category"),
            source=self.name,
            family="mcq",
            metadata={name: row.label(name) for name in names},
        )
