"""V* bench (arXiv 2312.14135): small details of large photographs, multiple choice.

`load_tasks("vstar", root=...)`: the folder of a download, with `test_questions.jsonl` and the
folders of pictures `direct_attributes` and `relative_position`. The options stand in the question.
"""

from __future__ import annotations

from typing import ClassVar

from paravt_env.task import Task
from paravt_env.tasksets.published.base import PublishedTasks
from paravt_env.tasksets.published.options import split_options
from paravt_env.tasksets.rows import FieldError, Row

ASKED = "Answer with the option's letter from the given choices directly."
"""How the publisher's questions end: a prompt's business."""


class VStarTasks(PublishedTasks):
    """Split `test`; see `PublishedTasks` for the arguments."""

    set_name = "vstar"
    hub_dataset = "craigwu/vstar_bench"
    splits: ClassVar = {"test": ("test_questions", "test")}
    columns = ("image", "text", "label")
    more_columns = ("category", "question_id")

    def read(self, row: Row) -> Task:
        """The task of one row."""
        question, options = split_options(row.text("text").replace(ASKED, ""))
        if not options:
            raise FieldError("text", "a question with options expected, (A) one a line")
        number = row.label("question_id") or str(self.position - 1)
        category = row.label("category")
        return Task(
            id=f"{category or self.name}-{number}",
            video="",
            images=(self.video("image", row.text("image")),),
            question=question,
            kind="mcq",
            options=options,
            answer=self.letter(row, "label", len(options)),
            category=category,
            source=self.name,
            family=category,
        )
