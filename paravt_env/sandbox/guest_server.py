"""The fork server inside the sandbox: it imports what code needs once, and forks every session.

Started by `isolation.server_command`; told what to do by `server.py` outside. It runs no code of a
model itself. A session is a fork that has let go of the server's link, locked itself in with the
rest of the system calls refused (`syscalls.py`) and then runs `guest.main`; it shares no writable
memory with the server or another session, and may neither signal nor trace them. Tests: `pytest
tests/sandbox/test_forks.py`.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import os
import signal
import socket
import sys

from paravt_env.sandbox import guest
from paravt_env.sandbox.syscalls import seccomp_filter

WARM = ("numpy", "numpy.random", "PIL.Image", "PIL.ImageDraw", "PIL.ImageOps")
"""Imported before the first session."""

READY, FORK, END = b"ready", b"fork", b"end"
"""Words of the link: the server's first, and what it is told; a packet each."""

PACKET = 64
"""Bytes of the longest packet."""

_OPEN_FILES = 4096
"""Descriptors below this number are closed in a session, but for its own link."""

_NO_NEW_PRIVILEGES, _SECCOMP, _FILTER = 38, 22, 2  # linux/prctl.h, linux/seccomp.h


class _Program(ctypes.Structure):
    """`struct sock_fprog`."""

    _fields_ = (("length", ctypes.c_ushort), ("lines", ctypes.c_void_p))


def lock_in(lines: bytes) -> None:
    """Put this process under one more seccomp filter, for ever.

    Raises:
        OSError: The kernel does not take it.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    kept = ctypes.create_string_buffer(lines, len(lines))
    program = _Program(len(lines) // 8, ctypes.addressof(kept))
    zero = ctypes.c_ulong(0)
    for call in (
        (_NO_NEW_PRIVILEGES, ctypes.c_ulong(1), zero, zero, zero),
        (_SECCOMP, ctypes.c_ulong(_FILTER), ctypes.byref(program), zero, zero),
    ):
        if libc.prctl(*call):
            raise OSError(ctypes.get_errno(), "the sandbox's filter was refused")


def session(link: int) -> None:
    """What a fork does: let go of everything of the server's, be a guest on its own link, end."""
    try:
        os.setsid()
        os.dup2(link, 0)  # the server's own link was there
        os.closerange(3, _OPEN_FILES)
        sys.modules["numpy"].random.seed()  # `random` does so itself
        guest.main(lambda: lock_in(seccomp_filter(os.uname().machine)))
    finally:
        os._exit(1)


def main() -> None:
    """Fork and end sessions as told, until the other side closes."""
    for name in WARM:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # a session's collections then leave the shared pages alone
    control = socket.socket(fileno=0)
    control.send(READY)
    while True:
        packet, links, _, _ = socket.recv_fds(control, PACKET, 1)
        if not packet:
            return
        word, _, number = packet.partition(b" ")
        if word == FORK:
            process = os.fork()
            if not process:
                session(links[0])
            os.close(links[0])
        else:
            process = int(number)
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)
        control.send(b"%d" % process)
