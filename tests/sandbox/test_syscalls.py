"""The seccomp filter, run here as the kernel runs it: which call gives what."""

from __future__ import annotations

import errno
import struct

import pytest

from paravt_env.sandbox.syscalls import AARCH64, X86_64, seccomp_filter

ALLOWED, KILLED = 0x7FFF0000, 0x80000000
REFUSED, NO_SUCH_CALL = 0x00050000 + errno.EPERM, 0x00050000 + errno.ENOSYS


def verdict(machine: str, architecture: int, number: int) -> int:
    """Run the program over (number, architecture) as classic BPF: Documentation/networking."""
    program = seccomp_filter(machine)
    lines = [struct.unpack_from("<HBBI", program, at) for at in range(0, len(program), 8)]
    data, at, accumulator = {0: number, 4: architecture}, 0, 0
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


def test_clone3_looks_as_if_the_kernel_were_older():
    assert verdict("x86_64", X86_64, 435) == NO_SUCH_CALL
    assert verdict("aarch64", AARCH64, 435) == NO_SUCH_CALL


def test_another_table_of_calls_ends_the_process():
    assert verdict("x86_64", 0x40000003, 1) == KILLED  # 32 bit
    assert verdict("x86_64", X86_64, 0x40000000 + 57) == KILLED  # x32
    assert verdict("aarch64", X86_64, 1) == KILLED
