"""Steps that lead to others, a bounded number at a time.

Under the engine. A step's work runs in a thread; what follows from it is decided in the caller's,
one result after another, so that nothing there needs a lock. What follows comes before what is
new: rows are finished soon, and few videos are open at a time. Tests: `pytest
tests/datagen/test_steps.py`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any, NamedTuple


class Step(NamedTuple):
    """One piece of work: `then` gets what `work` returned, and gives the steps that follow."""

    work: Callable[[], Any]
    then: Callable[[Any], Iterable[Step]]


def run_steps(source: Iterator[Step], width: int) -> None:
    """Run the steps of `source` and all that follow from them, `width` at a time.

    Raises:
        BaseException: Of the first step that fails; steps that run then are waited for.
    """
    ready: deque[Step] = deque()
    running: dict[Future[Any], Step] = {}
    pool = ThreadPoolExecutor(width, "step")
    try:
        while True:
            while len(running) < width:
                step = ready.popleft() if ready else next(source, None)
                if step is None:
                    break
                running[pool.submit(step.work)] = step
            if not running:
                return
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                step = running.pop(future)
                ready.extendleft(reversed(list(step.then(future.result()))))
    finally:
        pool.shutdown(cancel_futures=True)
