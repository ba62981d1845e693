"""LongVideo-Reason (arXiv 2507.07966): reasoning questions in four categories.

`load_tasks("longvideo_reason", root=..., split="test")`: videos in `longvila_videos/`, or in the
folders that the published archives unpack to. The gold letters of the test split are far from
even (always answering B scores 44.1 %): read a score beside the majority baseline. A few rows of
it hold no readable options; they are kept, asked as open questions for their letter, and noted.
"""

from __future__ import annotations

from pathlib import PurePath
from typing import ClassVar

from paravt_env.task import Task
from paravt_env.tasksets.published.base import PublishedTasks
from paravt_env.tasksets.published.options import gold_letter, split_options, untagged
from paravt_env.tasksets.rows import Row

ARCHIVES = tuple(f"longvideo_eval_subset{i}" for i in range(10))


class LongVideoReasonTasks(PublishedTasks):
    """Splits `train` and `test`; see `PublishedTasks` for the arguments."""

    set_name = "longvideo_reason"
    hub_dataset = "LongVideo-Reason/longvideo-reason"
    splits: ClassVar = {"train": ("train",), "test": ("test",)}
    columns = (
        "problem_id",
        "problem",
        "data_type",
        "problem_type",
        "reasoning",
        "videos",
        "answer",
    )

    def read(self, row: Row) -> Task:
        """The task of one row."""
        question, options = split_options(row.text("problem"))
        letter = gold_letter(row.text("answer"), len(options))
        if not letter:
            self.note(row, "problem", "no option has the gold letter: asked as an open question")
            question, options = row.text("problem"), ()
        video = row.text("videos")
        name = PurePath(video).name
        return Task(
            id=row.label("problem_id") or row.text("problem_id"),
            video=self.video("videos", video, *(f"{folder}/{name}" for folder in ARCHIVES)),
            question=question,
            kind="mcq" if options else "open",
            options=options,
            answer=letter or untagged(row.text("answer")),
            category=row.text("problem_type"),
            source=self.name,
            family="mcq" if options else "open",
            metadata={"data_type": row.label("data_type"), "reasoning": row.label("reasoning")},
        )
