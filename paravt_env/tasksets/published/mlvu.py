"""MLVU (arXiv 2406.04264), its multiple-choice development set: seven tasks on long videos.

`load_tasks("mlvu", root=...)`: videos under their `video_name`. The gold answer is an option's text
or its letter. Reported are the mean over the tasks (the category here) and over the questions.
"""

from __future__ import annotations

from typing import ClassVar

from paravt_env.task import Task
from paravt_env.tasksets.published.base import PublishedTasks
from paravt_env.tasksets.published.options import gold_choice, strip_labels
from paravt_env.tasksets.rows import FieldError, Row


class MLVUTasks(PublishedTasks):
    """Split `test`; see `PublishedTasks` for the arguments."""

    set_name = "mlvu"
    hub_dataset = "sy1998/MLVU_dev"
    columns = (
        "video_name",
        "duration",
        "question",
        "candidates",
        "answer",
        "task_type",
        "question_id",
    )
    video_folders: ClassVar[tuple[str, ...]] = ("", "video", "videos")

    def read(self, row: Row) -> Task:
        """The task of one row."""
        options = strip_labels(row.texts("candidates"))
        letter = gold_choice(row.label("answer"), options)
        if not letter:
            raise FieldError("answer", f"{row.data['answer']!r} is no candidate and no letter")
        return Task(
            id=row.label("question_id") or row.text("question_id"),
            video=self.video("video_name", row.text("video_name")),
            question=row.text("question"),
            kind="mcq",
            options=options,
            answer=letter,
            category=row.text("task_type"),
            source=self.name,
            family="mcq",
            metadata={"duration": row.label("duration")},
        )
