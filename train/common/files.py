"""Text files that are whole or not there: a run that is killed while it writes leaves the old one.

Beneath all in `train` that writes results again and again: metrics, reports, settings, pages.
"""

from __future__ import annotations

from pathlib import Path


def write_whole(path: Path, text: str) -> None:
    """Write `text` beside `path` and put it there in one stroke; the folder must exist.

    Raises:
        OSError: It could not be written; what was there before stays.
    """
    draft = path.with_name(f"{path.name}.tmp")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)
