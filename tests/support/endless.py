"""A guard against work that grows with the square of its input and seems never to end."""

import signal
from contextlib import contextmanager

LONG = 300
"""Seconds. Linear work on these inputs takes less than one, quadratic work more than an hour."""


@contextmanager
def ends():
    """Fail when what is inside has not ended after `LONG`; how fast it is does not matter."""

    def give_up(number, frame):
        raise AssertionError(f"not ended after {LONG} s: the time grows faster than the input")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(LONG)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
