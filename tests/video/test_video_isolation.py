"""Decoders that hang or crash: killed in their own process, and one window's error."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import weakref
from pathlib import Path

import numpy as np
import pytest
from support.videos import read_index, write_video

from paravt_env.crop import CropRequest, CropStatus
from paravt_env.episode.decode_crops import run_crops
from paravt_env.settings import EnvSettings
from paravt_env.video import FrameStore, VideoError, VideoInfo, VideoTimeoutError
from paravt_env.video.readers import isolation
from paravt_env.video.readers.backends import BACKENDS, Backend, isolated
from paravt_env.video.readers.isolation import WorkerPool

pytestmark = pytest.mark.skipif(os.name != "posix", reason="worker processes need POSIX")

SIZE = (2, 2)
SOON = 0.4
"""Seconds: past the start of a worker, which `make_store` has already paid for."""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "any.mp4"
    path.write_bytes(b"content")
    return str(path)


@pytest.fixture
def make_store(file, monkeypatch):
    monkeypatch.setitem(BACKENDS, "bad", "support.bad_readers:Reader")
    made = []

    def make(workers: int = 1) -> FrameStore:
        store = FrameStore("bad", workers=workers, isolation="process")
        made.append(store)
        store.frames(file, np.array([50.0]), SIZE)  # the first worker is up
        return store

    yield make
    for store in made:
        store.close()


def values(frames) -> list[int]:
    return frames.pixels[:, 0, 0, 0].tolist()


def pids(store: FrameStore) -> list[int]:
    return [worker._process.pid for worker in store._workers._all]


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_real_video_through_a_process_is_the_same_to_the_bit(tmp_path):
    path = str(write_video(tmp_path / "real.mp4", frames=72))
    times = np.linspace(0, 2.9, 20)
    threads, processes = FrameStore(), FrameStore(isolation="process")
    assert (threads.isolated, processes.isolated) == (False, True)
    assert processes.info(path) == threads.info(path) == VideoInfo(3.0, 24.0, 128, 64)
    ours, theirs = threads.frames(path, times, (32, 64)), processes.frames(path, times, (32, 64))
    np.testing.assert_array_equal(ours.pixels, theirs.pixels)
    np.testing.assert_array_equal(ours.timestamps, theirs.timestamps)
    assert read_index(theirs.pixels[-1]) == 69
    snapped = processes.snap(path, np.array([0.9, 2.2]), 0.3)
    assert snapped.tolist() == threads.snap(path, np.array([0.9, 2.2]), 0.3).tolist() == [1.0, 2.0]
    assert len(pids(processes)) <= 2
    threads.close(), processes.close()


def test_a_hung_decoder_is_killed_and_the_next_window_runs(make_store, file):
    store = make_store()
    (pid,) = pids(store)
    hung = store.submit(file, np.array([3.0]), SIZE, timeout=SOON)
    queued = store.submit(file, np.array([2.0]), SIZE, timeout=30.0)
    with pytest.raises(VideoTimeoutError, match="the decoder was killed"):
        hung.result()
    assert values(queued.result()) == [20]
    assert not is_running(pid)


def test_a_crash_is_one_windows_error(make_store, file):
    store = make_store()
    with pytest.raises(VideoError, match=r"the decoder crashed \(SIGABRT\) on this file") as caught:
        store.frames(file, np.array([5.0]), SIZE)
    assert caught.value.path == file
    assert values(store.frames(file, np.array([6.0]), SIZE)) == [60]


def test_the_other_frames_of_a_request_survive_a_crash(make_store, file):
    store = make_store()
    with pytest.raises(VideoError, match="SIGABRT"):
        store.frames(file, np.array([4.0, 5.0, 6.0]), SIZE)
    decoded = store.decoded
    assert values(store.frames(file, np.array([4.0, 6.0]), SIZE)) == [40, 60]
    assert store.decoded == decoded == 3


def test_the_rest_of_a_batch_of_crops_goes_on(make_store, file):
    store = make_store(workers=2)
    store.frames(file, np.array([51.0, 52.0]), SIZE)
    starts = (2.5, 1.5, 4.5, 6.5, 0.5)  # windows of a second: their middles are 3, 2, 5, 7, 1
    requests = [CropRequest(file, (s, s + 1.0), (s, s + 1.0)) for s in starts]
    results = run_crops(
        requests,
        store,
        EnvSettings(frame_size=SIZE, crop_fps=1.0, frames_per_crop=1, crop_timeout=5.0),
    )
    ok, late, error = CropStatus.ok, CropStatus.timeout, CropStatus.decode_error
    assert [r.status for r in results] == [late, ok, error, error, ok]
    assert [values(results[i].frames) for i in (1, 4)] == [[20], [10]]
    assert "crashed (SIGABRT)" in results[2].message and "damaged there" in results[3].message


@pytest.mark.parametrize("name, error", [("hangs", VideoTimeoutError), ("crashes", VideoError)])
def test_a_file_that_cannot_even_be_opened(make_store, tmp_path, file, name, error):
    store = make_store()
    bad = tmp_path / f"{name}.mp4"
    bad.write_bytes(b"content")
    with pytest.raises(error) as caught:
        store.info(str(bad), time.monotonic() + SOON)
    assert type(caught.value) is error
    assert store.info(file).duration == 100.0


def test_our_own_bug_raises_with_its_traceback(make_store, file):
    store = make_store()
    with pytest.raises(RuntimeError, match="ZeroDivisionError: a bug of ours"):
        store.frames(file, np.array([9.0]), SIZE)
    (pid,) = pids(store)  # an error is no crash: the worker lives
    assert values(store.frames(file, np.array([1.0]), SIZE)) == [10]
    assert pids(store) == [pid]


def test_a_back_end_that_is_absent_in_the_worker_says_so(file, monkeypatch):
    monkeypatch.setitem(BACKENDS, "absent", "support.bad_readers:Missing")
    store = FrameStore("absent", isolation="process")
    with pytest.raises(ImportError, match="not installed: pip install"):
        store.info(file)
    store.close()


def test_a_worker_serves_file_after_file(make_store, file):
    store = make_store()
    before = pids(store)
    for second in (20.0, 21.0, 22.0):
        store.frames(file, np.array([second]), SIZE)
    assert pids(store) == before and len(before) == 1


def test_closing_the_store_kills_a_worker_that_hangs(make_store, file):
    store = make_store()
    (pid,) = pids(store)
    hung = store.submit(file, np.array([3.0]), SIZE)  # no deadline at all
    while store._pool.idle():
        time.sleep(0.005)
    store.close()
    with pytest.raises(VideoError):
        hung.result()
    assert not is_running(pid)
    with pytest.raises(RuntimeError, match="closed"):
        store.submit(file, np.array([1.0]), SIZE)


def test_ctrl_c_does_not_reach_the_workers(make_store, file):
    store = make_store()
    (pid,) = pids(store)
    os.kill(pid, signal.SIGINT)
    assert values(store.frames(file, np.array([1.0]), SIZE)) == [10]
    assert pids(store) == [pid]


def test_a_fork_that_forgets_the_pool_leaves_its_parents_workers(make_store, file):
    store = make_store()
    (pid,) = pids(store)
    child = os.fork()
    if child == 0:
        store._workers._finalizer()  # what forgetting it, or exiting, does
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert values(store.frames(file, np.array([1.0]), SIZE)) == [10]
    assert pids(store) == [pid]


def test_a_forgotten_pool_leaves_no_process():
    pool = WorkerPool(Backend("bad", "support.bad_readers:Reader", ""))
    pool.give_back(pool.borrow())
    (worker,) = pool._all
    pid, gone = worker._process.pid, weakref.ref(pool)
    assert is_running(pid)
    del pool, worker
    assert gone() is None and not is_running(pid)


PARENT = """
import sys, threading, numpy as np
from paravt_env.video import FrameStore
from paravt_env.video.readers.backends import BACKENDS
BACKENDS["bad"] = "support.bad_readers:Reader"
store = FrameStore("bad", isolation="process", workers=1)
store.info(sys.argv[1])
store.submit(sys.argv[1], np.array([3.0]), (2, 2))
print(*(w._process.pid for w in store._workers._all), flush=True)
threading.Event().wait()
"""


def test_a_worker_that_hangs_ends_with_its_parent(file, monkeypatch):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, file], stdout=subprocess.PIPE, text=True, env=environment
    )
    with parent:
        pid = int(parent.stdout.readline())
        while not Path(file).with_suffix(".hangs").exists():
            time.sleep(0.01)
        parent.send_signal(signal.SIGKILL)  # no chance to clean up
    for _ in range(500):
        if not is_running(pid):
            return
        time.sleep(0.02)
    os.kill(pid, signal.SIGKILL)
    pytest.fail("the worker outlived its parent")


def test_which_back_ends_get_a_process():
    assert [isolated(n, "auto") for n in ("pyav", "torchcodec", "decord")] == [False, False, True]
    assert (isolated("decord", "thread"), isolated("pyav", "process")) == (False, True)
    with pytest.raises(ValueError, match="did you mean 'thread'"):
        isolated("pyav", "threads")
    with pytest.raises(ValueError, match=r"by name, can decode in a process"):
        FrameStore(lambda path: None, isolation="process")


def test_the_environments_keyword_reaches_the_store(make_env):
    env = make_env(video_isolation="process")
    observation, info = env.reset(seed=0)
    assert info["frames_seen"] == 4 and observation["frames"][0].any()
    assert env.simulation.video.store.isolated
    with pytest.raises(ValueError, match="did you mean 'thread'"):
        make_env(video_isolation="threads")


def test_a_killed_worker_is_not_given_out_again(monkeypatch):
    monkeypatch.setattr(isolation.WorkerProcess, "ask", lambda *a: (None, bytearray()))
    pool = WorkerPool(Backend("bad", "support.bad_readers:Reader", ""))
    worker = pool.borrow()
    pool.give_back(worker)
    worker.kill()
    other = pool.borrow()
    assert other is not worker and pool._all == {other}
    pool.give_back(other)
    pool.close()
    assert not other.alive
