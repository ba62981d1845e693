"""Sessions are forks of one server: what one of them does reaches neither it nor another one."""

from __future__ import annotations

import os

import pytest
from support.endless import ends
from support.sandboxes import TinyMedia, needs_sandbox

from paravt_env.sandbox.limits import CodeLimits, SandboxError
from paravt_env.sandbox.pool import SandboxPool
from paravt_env.sandbox.server import ForkServer, _end

LIMITS = CodeLimits(seconds=20.0, memory=512, characters=300, pictures=3, size=(4, 8), frames=8)

pytestmark = needs_sandbox


@pytest.fixture(scope="module")
def pool():
    made = SandboxPool(LIMITS, spare=2, parallel=2)
    yield made
    made.close()


@pytest.fixture
def two(pool):
    sessions = pool.session(TinyMedia()), pool.session(TinyMedia())
    yield sessions
    for one in sessions:
        one.close()


KILLS = """
import ctypes, os
libc, hit = ctypes.CDLL(None), []
kill = 62 if os.uname().machine == "x86_64" else 129
for number in [*range(-1, 200)]:
    if number == os.getpid():
        continue
    for act in (lambda: os.kill(number, 9), lambda: os.pidfd_open(number)):
        try:
            act()
            hit.append(number)
        except PermissionError:
            pass
    if libc.syscall(kill, number, 9) != -1:
        hit.append(number)
print(hit)
"""


def test_a_session_can_signal_no_process(pool, two):
    one, other = two
    assert other.run("kept = 7").text == ""
    assert one.run(KILLS).text == "[]"
    assert other.run("kept").text == "7"  # it lives, and so does the server: another one starts
    third = pool.session(TinyMedia())
    assert third.run("1").text == "1"
    third.close()


REACHES = {
    "import fcntl; fcntl.fcntl(0, fcntl.F_SETOWN, 2)": "denied",  # the kernel would send SIGIO
    "import fcntl; fcntl.fcntl(0, 10, 9)": "denied",  # F_SETSIG: another signal in its place
    "import fcntl; fcntl.ioctl(0, 0x8901, b'\\2\\0\\0\\0')": "denied",  # FIOSETOWN
    "import resource; resource.prlimit(2, resource.RLIMIT_CPU, (1, 1))": "denied",
    "import os; os.setpriority(os.PRIO_PROCESS, 2, 19)": "denied",
    "import os; os.sched_setaffinity(2, {0})": "denied",
    "import fcntl; fcntl.fcntl(0, fcntl.F_GETFD)": "ok",  # other arguments are no matter
    "import os; os.abort()": "crashed",
}


@pytest.mark.parametrize("code", REACHES)
def test_a_session_changes_no_other_process(two, code):
    one, other = two
    assert other.run("kept = 1").status == "ok"
    assert one.run(code).status == REACHES[code]
    assert other.run("kept").text == "1"


def test_a_session_holds_its_own_link_and_no_other(two):
    two[1].run("1")
    held = (
        "import os\nfound = []\nfor number in range(4096):\n    try:\n        os.fstat(number)\n"
        "        found.append(number)\n    except OSError:\n        pass\nprint(found)"
    )
    assert two[0].run(held).text == "[0, 1, 2]"


def test_what_one_session_changes_in_a_library_no_other_sees(two):
    one, other = two
    changed = "np.kept = 1; np.random.rand = None; import sys; sys.modules['json'] = None; np.kept"
    assert one.run(changed).text == "1"
    assert other.run("import json; print(hasattr(np, 'kept'), np.random.rand is None)").text == (
        "False False"
    )


def test_sessions_draw_numbers_of_their_own(two):
    drawn = "import random; (random.getrandbits(64), int(np.random.randint(2**62)))"
    (first, second), (third, fourth) = (eval(one.run(drawn).text) for one in two)
    assert first != third and second != fourth


def test_a_server_that_is_gone_costs_its_sessions_and_no_more():
    pool = SandboxPool(LIMITS, spare=1)
    session = pool.session(TinyMedia())
    assert session.run("kept = 1").status == "ok"
    pool._server._process.kill()
    pool._server._process.wait()
    with ends():  # the kernel ends its children, and what they started, a moment later
        while (reply := session.run("kept")).status == "ok":
            pass
    assert reply.status == "crashed" and "names that were set are gone" in reply.text
    assert session.run("print(2)").text == "2"
    session.close(), pool.close()


def test_a_server_ends_what_it_forked():
    server = ForkServer()
    link, number = server.fork()
    with link:
        link.settimeout(60)
        assert link.recv(1)  # it is ready
        server.end(number)
        while link.recv(4096):
            pass
    assert server.alive
    server.kill()
    assert not server.alive
    with pytest.raises(SandboxError, match="did not start"):
        server.fork()


def test_a_forked_process_of_ours_leaves_the_server_alone(monkeypatch):
    server = ForkServer()
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: -1)  # a fork's copy: its parent's server goes on
        server.kill()
    assert server.alive
    _end(server._process, server._control, os.getpid())
    assert not server.alive
