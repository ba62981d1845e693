"""MATH-Vision (arXiv 2402.14804): competition problems about pictures, multiple choice or open.

`load_tasks("mathvision", root=..., split="testmini")`: the published Parquet file or JSONL of the
split, and the unpacked `images.zip`, whose folder `images` the column `image` names. PyVision-RL is
evaluated on it.
"""

from __future__ import annotations

import re
from typing import ClassVar

from paravt_env.task import OPTION_LETTERS, Task
from paravt_env.tasksets.published.base import PublishedTasks
from paravt_env.tasksets.published.options import strip_labels
from paravt_env.tasksets.rows import FieldError, Row

MARK = re.compile(r"\s*<image\d+>\s*")
"""Where the publisher's questions name their picture: a prompt's business."""


class MathVisionTasks(PublishedTasks):
    """Splits `test` and `testmini`; see `PublishedTasks` for the arguments."""

    set_name = "mathvision"
    hub_dataset = "MathLLMs/MathVision"
    splits: ClassVar = {"test": ("test",), "testmini": ("testmini",)}
    columns = ("id", "question", "options", "image", "answer")
    more_columns = ("level", "subject")

    def read(self, row: Row) -> Task:
        """The task of one row; one without options is open."""
        options = strip_labels(row.texts("options"))
        if len(options) > len(OPTION_LETTERS):
            raise FieldError("options", f"{len(options)} options, at most {len(OPTION_LETTERS)}")
        subject = row.label("subject")
        return Task(
            id=row.label("id") or str(self.position),
            video="",
            images=(self.video("image", row.text("image")),),
            question=MARK.sub(" ", row.text("question")).strip(),
            kind="mcq" if options else "open",
            options=options,
            answer=self.letter(row, "answer", len(options)) if options else row.text("answer"),
            category=subject,
            source=self.name,
            family=subject,
            metadata={"level": row.label("level")},
        )
