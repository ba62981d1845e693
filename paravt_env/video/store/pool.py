"""The decode pool: a few daemon threads, jobs in order of arrival, and no job that blocks for ever.

A standard executor has no answer to a decoder that hangs inside C: the thread is lost, and so is
the interpreter's exit. Here a job that overruns its deadline is written off: its owner gets the
error at once, another thread takes the place of the lost one, and whatever the lost one brings
back later belongs to its own job object, which is no longer read.

The threads hold the queue and not the pool: a pool that was never closed and is no longer used ends
its threads as it is collected, and what it decoded goes with it.

Where it sits: `store.py` submits, the threads run the back end. Run its tests:
`python -m pytest tests/video/test_video.py`.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable

GRACE = 0.25
"""Seconds past its deadline after which a running job counts as hung.

Back ends look at the deadline between packets; this leaves them the time to say so themselves.
"""


class Job:
    """One call, its deadline, and what to do when it must be given up."""

    def __init__(
        self,
        run: Callable[[float | None], None],
        give_up: Callable[[], None],
        deadline: float | None = None,
        timeout: float | None = None,
    ) -> None:
        self.run = run
        self.give_up = give_up
        self.deadline = deadline
        self.timeout = timeout

    def start(self) -> None:
        """Fix the deadline: `timeout` seconds from now, unless an earlier one was given."""
        if self.timeout is not None:
            own = time.monotonic() + self.timeout
            self.deadline = own if self.deadline is None else min(own, self.deadline)


class DecodePool:
    """`workers` threads, started on first use (so after a fork, never before one)."""

    def __init__(self, workers: int) -> None:
        if workers < 1:
            raise ValueError(f"a decode pool needs at least one worker, not {workers}")
        self._crew = _Crew(workers)
        weakref.finalize(self, _close_own, self._crew, os.getpid()).atexit = False

    def submit(self, job: Job) -> None:
        """Queue a job.

        Raises:
            RuntimeError: the pool was closed.
        """
        self._crew.submit(job)

    def idle(self) -> int:
        """Workers with nothing to do now."""
        return self._crew.idle()

    def reap(self) -> None:
        """Write off the jobs that hang, and put new threads in the place of theirs."""
        self._crew.reap()

    def close(self) -> None:
        """Drop the queued jobs; the threads end with the job they are at."""
        self._crew.close()


def _close_own(crew: _Crew, owner: int) -> None:
    """Close a crew, unless this is a fork of the process whose threads it has."""
    if os.getpid() == owner:
        crew.close()


class _Crew:
    """The queue of a pool and its threads, which hold nothing else."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._ready = threading.Condition()
        self._queue: deque[Job] = deque()
        self._running: dict[Job, threading.Thread] = {}
        self._threads = 0
        self._closed = False

    def submit(self, job: Job) -> None:
        """See `DecodePool`."""
        with self._ready:
            if self._closed:
                raise RuntimeError("the decode pool is closed: make a new FrameStore")
            self._queue.append(job)
            if self._threads < min(self.workers, len(self._queue) + len(self._running)):
                self._start_thread()
            self._ready.notify()

    def idle(self) -> int:
        """See `DecodePool`."""
        with self._ready:
            return max(0, self.workers - len(self._running) - len(self._queue))

    def reap(self) -> None:
        """See `DecodePool`."""
        late = time.monotonic() - GRACE
        with self._ready:
            hung = [j for j in self._running if j.deadline is not None and j.deadline < late]
            for job in hung:
                del self._running[job]
                self._start_thread()
                self._threads -= 1
        for job in hung:
            job.give_up()

    def close(self) -> None:
        """See `DecodePool`."""
        with self._ready:
            self._closed = True
            dropped = list(self._queue)
            self._queue.clear()
            self._ready.notify_all()
        for job in dropped:
            job.give_up()

    def _start_thread(self) -> None:
        self._threads += 1
        threading.Thread(target=self._work, name="decode", daemon=True).start()

    def _work(self) -> None:
        while True:
            with self._ready:
                while not self._queue and not self._closed:
                    self._ready.wait()
                if self._closed:
                    return
                job = self._queue.popleft()
                job.start()
                self._running[job] = threading.current_thread()
            job.run(job.deadline)
            with self._ready:
                if self._running.pop(job, None) is None:
                    return  # written off: another thread has this one's place
            del job  # what it holds must not wait for the next one
