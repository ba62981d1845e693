"""Ctrl-C and SIGTERM at a safe moment: what must not be cut in two is finished first.

Used by the training loop. Where nothing is half-done, they raise `KeyboardInterrupt` at once;
between `hold` and `release` it is raised by `release`. A second Ctrl-C does not wait, and is
`forced`: what was held is then half-done. SIGTERM may come several times (a scheduler sends it to
a launcher, which passes it on) and never forces.

Command: `pytest tests/loop/test_checkpoint.py`.
"""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any


class Interrupt:
    """Owns the signals while it is open as a context manager; only in the main thread.

    Args:
        terminate: SIGTERM is taken, too.

    Attributes:
        forced: A second Ctrl-C cut a held stretch short.
        status: Exit status by the signal that came: 130, or 143 for SIGTERM.
    """

    def __init__(self, terminate: bool = False) -> None:
        self.forced = False
        self.status = 128 + signal.SIGINT
        self._signals = (signal.SIGINT, signal.SIGTERM) if terminate else (signal.SIGINT,)
        self._held = self._pending = self._ending = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            self._before = {one: signal.signal(one, self._handle) for one in self._signals}
        return self

    def __exit__(self, *exception: object) -> None:
        for one, before in self._before.items():
            signal.signal(one, before)
        self._before = {}

    def hold(self) -> None:
        """From here on a signal waits for `release`."""
        self._held = True

    def release(self) -> None:
        """End of what must not be cut: raises `KeyboardInterrupt` if a signal came meanwhile."""
        self._held = False
        if self._pending:
            self._pending = False
            raise KeyboardInterrupt

    def ending(self) -> None:
        """The run is being saved: SIGTERM has been heard, and changes nothing from here on."""
        self._ending = True

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        terminated = signum == signal.SIGTERM
        if terminated and (self._pending or self._ending):
            return
        if not self._pending:
            self.status = 128 + signum
        if self._held and not self._pending:
            self._pending = True
            again = "" if terminated else " (again to stop at once)"
            said = "SIGTERM" if terminated else "Ctrl-C"
            print(f"\n{said}: finishing this step, then saving{again}", flush=True)
            return
        self.forced |= self._held
        self._held = self._pending = False
        raise KeyboardInterrupt
