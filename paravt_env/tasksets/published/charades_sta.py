"""Charades-STA (arXiv 1705.02101): find the moment that a sentence describes.

`load_tasks("charades_sta", root=...)`: videos in `Charades_v1_480/`. The answer is a span in
seconds; the answer term is its temporal IoU with the gold span, 0 for an answer that is no span, so
a row that failed to parse stays in the denominator.
"""

from __future__ import annotations

from pathlib import PurePath
from typing import ClassVar

from paravt_env.task import Task
from paravt_env.tasksets.published.base import PublishedTasks
from paravt_env.tasksets.rows import FieldError, Row, is_number

QUESTION = 'When does this happen: "{caption}"? Answer with the start and the end in seconds.'


class CharadesSTATasks(PublishedTasks):
    """Split `test`; see `PublishedTasks` for the arguments."""

    set_name = "charades_sta"
    hub_dataset = "lmms-lab/charades_sta"
    columns = ("video", "caption", "timestamp")
    video_folders: ClassVar[tuple[str, ...]] = ("Charades_v1_480", "Charades_v1", "videos", "")

    def read(self, row: Row) -> Task:
        """The task of one row."""
        span = row.get("timestamp")
        if not isinstance(span, list) or len(span) != 2 or not all(map(is_number, span)):
            raise FieldError("timestamp", f"[start, end] in seconds expected, not {span!r}")
        start, end = float(span[0]), float(span[1])
        if not 0 <= start < end:
            raise FieldError("timestamp", f"({start}, {end}) is not a span of seconds")
        video, caption = row.text("video"), row.text("caption")
        return Task(
            id=f"{PurePath(video).stem}-{self.position}",
            video=self.video("video", video),
            question=QUESTION.format(caption=caption),
            kind="grounding",
            answer=f"{start}-{end}",
            evidence=((start, end),),
            category="grounding",
            source=self.name,
            family="grounding",
            metadata={"caption": caption},
        )
