"""The seccomp filter, run here as the kernel runs it: which call gives what."""

from __future__ import annotations

import errno
import struct

import pytest

from paravt_env.sandbox.syscalls import AARCH64, X86_64, seccomp_filter

ALLOWED, KILLED = 0x7FFF0000, 0x80000000
REFUSED, NO_SUCH_CALL = 0x00050000 + errno.EPERM, 0x00050000 + errno.ENOSYS


def verdict(
    machine: str, architecture: int, number: int, second: int = 0, server: bool = False
) -> int:
    """Run the program over a call and its second argument as classic BPF."""
    program = seccomp_filter(machine, server)
    lines = [struct.unpack_from("<HBBI", program, at) for at in range(0, len(program), 8)]
    data, at, accumulator = {0: number, 4: architecture, 24: second}, 0, 0
    while True:
        code, true, false, value = lines[at]
        at += 1
        if code == 0x20:
            accumulator = data[value]
        elif code == 0x06:
            return value
        else:
            holds = accumulator == value if code == 0x15 else accumulator >= value
            at += true if holds else false


@pytest.mark.parametrize("number", [57, 58, 56, 41, 53, 101, 29, 319, 165, 272, 321])
def test_refused_on_x86_64(number):  # fork, vfork, clone, socket, socketpair, ptrace, shmget, ...
    assert verdict("x86_64", X86_64, number) == REFUSED


@pytest.mark.parametrize("number", [220, 198, 199, 117, 194, 279, 40, 97, 280])
def test_refused_on_64_bit_arm(number):
    assert verdict("aarch64", AARCH64, number) == REFUSED


@pytest.mark.parametrize("number", [0, 1, 9, 12, 59, 231, 257])
def test_reading_memory_and_the_start_of_python_are_allowed(number):
    assert verdict("x86_64", X86_64, number) == ALLOWED


@pytest.mark.parametrize("number", [62, 200, 234, 129, 297, 434, 424, 302, 141, 203])
def test_other_processes_are_out_of_reach(number):  # kill, tkill, tgkill, ..., prlimit64, ...
    assert verdict("x86_64", X86_64, number) == REFUSED


@pytest.mark.parametrize(("machine", "architecture", "fcntl", "ioctl"), [
    ("x86_64", X86_64, 72, 16), ("aarch64", AARCH64, 25, 29),
])  # fmt: skip
def test_what_makes_the_kernel_send_signals_is_refused(machine, architecture, fcntl, ioctl):
    assert [verdict(machine, architecture, fcntl, one) for one in (8, 10, 15)] == [REFUSED] * 3
    assert [verdict(machine, architecture, fcntl, one) for one in (1, 9, 11)] == [ALLOWED] * 3
    assert [verdict(machine, architecture, ioctl, one) for one in (0x8901, 0x8902)] == [REFUSED] * 2
    assert verdict(machine, architecture, ioctl, 0x5413) == ALLOWED  # a window's size


def test_the_server_may_fork_and_end_and_nothing_else():
    allowed = [n for n in range(450) if verdict("x86_64", X86_64, n, server=True) == ALLOWED]
    code = [n for n in range(450) if verdict("x86_64", X86_64, n) == ALLOWED]
    assert {*allowed} - {*code} == {56, 57, 58, 62, 302}
    assert {*code} <= {*allowed}


def test_clone3_looks_as_if_the_kernel_were_older():
    assert verdict("x86_64", X86_64, 435) == NO_SUCH_CALL
    assert verdict("aarch64", AARCH64, 435) == NO_SUCH_CALL


def test_another_table_of_calls_ends_the_process():
    assert verdict("x86_64", 0x40000003, 1) == KILLED  # 32 bit
    assert verdict("x86_64", X86_64, 0x40000000 + 57) == KILLED  # x32
    assert verdict("aarch64", X86_64, 1) == KILLED
