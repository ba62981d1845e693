"""Every guard of the sandbox, each with a harmless probe, and what a run brings."""

from __future__ import annotations

import platform
import subprocess
import time

import numpy as np
import pytest
from support.sandboxes import TinyMedia, needs_sandbox

from paravt_env.sandbox import isolation
from paravt_env.sandbox.limits import CodeLimits, CodeStatus, SandboxError
from paravt_env.sandbox.pool import SandboxPool

LIMITS = CodeLimits(seconds=20.0, memory=512, characters=300, pictures=3, size=(4, 8), frames=8)


@pytest.fixture(scope="module")
def pool():
    made = SandboxPool(LIMITS, spare=2, parallel=3)
    yield made
    made.close()


@pytest.fixture
def session(pool):
    made = pool.session(TinyMedia())
    yield made
    made.close()


@needs_sandbox
def test_text_comes_back_and_a_last_line_is_shown_as_in_a_notebook(session):
    reply = session.run("a = 6\nprint('seven')\na * 7")
    assert (reply.status, reply.text) == (CodeStatus.ok, "seven\n42")


@needs_sandbox
def test_a_session_lasts_and_the_next_one_starts_from_nothing(pool, session):
    assert session.run("kept = 5").status == "ok"
    assert session.run("kept").text == "5"
    other = pool.session(TinyMedia())
    reply = other.run("kept")
    other.close()
    assert reply.status == "code_error" and "NameError" in reply.text


@needs_sandbox
def test_nothing_of_an_episode_is_left_in_modules_or_on_disk(pool):
    first, second = pool.session(TinyMedia()), pool.session(TinyMedia())
    assert first.run("import math; math.pi = 3; Image.kept = 1").status == "ok"
    first.close()
    assert second.run("import math; print(math.pi, hasattr(Image, 'kept'))").text == (
        "3.141592653589793 False"
    )
    second.close()


@needs_sandbox
def test_frames_come_with_their_moments_and_are_counted(session):
    reply = session.run("show(video.frames(2, 4, 3))\nprint(video.duration)")
    assert (reply.status, reply.text, reply.calls) == ("ok", "10.0", 1)
    assert reply.times.tolist() == [2.0, 3.0, 4.0] and reply.asked == ((2.0, 4.0),)
    assert reply.pictures.shape == (3, 4, 8, 3)
    assert reply.pictures[:, 0, 0, 0].tolist() == [2, 3, 4]


@needs_sandbox
def test_a_crop_is_shown_as_large_as_it_fits_in_its_own_proportions(session):
    reply = session.run("images[0].crop((4, 3, 7, 6))")  # 3 x 3 pixels into 8 x 4: 4 x 4, centred
    assert reply.status == "ok" and np.isnan(reply.times).all()
    (picture,) = reply.pictures
    assert picture[0, 2].tolist() == [200, 100, 0] and picture[3, 5].tolist() == [200, 100, 0]
    assert picture[:, :2].max() == 0 and picture[:, 6:].max() == 0


@needs_sandbox
def test_arrays_and_numpy(session):
    reply = session.run("a = np.asarray(images[0]); print(a.shape, a[0, 0]); show(a)")
    assert reply.text == "(6, 8, 3) [200   0   0]" and len(reply.pictures) == 1


@needs_sandbox
def test_a_mistake_says_its_line_and_no_path_of_the_machine(session):
    reply = session.run("x = 1\nvideo.frames(9, 3, 2)")
    assert reply.status == "code_error"
    assert reply.text.splitlines()[0] == 'File "<code>", line 2, in <module>'
    assert reply.text.splitlines()[-1] == "MediaError: no such seconds"
    assert session.run("def f(:").text.endswith("SyntaxError: invalid syntax")


PROBES = {
    "open('/etc/passwd').read()": "denied",
    "open('/work.txt', 'w')": "denied",
    "open('/packages/numpy/x', 'w')": "denied",
    "import os; os.listdir('/proc')": "denied",
    "import os; os.listdir('/home')": "denied",
    "import socket; socket.create_connection(('127.0.0.1', 80), 1)": "denied",
    "import socket; socket.socketpair()": "denied",
    "import os\nwhile True:\n    os.fork()": "denied",
    "import subprocess; subprocess.run(['sh', '-c', 'true'])": "denied",
    "import mmap; mmap.mmap(-1, 1 << 31)": "denied",
    "a = bytearray(1 << 31)": "out_of_memory",
    "a = []\nwhile True:\n    a.append(bytearray(1 << 24))": "out_of_memory",
    "print('x' * 2**20)": "output_limit",
    "while True:\n    show(images[0])": "output_limit",
    "import os; os._exit(3)": "crashed",
    "import os; os.write(0, b'{' * 4096)": "crashed",
    "import sys; sys.exit(3)": "code_error",
    "import threading; threading.Thread(target=print).start()": "code_error",
    "video.frames(0, 1, 9)": "code_error",
    "images[1]": "code_error",
}


@needs_sandbox
@pytest.mark.parametrize("code", PROBES)
def test_each_guard_is_a_status(pool, session, code):
    assert session.run(code).status == PROBES[code]
    assert session.run("print(1)").text == "1"  # the episode goes on


@needs_sandbox
def test_no_variable_of_ours_is_seen(monkeypatch, pool):
    monkeypatch.setenv("PARAVT_SECRET", "swordfish")
    late = SandboxPool(LIMITS, spare=0)
    session = late.session(TinyMedia())
    reply = session.run("import os; sorted(os.environ)")
    session.close(), late.close()
    assert reply.status == "ok" and "OMP_NUM_THREADS" in reply.text
    assert "PARAVT" not in reply.text and "'HOME'" not in reply.text


@needs_sandbox
def test_the_deadline_kills_and_the_other_rows_go_on():
    short = SandboxPool(CodeLimits(seconds=6.0, size=(4, 8)), spare=2, parallel=3)
    rows = [short.session(TinyMedia()) for _ in range(3)]
    stuck = "import time\ntime.sleep(600)"
    busy = "while 1:\n    try:\n        print('x' * 2**20)\n    except BaseException:\n        pass"
    replies = short.run_all(list(zip(rows, (stuck, busy, "print('fine')"), strict=True)))
    assert [str(reply.status) for reply in replies] == ["timeout", "timeout", "ok"]
    assert replies[2].text == "fine" and "longer than 6 s" in replies[0].text
    assert [row.lost for row in rows] == [1, 1, 0]
    assert short.counts == {"timeout": 2, "ok": 1}
    for row in rows:
        row.close()
    short.close()


@needs_sandbox
def test_time_that_media_take_is_not_the_codes():
    class Slow(TinyMedia):
        def frames(self, start, end, count):
            time.sleep(6.5)
            return super().frames(start, end, count)

    pool = SandboxPool(CodeLimits(seconds=6.0, size=(4, 8)), spare=1)
    session = pool.session(Slow())
    reply = session.run("len(video.frames(0, 1, 2))")
    session.close(), pool.close()
    assert (reply.status, reply.text) == ("ok", "2")


@needs_sandbox
def test_a_closed_pool_leaves_no_process():
    pool = SandboxPool(LIMITS, spare=1)
    session = pool.session(TinyMedia())
    assert session.run("1").status == "ok"
    process = pool._server._process
    session.close(), pool.close()
    assert process.poll() is not None
    with pytest.raises(RuntimeError, match="closed"):
        pool.take()


def test_without_bubblewrap_nothing_starts(monkeypatch):
    isolation.check.cache_clear()
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SandboxError, match=r"code needs bubblewrap.*never runs without"):
        SandboxPool(LIMITS)
    isolation.check.cache_clear()


def test_bubblewrap_that_may_not_make_namespaces_is_refused_in_one_line(monkeypatch, tmp_path):
    fake = tmp_path / "bwrap"
    fake.write_text("#!/bin/sh\necho 'No permissions to create new namespace' >&2\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    isolation.check.cache_clear()
    with pytest.raises(SandboxError, match="No permissions to create new namespace") as caught:
        SandboxPool(LIMITS)
    assert "\n" not in str(caught.value)
    isolation.check.cache_clear()


def test_another_machine_is_refused(monkeypatch):
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    isolation.check.cache_clear()
    with pytest.raises(SandboxError, match="riscv64"):
        isolation.check()
    isolation.check.cache_clear()


def test_the_command_shares_nothing_and_writes_nowhere(monkeypatch):
    monkeypatch.setattr(isolation, "_bwrap", lambda: "bwrap")
    words = isolation.command(["/python/bin/python"], 7)
    for needed in ("--unshare-all", "--die-with-parent", "--new-session", "--clearenv"):
        assert needed in words
    assert words[words.index("--remount-ro") + 1] and words[words.index("--seccomp") + 1] == "7"
    assert not {"--bind", "--dev-bind", "--dev", "--proc", "--share-net"} & {*words}


@needs_sandbox
def test_the_filter_is_what_stops_a_user_whose_id_is_0():
    done = subprocess.run(["id", "-u"], capture_output=True, text=True, check=True)
    if done.stdout.strip() != "0":
        pytest.skip("not run as the user 0")
    pool = SandboxPool(LIMITS, spare=0)
    session = pool.session(TinyMedia())
    reply = session.run("import os; print(os.getuid()); os.fork()")
    session.close(), pool.close()
    assert reply.status == "denied" and reply.text.startswith("65534\n")
