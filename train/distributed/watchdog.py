"""Watchdog: which process is missing when the others wait, said once and in one line.

Around a run on several processes. Each publishes a sign of life and how far it is through
torchrun's store; a thread reads those of the others. When a process dies, is stuck, or torchrun
ends the job, the first process that knows names it, says where the last checkpoint is, and all of
them leave without a traceback of their own; who leaves says so in the store, and is not taken for
dead. An error inside a process is raised there unchanged; one other process prints its first line.

Command: `pytest tests/learner/test_faults.py tests/distributed/test_killed_rank.py`.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch.distributed as dist

from train.distributed.processes import HAND_OVER, STAGE, Processes, attempt

EXIT = 70
"""Exit status of a process that leaves because of another one."""


class Watchdog:
    """Open around a run; does nothing on one process.

    Args:
        processes: The processes.
        advice: What to do next, for the message.
        beat: Seconds between signs of life.
    """

    def __init__(
        self, processes: Processes, advice: Callable[[], str] = lambda: "", beat: float = 0.5
    ) -> None:
        self.processes, self.advice, self.beat = processes, advice, beat
        self.progress = processes.progress
        self._failed = self._left = ""
        self._over = threading.Event()
        self._saying = threading.Lock()
        self._beats = 0
        self._prefix = f"watch/{attempt()}"

    def __enter__(self) -> Watchdog:
        if self.processes.world.size == 1:
            return self
        self._store = dist.TCPStore(
            os.environ["MASTER_ADDR"],
            int(os.environ["MASTER_PORT"]),
            is_master=False,
            timeout=timedelta(seconds=max(10 * self.beat, 10)),
        )
        self._publish()
        self.processes.barrier()
        self._read, self._write = socket.socketpair()
        for end in (self._read, self._write):
            end.setblocking(False)
        if threading.current_thread() is threading.main_thread():
            # The byte arrives even while the main thread waits inside a collective.
            self._terminate = signal.signal(signal.SIGTERM, lambda *_: None)
            self._wakeup = signal.set_wakeup_fd(self._write.fileno(), warn_on_full_buffer=False)
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if self.processes.world.size == 1:
            return
        if isinstance(error, Exception):
            # Long enough for the one that failed to say why, on a busy machine too; shorter than
            # what makes the others' threads call this process silent.
            patience = max(6 * self.beat, min(5.0, self.processes.config.timeout / 3))
            missing = self._missing(patience) if _is_lost_contact(error) else []
            if missing:
                self._leave(missing)
            self._failed = f"{kind.__name__}: {str(error).splitlines()[0] if str(error) else ''}"
            self._publish()
        self._over.set()
        if threading.current_thread() is threading.main_thread():
            signal.set_wakeup_fd(self._wakeup)
            signal.signal(signal.SIGTERM, self._terminate)
        self._thread.join()
        self._read.close()
        self._write.close()

    def _publish(self) -> None:
        self._beats += 1
        state = {
            "beat": self._beats,
            "step": self.progress.step,
            "stage": self.progress.stage,
            "order": self.progress.order,
            "failed": self._failed,
            "left": self._left,
        }
        self._store.set(f"{self._prefix}/{self.processes.world.rank}", json.dumps(state))

    def _states(self) -> dict[int, dict[str, Any]]:
        """What the other processes last published."""
        others = [r for r in range(self.processes.world.size) if r != self.processes.world.rank]
        values = self._store.multi_get([f"{self._prefix}/{rank}" for rank in others])
        return {rank: json.loads(value) for rank, value in zip(others, values, strict=True)}

    def _run(self) -> None:
        """The thread: publish, listen for torchrun's SIGTERM, look after the others."""
        seen: dict[int, tuple[int, float]] = {}
        while not self._over.is_set():
            try:
                self._publish()
                states = self._states()
            except (dist.DistError, RuntimeError):
                if not self._over.is_set():
                    self._leave([(0, "the store is gone, and its process with it")])
                return
            now, patience = time.monotonic(), self.processes.config.timeout
            for rank, state in states.items():
                if rank not in seen or seen[rank][0] != state["beat"]:
                    seen[rank] = (state["beat"], now)
            silent = any(now - when > patience for _, when in seen.values())
            stuck = now - self.progress.since > self._patience() and self._behind(states)
            if (silent or stuck) and self.progress.order and not self._over.is_set():
                self._leave(self._missing(patience=4 * self.beat))
                return
            called = select.select([self._read], [], [], self.beat)[0]
            if called and signal.SIGTERM in self._read.recv(64):
                self._leave(self._missing(patience=6 * self.beat))

    def _patience(self) -> float:
        """Seconds after which this process gives up on those that are behind."""
        config = self.processes.config
        long = config.long_timeout if self.progress.stage == HAND_OVER else 0.0
        return max(config.timeout, long)

    def _behind(self, states: dict[int, dict[str, Any]]) -> list[int]:
        """Processes that have not come as far as this one, the furthest behind."""
        mine, servers = self.progress.order, 0
        if self.processes.config.layout == "disaggregated":
            servers = self.processes.config.generator_ranks
        exact = self.processes.trains
        late = {
            rank: state["order"]
            for rank, state in states.items()
            if (state["order"] < mine and exact and rank >= servers)
            or state["order"] // STAGE < mine // STAGE
        }
        return [rank for rank, order in late.items() if order == min(late.values())]

    def _missing(self, patience: float) -> list[tuple[int, str]]:
        """Processes that are to blame and what is wrong with each; watches their signs of life.

        It gives its own signs meanwhile, as the others may be watching, too. Who has left already
        knows whom to blame.
        """
        try:
            before = self._states()
            until = time.monotonic() + patience
            states = before
            while time.monotonic() < until:
                time.sleep(self.beat)
                self._publish()
                states = self._states()
                if any(state["failed"] or state["left"] for state in states.values()):
                    break
        except (dist.DistError, RuntimeError):
            return [(0, "the store is gone, and its process with it")]
        failed = [(r, f"failed: {s['failed']}") for r, s in states.items() if s["failed"]]
        if failed:
            return failed
        told = [state["left"] for state in states.values() if state["left"]]
        if told:
            return [(rank, what) for rank, what in json.loads(told[0])]
        where = {r: f"step {s['step']}, {s['stage']}" for r, s in states.items()}
        dead = [
            (r, f"gives no sign of life; last seen in {where[r]}")
            for r, s in states.items()
            if s["beat"] == before[r]["beat"]
        ]
        if dead:
            return dead
        waited = time.monotonic() - self.progress.since
        here = f"step {self.progress.step}, {self.progress.stage}"
        return [
            (r, f"is still in {where[r]}, after {waited:.0f} s of waiting for it in {here}")
            for r in self._behind(states)
        ]

    def _leave(self, missing: list[tuple[int, str]]) -> None:
        """Say who is missing, if no other process has said it, and end this process."""
        with self._saying:
            size = self.processes.world.size
            if self._first(missing):
                blame = "; ".join(f"process {r} of {size} {what}" for r, what in missing)
                said = f"paravt: stopped: {blame or 'SIGTERM'}"
                print(f"{said}. {self.advice()}".rstrip(), file=sys.stderr, flush=True)
            sys.stdout.flush()
            if self.processes.world.rank == 0:
                self._linger()
            os._exit(EXIT)

    def _first(self, missing: list[tuple[int, str]]) -> bool:
        """Whether this process is the first to leave, and so the one that says why.

        Without a store, the lowest of those that are left.
        """
        try:
            self._left = json.dumps(missing)
            self._publish()
            return int(self._store.add(f"{self._prefix}/said", 1)) == 1
        except (dist.DistError, RuntimeError):
            gone = {rank for rank, _ in missing}
            return all(lower in gone for lower in range(self.processes.world.rank))

    def _linger(self) -> None:
        """Process 0 may host the store: it gives the others time to read why it leaves."""
        until = time.monotonic() + 8 * self.beat
        silent: set[int] = set()
        before: dict[int, int] = {}
        while time.monotonic() < until:
            try:
                states = self._states()
            except (dist.DistError, RuntimeError):
                return
            silent = {rank for rank, state in states.items() if before.get(rank) == state["beat"]}
            if all(state["left"] or state["failed"] for rank, state in states.items()
                   if rank not in silent):  # fmt: skip
                return
            before = {rank: state["beat"] for rank, state in states.items()}
            time.sleep(2 * self.beat)


def _is_lost_contact(error: BaseException) -> bool:
    """Whether an error comes from talking to another process."""
    if isinstance(error, dist.DistError):
        return True
    words = ("gloo", "NCCL", "Connection closed", "Connection reset", "Timed out", "Broken pipe")
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)
