"""The fork server, from outside: one locked-in process that has imported what code needs.

Between `isolation.py`, which says how it is locked in, and `process.py`, whose workers it forks in
milliseconds. It runs no code of a model, so what it says is believed; what its forks say is not.
Inside is `guest_server.py`. Tests: `pytest tests/sandbox/test_forks.py`.
"""

from __future__ import annotations

import os
import socket
import subprocess
import threading
import weakref
from contextlib import suppress

from paravt_env.sandbox.guest_server import END, FORK, PACKET, READY
from paravt_env.sandbox.isolation import filter_pipe, server_command
from paravt_env.sandbox.limits import SandboxError

STARTING = 60.0
"""Seconds that the server, or a session of it, may take to start."""

ENDING = 10.0
"""Seconds after which a server that does not end a session is ended with all its sessions."""


class ForkServer:
    """A process in a sandbox that forks sessions and ends them; safe from any thread.

    Starting returns at once. It dies with the thread that starts it, and all its sessions with it.

    Raises:
        SandboxError: bubblewrap is gone.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ready = False
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        descriptor = filter_pipe()
        try:
            with theirs:
                self._process = subprocess.Popen(
                    server_command(descriptor),
                    stdin=theirs.fileno(),
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    pass_fds=[descriptor],
                    env={},
                )
        except OSError as error:
            self._control.close()
            raise SandboxError(f"a sandbox cannot be started: {error}") from error
        finally:
            os.close(descriptor)
        self._finalizer = weakref.finalize(self, _end, self._process, self._control, os.getpid())

    @property
    def alive(self) -> bool:
        """Whether it can fork."""
        return self._process.poll() is None and self._control.fileno() >= 0

    def fork(self) -> tuple[socket.socket, int]:
        """A session: the link to it, and its number, as the server counts processes.

        Raises:
            SandboxError: The server is gone, or was never there.
        """
        ours, theirs = socket.socketpair()
        try:
            with theirs, self._lock:
                if not self._ready:
                    self._ready = self._heard(STARTING) == READY
                socket.send_fds(self._control, [FORK], [theirs.fileno()])
                return ours, int(self._heard(STARTING))
        except (OSError, ValueError) as error:
            ours.close()
            code = self._process.poll()
            self.kill()
            raise SandboxError(
                f"a sandbox did not start (status {code}): {error or 'it took too long'}"
            ) from None

    def end(self, number: int) -> None:
        """End a session at once; one that cannot be ended takes the server with it."""
        try:
            with self._lock:
                self._control.send(b"%b %d" % (END, number))
                self._heard(ENDING)
        except OSError:
            self.kill()

    def kill(self) -> None:
        """End it at once, and with it everything in its process namespace."""
        self._finalizer()

    def _heard(self, seconds: float) -> bytes:
        """The server's next packet; one is due.

        Raises:
            OSError: It is gone, or takes longer.
        """
        self._control.settimeout(seconds)
        packet = self._control.recv(PACKET)
        if not packet:
            raise OSError("it ended")
        return packet


def _end(process: subprocess.Popen, control: socket.socket, owner: int) -> None:
    if os.getpid() != owner:
        return  # a fork has a copy of the server: it is its parent's
    process.kill()
    with suppress(OSError):
        control.shutdown(socket.SHUT_RDWR)
    control.close()
    process.wait()
