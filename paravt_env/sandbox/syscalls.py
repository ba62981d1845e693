"""Which system calls code may not make: a seccomp filter, written out as the kernel reads it.

Beside the namespaces that bubblewrap makes, for what they leave open: new processes and threads
(the limit on processes binds no user whose id is 0), sockets, memory outside the process's own
(shared memory, anonymous files), other processes (sessions are forks of one server and share its
namespaces), and doors into the kernel that numpy and PIL never need. The server itself runs under
the same filter without what it needs to fork and to end sessions. Numbers are those of the kernel's
tables for the two architectures that the project runs on. Seen by both sides of the wall, so it
imports the standard library alone. Tests: `pytest tests/sandbox/test_syscalls.py`.
"""

from __future__ import annotations

import errno
import struct

# linux/audit.h: the machine with the bits "64" and "little endian"
X86_64, AARCH64 = 0xC000003E, 0xC00000B7

DENIED: dict[str, tuple[int | None, int | None]] = {
    # processes and threads; a process of one's own cannot be watched or written to
    "clone": (56, 220),
    "fork": (57, None),
    "vfork": (58, None),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    # what one process may do to another of the same user, whose number it guesses
    "kill": (62, 129),
    "tkill": (200, 130),
    "tgkill": (234, 131),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "pidfd_open": (434, 434),
    "pidfd_send_signal": (424, 424),
    "pidfd_getfd": (438, 438),
    "prlimit64": (302, 261),
    "setpriority": (141, 140),
    "ioprio_set": (251, 30),
    "sched_setparam": (142, 118),
    "sched_setscheduler": (144, 119),
    "sched_setaffinity": (203, 122),
    "sched_setattr": (314, 274),
    "migrate_pages": (256, 238),
    "move_pages": (279, 239),
    "process_madvise": (440, 440),
    "process_mrelease": (448, 448),
    "kcmp": (312, 272),
    # the network
    "socket": (41, 198),
    "socketpair": (53, 199),
    # memory that no limit on a process counts
    "shmget": (29, 194),
    "msgget": (68, 186),
    "semget": (64, 190),
    "mq_open": (240, 180),
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    # file systems and namespaces
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "unshare": (272, 97),
    "setns": (308, 268),
    "open_by_handle_at": (304, 265),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    # parts of the kernel that need no file
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "kexec_load": (246, 104),
    "personality": (135, 92),
}
"""Number of each call on x86-64 and on 64-bit ARM; None where there is no such call."""

DENIED_WITH: dict[str, tuple[tuple[int, int], tuple[int, ...]]] = {
    "fcntl": ((72, 25), (8, 10, 15)),  # F_SETOWN, F_SETSIG, F_SETOWN_EX
    "ioctl": ((16, 29), (0x8901, 0x8902)),  # FIOSETOWN, SIOCSPGRP
}
"""Calls that are refused with some second arguments: they let the kernel send a signal."""

SERVER_MAY = frozenset({"clone", "fork", "vfork", "kill", "prlimit64"})
"""What the fork server does, or a session before it locks itself in, and code may not."""

CLONE3 = 435
"""On both: answered as "no such call", so that the C library asks for `clone` instead."""

_MACHINES = {"x86_64": (0, X86_64), "aarch64": (1, AARCH64)}

# linux/bpf_common.h and linux/seccomp.h
_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_NUMBER, _ARCHITECTURE, _SECOND = 0, 4, 24  # offsets in struct seccomp_data; low half of args[1]
_X32 = 0x40000000
"""Numbers from here on are those of x86-64's second table, which has the same calls again."""


def known_machine(machine: str) -> bool:
    """Whether there is a filter for a machine, named as `platform.machine()` does."""
    return machine in _MACHINES


def seccomp_filter(machine: str, server: bool = False) -> bytes:
    """The filter as `struct sock_filter`s, in the form that `bwrap --seccomp` reads.

    Every call of `DENIED` gives EPERM, and so do those of `DENIED_WITH` with the arguments there;
    `clone3` gives ENOSYS, a call of another architecture's table ends the process; all others are
    allowed.

    Args:
        machine: As `platform.machine()` names it.
        server: Whether it is the fork server's, which may do what is in `SERVER_MAY`.

    Raises:
        KeyError: There is no filter for it (`known_machine`).
    """
    column, audit = _MACHINES[machine]
    listed = [row[column] for name, row in DENIED.items() if not (server and name in SERVER_MAY)]
    numbers = sorted(number for number in listed if number is not None)
    refused = (_RETURN, 0, 0, _ERRNO | errno.EPERM)
    lines = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_EQUAL, 1, 0, audit),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER),
        (_AT_LEAST, 0, 1, _X32),
        (_RETURN, 0, 0, _KILL),
        (_EQUAL, 0, 1, CLONE3),
        (_RETURN, 0, 0, _ERRNO | errno.ENOSYS),
    ]
    for number in numbers:
        lines += [(_EQUAL, 0, 1, number), refused]
    for columns, values in DENIED_WITH.values():
        lines += [(_EQUAL, 0, 2 + 2 * len(values), columns[column]), (_LOAD, 0, 0, _SECOND)]
        for value in values:
            lines += [(_EQUAL, 0, 1, value), refused]
        lines.append((_RETURN, 0, 0, _ALLOW))
    lines.append((_RETURN, 0, 0, _ALLOW))
    return b"".join(struct.pack("<HBBI", *line) for line in lines)
