"""Video-MME (arXiv 2405.21075): 2,700 four-way questions on 900 videos, with subtitles.

`load_tasks("video_mme", root=...)`: videos in `data/` (`{videoID}.mp4`), subtitles in `subtitle/`
(`{videoID}.srt`; about one video in six has none). Accuracy is reported by duration, which is the
category here. The score with subtitles is that of an environment with `subtitles=True`.
"""

from __future__ import annotations

from typing import ClassVar

from paravt_env.task import Task
from paravt_env.tasksets.published.base import PublishedTasks
from paravt_env.tasksets.published.options import strip_labels
from paravt_env.tasksets.rows import Row


class VideoMMETasks(PublishedTasks):
    """Split `test`; see `PublishedTasks` for the arguments."""

    set_name = "video_mme"
    hub_dataset = "lmms-lab/Video-MME"
    hub_config = "videomme"
    columns = (
        "video_id",
        "duration",
        "domain",
        "sub_category",
        "url",
        "videoID",
        "question_id",
        "task_type",
        "question",
        "options",
        "answer",
    )
    video_folders: ClassVar[tuple[str, ...]] = ("data", "videos", "videos/data", "")

    def read(self, row: Row) -> Task:
        """The task of one row."""
        options = strip_labels(row.texts("options"))
        video = row.text("videoID")
        names = ("video_id", "duration", "domain", "sub_category", "url", "task_type")
        return Task(
            id=row.text("question_id"),
            video=self.video("videoID", f"{video}.mp4"),
            question=row.text("question"),
            kind="mcq",
            options=options,
            answer=self.letter(row, "answer", len(options)),
            subtitles=self.subtitles("videoID", f"subtitle/{video}.srt", f"subtitles/{video}.srt"),
            category=row.text("duration"),
            source=self.name,
            family="mcq",
            metadata={name: row.label(name) for name in names},
        )
