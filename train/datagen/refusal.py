"""Why a row is not in the manifest: one word for counting, and one sentence.

Raised by every file of this room, written to `rejected.jsonl` by the manifest. Tests: `pytest
tests/datagen`.
"""

from __future__ import annotations

from paravt_env.common.names import known_name

REASONS = {
    "unreadable_video": "the file cannot be read to its end",
    "duplicate_video": "another file of the folder has the same content",
    "captions": "too few clips of the video have a caption",
    "no_reply": "the server gave none; the same command asks again",
    "refused": "the server refused the request",
    "nonsense": "no reply was what was asked for",
    "missing": "the reply held fewer questions than were asked for",
    "malformed": "a field is missing, or holds something else",
    "duplicate": "the video has that question already",
    "cites": "question or reasoning speak of captions, or of letters that options do not have",
    "leak": "the question names the answer, and not the other options",
    "form": "the options differ in length or form",
    "evidence": "the evidence is none, or most of the video",
    "blind": "solvers find the answer without the video",
    "disagree": "a solver finds another answer",
}
"""Every reason, and what it means."""


class Rejected(ValueError):
    """A row, a clip or a video that is left out; `reason` is one of `REASONS`."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = known_name("reason", reason, REASONS)


class BudgetSpent(RuntimeError):
    """The next request would go beyond what the settings allow to be spent."""
