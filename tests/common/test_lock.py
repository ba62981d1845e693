"""Locks: one writer, who is named; none is left behind by a killed process."""

import errno
import fcntl
import os
import signal
import subprocess
import sys

import pytest

from train.common.errors import ConfigError
from train.common.lock import FILE, folder_lock, take

HOLDS = """
import sys, time
from pathlib import Path
from train.common.lock import folder_lock
with folder_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock of `tmp_path`."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_a_folder_in_use_is_refused_and_the_other_process_named(holder, tmp_path):
    with pytest.raises(ConfigError, match=rf"is in use by process {holder.pid} on .*--run\.name"):
        folder_lock(tmp_path).__enter__()
    assert (tmp_path / FILE).exists()


def test_a_killed_process_leaves_no_lock(holder, tmp_path):
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    with folder_lock(tmp_path):
        assert (tmp_path / FILE).read_text().startswith(f"process {os.getpid()} on ")
    assert not (tmp_path / FILE).exists()


def test_a_folder_is_made_and_may_be_locked_twice_by_one_process(tmp_path):
    folder = tmp_path / "new"
    with folder_lock(folder):
        with folder_lock(tmp_path / "." / "new"):
            pass
        code = f"from pathlib import Path\nwith folder_lock(Path({str(folder)!r})): pass"
        code = f"from train.common.lock import folder_lock\n{code}"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert "is in use by" in done.stderr
    with folder_lock(folder):
        pass
    assert list(folder.iterdir()) == []


def test_a_lock_of_a_file_that_was_removed_meanwhile_is_no_lock(tmp_path, monkeypatch):
    """Whoever opened the file before its owner removed it would else hold a lock of nothing."""
    lock, seen = fcntl.flock, []

    def removed_first(handle, how):
        if not seen:
            (tmp_path / FILE).unlink()
        seen.append(handle)
        lock(handle, how)

    monkeypatch.setattr(fcntl, "flock", removed_first)
    with folder_lock(tmp_path):
        assert (tmp_path / FILE).exists()
    assert len(seen) == 2


def test_a_file_system_without_locks_is_told(tmp_path, monkeypatch, capsys):
    def fail(code):
        def flock(handle, how):
            raise OSError(code, os.strerror(code))

        monkeypatch.setattr(fcntl, "flock", flock)

    fail(errno.ENOLCK)
    assert take(0, tmp_path)
    assert capsys.readouterr().out.count("has no locks: see to it yourself") == 1
    fail(errno.EIO)
    with pytest.raises(OSError, match="Input/output"):
        take(0, tmp_path)


def test_waiting_ends_with_the_other_process(tmp_path):
    code = (
        "import os, sys, time\nfrom pathlib import Path\nfrom train.common.lock import take\n"
        "path, over = map(Path, sys.argv[1:])\n"
        "assert take(os.open(path, os.O_RDWR | os.O_CREAT), path)\n"
        "print('held', flush=True)\nsys.stdin.readline()\ntime.sleep(0.2)\nover.touch()"
    )
    path = tmp_path / "x.lock"
    over = tmp_path / "over"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path), str(over)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout.readline() == "held\n"
        with path.open("a") as file:
            assert not take(file.fileno(), path)
            process.stdin.write("\n")
            process.stdin.flush()
            assert take(file.fileno(), path, wait=True)
            assert over.exists()
