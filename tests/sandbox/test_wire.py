"""What comes out of a sandbox is hostile: sizes, kinds and lies, without a sandbox."""

from __future__ import annotations

import socket
import struct
import time

import numpy as np
import pytest
from support.sandboxes import TinyMedia

from paravt_env.sandbox.limits import CodeLimits
from paravt_env.sandbox.process import Refusal, Worker
from paravt_env.sandbox.wire import WireError, receive, send


@pytest.fixture
def link():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def test_a_message_with_bytes_comes_whole(link):
    send(link[0], {"a": [1, 2.5]}, np.arange(6, dtype=np.uint8).reshape(2, 3))
    message, raw = receive(link[1], 6)
    assert message == {"a": [1, 2.5]} and raw == bytes(range(6))


@pytest.mark.parametrize(
    "data",
    [
        struct.pack("<IQ", 2, 7) + b"{}",  # more bytes than are taken
        struct.pack("<IQ", 2**31, 0),  # more JSON than is ever taken
        struct.pack("<IQ", 2, 0) + b"[]",  # no object
        struct.pack("<IQ", 3, 0) + b"{]}",  # no JSON
        struct.pack("<IQ", 100_000, 0) + b"[" * 100_000,  # nested too deeply
    ],
)
def test_what_is_no_message_is_refused(link, data):
    link[0].sendall(data)
    with pytest.raises(WireError):
        receive(link[1], 6, time.monotonic() + 10)


def test_the_end_of_the_link_and_the_deadline(link):
    with pytest.raises(TimeoutError):
        receive(link[1], 0, time.monotonic() - 1)
    link[0].close()
    with pytest.raises(WireError, match="gone"):
        receive(link[1], 0)


def a_worker(limits: CodeLimits) -> Worker:
    """A worker's bookkeeping, without a process."""
    worker = Worker.__new__(Worker)
    worker._limits = limits
    return worker


SMALL = CodeLimits(characters=5, pictures=2, size=(1, 2), frames=4)


def test_a_reply_is_cut_to_its_limits():
    told = {"done": "ok", "text": "1234567\n", "error": "abcdefg", "times": [1.5, None]}
    reply = a_worker(SMALL)._reply(told, bytearray(range(12)), [], 0)
    assert reply.text == "12345\ncdefg"
    assert reply.pictures.tolist() == [[[[0, 1, 2], [3, 4, 5]]], [[[6, 7, 8], [9, 10, 11]]]]
    assert reply.times[0] == 1.5 and np.isnan(reply.times[1])


@pytest.mark.parametrize(
    ("told", "size"),
    [
        ({"done": "splendid", "text": "", "error": "", "times": []}, 0),
        ({"done": "ok", "text": 5, "error": "", "times": []}, 0),
        ({"done": "ok", "text": "", "error": None, "times": []}, 0),
        ({"done": "ok", "text": "", "error": "", "times": {}}, 0),
        ({"done": "ok", "text": "", "error": "", "times": [1.0]}, 5),
        ({"done": "ok", "text": "", "error": "", "times": [1.0] * 3}, 18),
    ],
)
def test_a_lie_is_no_reply(told, size):
    with pytest.raises(WireError):
        a_worker(SMALL)._reply(told, bytearray(size), [], 0)


def test_moments_that_a_worker_makes_up_are_none():
    told = {"done": "ok", "text": "", "error": "", "times": ["x", -1.0]}
    assert np.isnan(a_worker(SMALL)._reply(told, bytearray(12), [], 0).times).all()


@pytest.mark.parametrize(
    "question",
    [
        {"ask": "frames", "start": "0", "end": 1.0, "n": 2},
        {"ask": "frames", "start": 0.0, "end": 1.0, "n": 5},
        {"ask": "frames", "start": 0.0, "end": 1.0, "n": 0},
        {"ask": "frames", "start": 0.0, "end": 1.0, "n": 2.0},
        {"ask": "frames"},
        {"ask": "image", "index": True},
    ],
)
def test_what_cannot_be_asked_is_refused(question):
    answer, raw = a_worker(SMALL)._answer(question, TinyMedia(), [], 4)
    assert "refused" in answer and raw == b""


def test_only_two_things_can_be_asked():
    with pytest.raises(WireError):
        a_worker(SMALL)._answer({"ask": "password"}, TinyMedia(), [], 4)


def test_a_refusal_says_why():
    with pytest.raises(Refusal, match="no such seconds"):
        TinyMedia().frames(3.0, 2.0, 1)
