"""Decoding that can be killed: readers whose file is open in another process.

A thread cannot be stopped while it is inside a C library, and a crash there ends the whole program.
With `isolation="process"` each decoding thread of a `FrameStore` talks to a worker process instead:
past the deadline the worker is killed, its window is reported as timed out, and a new one serves
the next; a worker that crashes is one window's error. Costs a process a thread and a copy of the
frames (about 0.1 ms a frame).

Between `decoding.py` and `worker.py`. Run its tests:
`python -m pytest tests/video/test_video_isolation.py`.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref
from contextlib import suppress
from typing import Any

import numpy as np

from paravt_env.video.readers.backends import Backend
from paravt_env.video.readers.worker import Message, receive, send
from paravt_env.video.types import Frames, Size, VideoError, VideoInfo, VideoTimeoutError

GRACE = 0.1
"""Seconds past its deadline after which a worker is killed; before that it may say so itself."""


START = "import sys; from paravt_env.video.readers.worker import main; main(int(sys.argv[1]))"
"""What a worker runs; the package has imported the module before, so `-m` would run it twice."""


class WorkerProcess:
    """One worker and the socket to it; used by one thread at a time."""

    def __init__(self) -> None:
        if os.name != "posix":
            raise RuntimeError("process isolation needs a POSIX system: use isolation='thread'")
        self._link, theirs = socket.socketpair()
        paths = os.pathsep.join(os.path.abspath(entry) for entry in sys.path)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", START, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env={**os.environ, "PYTHONPATH": paths, "PYTHONSAFEPATH": "1"},
            )

    def ask(self, request: Message, path: str, deadline: float | None) -> tuple[Any, bytearray]:
        """The worker's answer, and the bytes that came with it.

        Raises:
            VideoError: the file cannot be read as asked, or the decoder crashed on it.
            VideoTimeoutError: the deadline passed; a worker that did not say so was killed.
            ImportError: the back end is not installed.
        """
        try:
            self._link.settimeout(None)
            send(self._link, request)
            late = None if deadline is None else deadline + GRACE
            answer, raw = receive(self._link, late)
        except TimeoutError:
            self.kill()
            reason = "was not decoded in time: the decoder was killed"
            raise VideoTimeoutError(path, reason) from None
        except OSError:
            raise VideoError(path, f"the decoder {self._last_words()} on this file") from None
        error = answer.get("error")
        if error is None:
            return answer["result"], raw
        if error == "import":
            raise ImportError(answer["reason"])
        if error == "bug":
            raise RuntimeError(f"in a decoding process:\n{answer['reason']}")
        raise (VideoTimeoutError if error == "timeout" else VideoError)(path, answer["reason"])

    @property
    def alive(self) -> bool:
        """Whether it can be asked again."""
        return self._process.poll() is None and self._link.fileno() >= 0

    def kill(self) -> None:
        """End it at once, whatever it is at; closing our end wakes a thread that waits for it."""
        self._process.kill()
        self._process.wait()
        with suppress(OSError):
            self._link.shutdown(socket.SHUT_RDWR)
        self._link.close()

    def _last_words(self) -> str:
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(1.0)  # a crash closes the socket a moment before the process ends
        code = self._process.poll()
        self.kill()
        if code is None:
            return "closed its connection"
        if code >= 0:
            return f"process ended with status {code}"
        name = signal.Signals(-code).name
        return "process was stopped" if name == "SIGKILL" else f"crashed ({name})"


class WorkerPool:
    """Workers that wait for a file; opened files borrow one each. Started when first needed."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self._lock = threading.Lock()
        self._idle: list[WorkerProcess] = []
        self._all: set[WorkerProcess] = set()
        self._closed = False
        self._finalizer = weakref.finalize(self, _kill_all, self._all, os.getpid())

    def open(self, path: str, deadline: float | None = None) -> IsolatedReader:
        """Open a file in a worker of its own; an `Opener`."""
        return IsolatedReader(self, path, deadline)

    def borrow(self) -> WorkerProcess:
        """An idle worker, or a new one."""
        with self._lock:
            if self._closed:
                raise RuntimeError("the decoding processes are closed: make a new FrameStore")
            while self._idle:
                worker = self._idle.pop()
                if worker.alive:
                    return worker
                self._all.discard(worker)
            worker = WorkerProcess()
            self._all.add(worker)
            return worker

    def give_back(self, worker: WorkerProcess) -> None:
        """Take a worker back; a dead one is forgotten."""
        with self._lock:
            if worker.alive and not self._closed:
                self._idle.append(worker)
            else:
                worker.kill()
                self._all.discard(worker)

    def close(self) -> None:
        """Kill every worker, also those at work."""
        with self._lock:
            self._closed = True
            self._idle.clear()
        self._finalizer()


def _kill_all(workers: set[WorkerProcess], owner: int) -> None:
    if os.getpid() != owner:
        return  # a fork has forgotten its copy of the pool: the workers are its parent's
    for worker in list(workers):
        worker.kill()
    workers.clear()


class IsolatedReader:
    """A `VideoReader` whose file is open in a worker; reopened in another one after a crash."""

    def __init__(self, pool: WorkerPool, path: str, deadline: float | None) -> None:
        self.path, self._pool, self._deadline = path, pool, deadline
        self._worker: WorkerProcess | None = None
        try:
            self._connect(deadline)
        except BaseException:
            self.close()
            raise

    @property
    def info(self) -> VideoInfo:
        """Duration, rate and size."""
        return VideoInfo(**self._ask("info", self._deadline)[0])

    def split(self, times: np.ndarray) -> list[np.ndarray]:
        """See `VideoReader.split`."""
        units, _ = self._ask("split", self._deadline, times=_numbers(times))
        return [np.array(unit, int) for unit in units]

    def frames_at(self, times: np.ndarray, size: Size, deadline: float | None = None) -> Frames:
        """See `VideoReader.frames_at`."""
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        asked = {"times": _numbers(times), "size": list(size), "left": left}
        about, raw = self._ask("frames_at", deadline, **asked)
        pixels = np.frombuffer(raw, np.uint8).reshape(about["shape"])
        slow = None if about["slow"] is None else np.array(about["slow"], bool)
        return Frames(pixels, np.array(about["timestamps"], float), slow)

    def key_times(self, times: np.ndarray) -> np.ndarray | None:
        """See `KeyFrameReader.key_times`; None if the back end cannot tell."""
        found, _ = self._ask("key_times", self._deadline, times=_numbers(times))
        return None if found is None else np.array(found, float)

    def close(self) -> None:
        """Close the file and give the worker back."""
        worker, self._worker = self._worker, None
        if worker is None:
            return
        try:
            if worker.alive:
                worker.ask({"do": "close", "with": {}}, self.path, time.monotonic() + 5.0)
        except (VideoError, RuntimeError):
            worker.kill()
        self._pool.give_back(worker)

    def _connect(self, deadline: float | None) -> WorkerProcess:
        if self._worker is not None and self._worker.alive:
            return self._worker
        if self._worker is not None:
            self._pool.give_back(self._worker)
        self._worker = worker = self._pool.borrow()
        backend = self._pool.backend
        where = {"name": backend.name, "target": backend.target, "path": self.path}
        where["device"] = backend.device
        worker.ask({"do": "open", "with": where}, self.path, deadline)
        return worker

    def _ask(self, do: str, deadline: float | None, **arguments: Any) -> tuple[Any, bytearray]:
        worker = self._connect(deadline)
        return worker.ask({"do": do, "with": arguments}, self.path, deadline)


def _numbers(times: np.ndarray) -> list[float]:
    return np.asarray(times, float).tolist()
