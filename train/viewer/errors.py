"""What the viewer says when it cannot show something; a status and a sentence for the page.

Tests: `pytest tests/viewer`.
"""

from __future__ import annotations


class CannotShow(Exception):
    """A page that cannot be made: asked for wrongly, absent, or of a damaged file.

    Args:
        message: A sentence for the reader.
        status: HTTP status.
    """

    def __init__(self, message: str, status: int = 404) -> None:
        super().__init__(message)
        self.status = status
