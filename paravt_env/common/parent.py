"""A process that ends with the one that started it, however that one ended.

A killed parent cannot tell its children. Processes of a pool wait for work for ever then, as they
hold both ends of its pipe. Used by the isolated video readers (`paravt_env/video/readers`) and by
the runs of a study (`train/lab/study`). Tests: `pytest tests/common/test_parent.py`.
"""

from __future__ import annotations

import os
import threading
import time

WATCH = 0.5
"""Seconds between two looks at the parent."""


def end_with(parent: int) -> None:
    """End this process soon after `parent`, its direct parent, is gone, whatever it is doing.

    Args:
        parent: Process id, taken before this process was started, or by it at its start.
    """
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(WATCH)
    os._exit(1)
