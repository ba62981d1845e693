"""Frames on disk: decoded once for every process, bounded, and never wrong."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from support.videos import read_index, write_video

from paravt_env.settings import make_settings
from paravt_env.video import FrameStore
from paravt_env.video.store import disk
from paravt_env.video.store.disk import HEADER, DiskFrames, default_folder

SIZE = (32, 64)
ENTRY = HEADER.size + 3 * SIZE[0] * SIZE[1]
TIMES = np.array([0.5, 1.5, 2.5])
FILE = ("/videos/a.mp4", 1000, 123)


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    return str(write_video(tmp_path_factory.mktemp("disk") / "film.mp4", frames=72))


def make_store(folder: Path, **options) -> FrameStore:
    return FrameStore(disk_bytes=10**7, disk_folder=folder, **options)


def entries(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.frame"))


def picture(value: int) -> np.ndarray:
    return np.full((*SIZE, 3), value, np.uint8)


def key(second: float, file=FILE, size=SIZE):
    return file, size, second


# --- through the store ------------------------------------------------------------------------


def test_a_second_store_reads_what_the_first_one_decoded(tmp_path, film):
    first, second = make_store(tmp_path), make_store(tmp_path)
    expected = first.frames(film, TIMES, SIZE)
    assert (first.decoded, first.disk.hits) == (3, 0)
    got = second.frames(film, TIMES, SIZE)
    assert (second.decoded, second.disk.hits) == (0, 3)
    np.testing.assert_array_equal(got.pixels, expected.pixels)
    assert got.timestamps.tolist() == expected.timestamps.tolist() == [0.5, 1.5, 2.5]
    second.frames(film, TIMES, SIZE)  # now from memory
    assert (second.hits, second.disk.hits) == (3, 3)
    assert len(entries(tmp_path)) == 3 and all(e.stat().st_size == ENTRY for e in entries(tmp_path))
    first.close(), second.close()


def test_only_what_is_missing_is_decoded_and_in_the_order_asked_for(tmp_path, film):
    make_store(tmp_path).frames(film, TIMES[1:2], SIZE)
    store = make_store(tmp_path)
    frames = store.frames(film, np.array([2.5, 1.5, 0.5]), SIZE)
    assert [read_index(p) for p in frames.pixels] == [60, 36, 12]
    assert (store.decoded, store.disk.hits) == (2, 1)
    store.close()


def test_a_stored_frame_keeps_its_true_timestamp(tmp_path, film):
    for _ in range(2):
        store = make_store(tmp_path)
        assert store.frames(film, np.array([0.52]), SIZE).timestamps.tolist() == [0.5]
        store.close()
    assert store.disk.hits == 1


def test_another_size_another_file_and_another_decoder_are_other_entries(tmp_path, film):
    store = make_store(tmp_path)
    store.frames(film, TIMES, SIZE)
    store.frames(film, TIMES, (16, 32))
    assert store.decoded == 6
    replaced = write_video(tmp_path / "replaced.mp4", frames=48)
    assert read_index(store.frames(str(replaced), TIMES[:1], SIZE).pixels[0]) == 12
    write_video(replaced, frames=48, first_index=1000)
    assert read_index(store.frames(str(replaced), TIMES[:1], SIZE).pixels[0]) == 1012
    store.close()


def test_what_distinguishes_entries(tmp_path):
    frames = DiskFrames(10**6, "pyav 18", tmp_path)
    frames.save(key(1.0), (1.0, picture(1)))
    others = [key(1.5), key(1.0, size=SIZE[::-1])]
    others += [key(1.0, file=f) for f in (("/b.mp4", *FILE[1:]), (FILE[0], 9, 123))]
    others += [key(1.0, file=(*FILE[:2], 124))]
    assert [frames.load(other) for other in others] == [None] * 5
    assert frames.load(key(1.0)) is not None
    assert DiskFrames(10**6, "pyav 19", tmp_path).load(key(1.0)) is None


@pytest.mark.parametrize("harm", ["empty", "header", "cut", "longer", "pixels", "stamp", "swapped"])
def test_a_damaged_entry_is_decoded_again_and_replaced(tmp_path, film, harm, caplog):
    make_store(tmp_path).frames(film, TIMES, SIZE)
    victim, other = entries(tmp_path)[:2]
    data = bytearray(victim.read_bytes())
    if harm == "empty":
        data.clear()
    elif harm == "header":
        del data[HEADER.size - 1 :]
    elif harm == "cut":
        del data[-1:]
    elif harm == "longer":
        data += b"\0"
    elif harm == "pixels":
        data[-1] ^= 1
    elif harm == "stamp":
        data[0] ^= 1
    else:
        data = bytearray(other.read_bytes())  # whole, but of another frame
    victim.write_bytes(bytes(data))
    store = make_store(tmp_path)
    frames = store.frames(film, TIMES, SIZE)
    assert [read_index(p) for p in frames.pixels] == [12, 36, 60]
    assert (store.decoded, store.disk.hits, store.disk.rebuilt) == (1, 2, 1)
    assert "is damaged and will be decoded again" in caplog.text
    again = make_store(tmp_path)
    again.frames(film, TIMES, SIZE)
    assert (again.decoded, again.disk.rebuilt) == (0, 0)


def test_off_by_default_and_set_by_the_environments_keyword(tmp_path, monkeypatch):
    assert FrameStore().disk is None
    assert make_settings({}).disk_cache_bytes == 0
    with pytest.raises(ValueError, match="disk_cache_bytes must be at least 0"):
        make_settings({"disk_cache_bytes": -1})
    monkeypatch.setenv("PARAVT_CACHE", str(tmp_path))
    store = FrameStore(disk_bytes=5000)
    assert store.disk.folder == default_folder() == tmp_path / "frames"
    assert store.disk.max_bytes == 5000 and store.disk.folder.is_dir()
    monkeypatch.delenv("PARAVT_CACHE")
    assert default_folder() == Path.home() / ".cache" / "paravt" / "frames"


def test_the_keyword_reaches_the_store_of_an_environment(make_env, tmp_path, monkeypatch):
    monkeypatch.setenv("PARAVT_CACHE", str(tmp_path))
    first = make_env(disk_cache_bytes=10**7)
    first.reset(seed=1)
    assert first.simulation.video.store.decoded == 4
    second = make_env(disk_cache_bytes=10**7)
    second.reset(seed=1)
    store = second.simulation.video.store
    assert (store.decoded, store.disk.hits) == (0, 4)


# --- the folder -------------------------------------------------------------------------------


def test_the_cap_holds_and_the_least_recently_used_goes(tmp_path):
    frames = DiskFrames(10 * ENTRY, "test", tmp_path)
    for second in range(10):
        frames.save(key(float(second)), (float(second), picture(second)))
        os.utime(frames._path(frames._digest(key(float(second)))), (second, second))
    assert frames.load(key(0.0))[0] == 0.0  # used again: the newest now
    frames.save(key(10.0), (10.0, picture(10)))
    left = {s for s in range(11) if frames.load(key(float(s))) is not None}
    assert left == {0, 3, 4, 5, 6, 7, 8, 9, 10}  # back to nine tenths of the cap
    assert len(entries(tmp_path)) == 9


def test_what_an_earlier_process_left_counts(tmp_path):
    earlier = DiskFrames(100 * ENTRY, "test", tmp_path)
    for second in range(60):
        earlier.save(key(float(second)), (0.0, picture(second)))
    DiskFrames(50 * ENTRY, "test", tmp_path).save(key(99.0), (0.0, picture(9)))
    assert len(entries(tmp_path)) == 45  # at its first write, not once it has written much


def test_a_frame_larger_than_the_cap_is_not_kept(tmp_path):
    frames = DiskFrames(ENTRY, "test", tmp_path)
    frames.save(key(1.0), (1.0, picture(1)))
    assert entries(tmp_path) == []


def test_the_remains_of_a_crash_are_removed_once_they_are_old(tmp_path):
    frames = DiskFrames(10 * ENTRY, "test", tmp_path)
    frames.save(key(1.0), (1.0, picture(1)))
    shelf = entries(tmp_path)[0].parent
    old, fresh = shelf / "x.1.0.part", shelf / "y.1.0.part"
    for part in (old, fresh):
        part.write_bytes(b"half")
    os.utime(old, (time.time() - 7200,) * 2)
    frames.evict()
    assert (old.exists(), fresh.exists(), len(entries(tmp_path))) == (False, True, 1)


def test_an_unfinished_entry_is_never_read(tmp_path, monkeypatch):
    frames = DiskFrames(10 * ENTRY, "test", tmp_path)
    seen = []
    original = os.replace

    def spy(source, target):
        seen.append(frames.load(key(1.0)))  # all is written, nothing is renamed
        original(source, target)

    monkeypatch.setattr(disk.os, "replace", spy)
    frames.save(key(1.0), (1.0, picture(1)))
    assert seen == [None] and frames.load(key(1.0)) is not None
    assert not list(tmp_path.rglob("*.part"))


def test_a_full_disk_is_logged_once_and_costs_no_frame(tmp_path, film, monkeypatch, caplog):
    def full(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(disk.os, "replace", full)
    store = make_store(tmp_path)
    assert len(store.frames(film, TIMES, SIZE)) == 3
    assert store.disk.failed_writes == 3
    assert [r.levelno for r in caplog.records] == [logging.WARNING]
    assert "No space left on device" in caplog.text
    assert not list(tmp_path.rglob("*.part"))
    store.close()


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(OSError, match="taken"):
        DiskFrames(100, "test", tmp_path / "taken" / "frames")
    with pytest.raises(ValueError, match="at least one byte"):
        DiskFrames(0, "test", tmp_path)


WRITER = """
import random
import sys
import numpy as np
from pathlib import Path
from paravt_env.video.store.disk import DiskFrames

folder, cap, rounds = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
frames = DiskFrames(cap, "test", folder)
found = 0
draw = random.Random(int(sys.argv[4]))
for _ in range(rounds):
    value = draw.randrange(25)  # in a fixed cycle, every entry would be evicted before its turn
    key = (("/videos/a.mp4", 1000, 123), (32, 64), float(value))
    shown = frames.load(key)
    if shown is not None:
        found += 1
        assert shown[0] == value and (shown[1] == value).all()
    frames.save(key, (float(value), np.full((32, 64, 3), value, np.uint8)))
assert frames.rebuilt == frames.failed_writes == 0, (frames.rebuilt, frames.failed_writes)
assert found
"""


def test_processes_that_write_read_and_evict_at_once(tmp_path):
    cap = 20 * ENTRY  # fewer than the 25 that are written: all evict all the time
    command = [sys.executable, "-c", WRITER, str(tmp_path), str(cap), "150"]
    running = [
        subprocess.Popen([*command, str(seed)], stderr=subprocess.PIPE, text=True)
        for seed in range(3)
    ]
    for process in running:
        assert process.wait(60) == 0, process.stderr.read()
        process.stderr.close()
    left = DiskFrames(cap, "test", tmp_path)
    assert left.evict() <= cap
    assert not list(tmp_path.rglob("*.part"))


def test_threads_that_write_one_entry(tmp_path):
    frames = DiskFrames(10**7, "test", tmp_path)

    def write():
        for _ in range(30):
            frames.save(key(1.0), (1.0, picture(7)))
            assert (frames.load(key(1.0))[1] == 7).all()

    threads = [threading.Thread(target=write) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(entries(tmp_path)), frames.rebuilt, frames.failed_writes) == (1, 0, 0)
    assert frames.hits == 90
