"""MMVU (arXiv 2501.12380): expert questions, multiple choice and open-ended.

`load_tasks("mmvu", root=..., split="validation")`: videos in `videos/`. Each row is scored as what
it is: an open-ended question is never turned into a choice; the family tells the two apart.
"""

from __future__ import annotations

from typing import ClassVar

from paravt_env.task import OPTION_LETTERS, Task
from paravt_env.tasksets.published.base import PublishedTasks
from paravt_env.tasksets.rows import FieldError, Row

PREFIX = "https://huggingface.co/datasets/yale-nlp/MMVU/resolve/main/"
"""The publisher names videos by their address; what follows is the path in a download."""


class MMVUTasks(PublishedTasks):
    """Split `validation`; see `PublishedTasks` for the arguments."""

    set_name = "mmvu"
    hub_dataset = "yale-nlp/MMVU"
    splits: ClassVar = {"validation": ("validation",)}
    columns = ("id", "video", "question", "choices", "answer", "question_type", "metadata")
    video_folders: ClassVar[tuple[str, ...]] = ("", "videos")

    def read(self, row: Row) -> Task:
        """The task of one row."""
        kind = row.text("question_type")
        if kind not in ("multiple-choice", "open-ended"):
            raise FieldError("question_type", f"{kind!r} is neither multiple-choice nor open-ended")
        options = self._options(row) if kind == "multiple-choice" else ()
        about = row.data["metadata"]
        subject = about.get("subject", "") if isinstance(about, dict) else ""
        return Task(
            id=row.text("id"),
            video=self.video("video", row.text("video").removeprefix(PREFIX)),
            question=row.text("question"),
            kind="mcq" if options else "open",
            options=options,
            answer=(
                self.letter(row, "answer", len(options))
                if options
                else row.label("answer") or row.text("answer")
            ),
            category=str(subject),
            source=self.name,
            family=kind,
            metadata={"question_type": kind},
        )

    def _options(self, row: Row) -> tuple[str, ...]:
        choices = row.get("choices")
        if not isinstance(choices, dict):
            raise FieldError("choices", f"an object of letters expected, not {choices!r}")
        letters = [letter for letter in OPTION_LETTERS if choices.get(letter)]
        if not letters or letters != list(OPTION_LETTERS[: len(letters)]):
            raise FieldError("choices", f"letters from A on expected, not {sorted(choices)}")
        return tuple(str(choices[letter]).strip() for letter in letters)
