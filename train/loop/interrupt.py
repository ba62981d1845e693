"""Ctrl-C at a safe moment: what must not be cut in two is finished first.

Used by the training loop. Where nothing is half-done, Ctrl-C raises `KeyboardInterrupt` at once;
between `hold` and `release` it is raised by `release`. A second Ctrl-C does not wait, and is
`forced`: what was held is then half-done.

Command: `pytest tests/loop/test_checkpoint.py`.
"""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any


class Interrupt:
    """Owns SIGINT while it is open as a context manager; outside the main thread it does nothing.

    Attributes:
        forced: A second Ctrl-C cut a held stretch short.
    """

    def __init__(self) -> None:
        self.forced = False
        self._held = self._pending = False
        self._before: Any = None

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(self, *exception: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)
            self._before = None

    def hold(self) -> None:
        """From here on a Ctrl-C waits for `release`."""
        self._held = True

    def release(self) -> None:
        """End of what must not be cut: raises `KeyboardInterrupt` if Ctrl-C came meanwhile."""
        self._held = False
        if self._pending:
            self._pending = False
            raise KeyboardInterrupt

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if self._held and not self._pending:
            self._pending = True
            print("\nCtrl-C: finishing this step, then saving (again to stop at once)", flush=True)
            return
        self.forced |= self._held
        self._held = self._pending = False
        raise KeyboardInterrupt
