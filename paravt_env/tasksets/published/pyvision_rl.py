"""PyVision-Image-RL-Data (arXiv 2602.20739): what PyVision-RL trains on, search and mathematics.

`load_tasks("pyvision_rl", root=...)`: the published JSON list, and the folders of the data sets
that it was taken from. It names pictures by paths of its authors' machine: of such a path the
longest end that lies under `root` is taken. Options stand in the question; `ability` says whether a
row is a search (`visual_search`) or a problem.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import ClassVar

from paravt_env.task import Task
from paravt_env.tasksets.published.base import PublishedTasks
from paravt_env.tasksets.published.options import split_options
from paravt_env.tasksets.published.vstar import ASKED
from paravt_env.tasksets.rows import FieldError, Row


class PyVisionRLTasks(PublishedTasks):
    """Split `train`; see `PublishedTasks` for the arguments."""

    set_name = "pyvision_rl"
    hub_dataset = "Agents-X/PyVision-Image-RL-Data"
    splits: ClassVar = {"train": ("train", "pyvision_image_rl_data")}
    columns = ("question", "answer", "image_path")
    more_columns = ("id", "ability", "data_source")

    def read(self, row: Row) -> Task:
        """The task of one row; one without options is open."""
        question, options = split_options(row.text("question").replace(ASKED, ""))
        ability, source = row.label("ability"), row.label("data_source")
        return Task(
            id=f"{source or self.name}-{row.label('id') or self.position - 1}",
            video="",
            images=(self.video("image_path", *ends(row.text("image_path"))),),
            question=question,
            kind="mcq" if options else "open",
            options=options,
            answer=self.letter(row, "answer", len(options)) if options else row.text("answer"),
            category=ability,
            source=source or self.name,
            family=ability,
        )


def ends(path: str) -> list[str]:
    """The ends of a path, the longest first, none of them absolute or upwards.

    Raises:
        FieldError: It has no name.

    >>> ends("/data/vstar/sa_1.jpg")
    ['data/vstar/sa_1.jpg', 'vstar/sa_1.jpg', 'sa_1.jpg']
    """
    parts = [part for part in PurePosixPath(path).parts if part != "/"]
    if not parts or ".." in parts:
        raise FieldError("image_path", f"{path!r} is no path of a picture")
    return ["/".join(parts[start:]) for start in range(len(parts))]
