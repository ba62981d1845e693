"""Workers started ahead, and the sessions that they run: one worker a session, killed after it.

The environment keeps one pool, and the pool one fork server (`server.py`). A worker is never used
twice, so nothing goes from one episode to the next; another one is forked the moment that one is
taken. Tests: `pytest tests/sandbox`; how fast: `python benchmarks/sandbox.py`.
"""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from paravt_env.sandbox.isolation import check
from paravt_env.sandbox.limits import LOST, CodeLimits, CodeReply
from paravt_env.sandbox.process import Media, Worker
from paravt_env.sandbox.server import ForkServer


class Session:
    """The code of one episode: names that a turn sets are there in the next one.

    Attributes:
        lost: How often its worker was stopped; the next run then starts from nothing.
    """

    def __init__(self, pool: SandboxPool, media: Media) -> None:
        self._pool, self.media = pool, media
        self._worker: Worker | None = None
        self.lost = 0

    def run(self, code: str) -> CodeReply:
        """Run code; called by one thread at a time.

        Raises:
            SandboxError: No worker could be started.
        """
        if self._worker is None:
            self._worker = self._pool.take()
            self._worker.begin(self._pool.limits, self.media)
        reply = self._worker.run(code, self.media)
        if reply.status in LOST:
            self.close()
            self.lost += 1
        return reply

    def close(self) -> None:
        """Kill the worker, if there is one; a later run would start from nothing."""
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.kill()


class SandboxPool:
    """Starts workers, hands each to one session, and runs the code of many sessions side by side.

    Args:
        limits: What each session may use.
        spare: Workers that wait for a session.
        parallel: Runs at one time.

    Attributes:
        counts: How many runs ended with which status.

    Raises:
        SandboxError: Code cannot be isolated on this machine.
    """

    def __init__(self, limits: CodeLimits, spare: int = 4, parallel: int = 4) -> None:
        check()
        self.limits, self.process = limits, os.getpid()
        self.counts: Counter[str] = Counter()
        self._lock = threading.Lock()
        # The server dies with the thread that started it: this one lives as long as the pool.
        self._server: ForkServer | None = None
        self._starter = ThreadPoolExecutor(1, "sandbox-start")
        self._runners = ThreadPoolExecutor(parallel, "sandbox-run")
        self._waiting: list[Future[Worker]] = []
        self._closed = False
        for _ in range(spare):
            self._waiting.append(self._starter.submit(self._forked))

    def session(self, media: Media) -> Session:
        """A session over a task's media; takes no worker before its first run."""
        return Session(self, media)

    def take(self) -> Worker:
        """A worker that no session has used; another one starts in its place."""
        with self._lock:
            if self._closed:
                raise RuntimeError("the sandboxes are closed: make a new environment")
            self._waiting.append(self._starter.submit(self._forked))
            future = self._waiting.pop(0)
        worker = future.result()
        if worker.alive:
            return worker
        worker.kill()
        return self._starter.submit(self._forked).result()

    def _forked(self) -> Worker:
        """A new worker, of a new server where the last one is gone; in the starter's thread."""
        if self._server is None or not self._server.alive:
            self._server = ForkServer()
        return Worker(self._server)

    def run_all(self, runs: Sequence[tuple[Session, str]]) -> list[CodeReply]:
        """Run the code of several sessions side by side; the replies in their order.

        Raises:
            SandboxError: A worker could not be started.
        """
        replies = list(self._runners.map(lambda run: run[0].run(run[1]), runs))
        self.counts.update(str(reply.status) for reply in replies)
        return replies

    def close(self) -> None:
        """Kill the waiting workers and end the threads; sessions are closed by who has them."""
        with self._lock:
            waiting, self._waiting, self._closed = self._waiting, [], True
        for future in waiting:
            if not future.cancel() and future.exception() is None:
                future.result().kill()
        self._runners.shutdown(wait=True)
        self._starter.shutdown(wait=True)
        if self._server is not None:
            self._server.kill()
