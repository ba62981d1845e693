"""Crops: every window gets its own status, all run at once, and a bad one harms no other."""

from __future__ import annotations

import math
import threading
from dataclasses import replace

import numpy as np
import pytest
from support.videos import read_index, write_video

from paravt_env.crop import CROP_STATUSES, CropRequest, CropStatus, check_window
from paravt_env.episode.decode_crops import run_crops
from paravt_env.settings import EnvSettings
from paravt_env.video import Frames, FrameStore, VideoError, VideoInfo

SETTINGS = EnvSettings(frame_size=(32, 64), crop_fps=2.0, frames_per_crop=4, crop_timeout=10.0)


def test_the_codes_of_the_statuses_are_part_of_the_observation():
    assert [str(status) for status in CROP_STATUSES] == [
        "ok",
        "empty",
        "reversed",
        "not_finite",
        "outside",
        "too_long",
        "malformed",
        "unknown_tool",
        "wrong_video",
        "over_limit",
        "refused",
        "timeout",
        "decode_error",
        "over_quota",
        "code_error",
        "denied",
        "out_of_memory",
        "output_limit",
        "crashed",
    ]


@pytest.mark.parametrize(
    "window, status, clipped",
    [
        ((10.0, 20.0), "ok", (10.0, 20.0)),
        ((10.0, 10.001), "ok", (10.0, 10.001)),  # shorter than a frame
        ((-5.0, 20.0), "ok", (0.0, 20.0)),
        ((90.0, 1e308), "ok", (90.0, 100.0)),
        ((99.999, 130.0), "ok", (99.999, 100.0)),
        ((0.0, 45.0), "ok", (0.0, 45.0)),
        ((0.4, 45.4000005), "ok", (0.4, 45.4000005)),  # the limit but for rounding
        ((0.0, 45.001), "too_long", None),
        ((-1e308, 1e308), "too_long", None),
        ((10.0, 10.0), "empty", None),
        ((20.0, 10.0), "reversed", None),
        ((100.0, 110.0), "outside", None),
        ((-5.0, 0.0), "outside", None),
        ((math.nan, 10.0), "not_finite", None),
        ((0.0, math.inf), "not_finite", None),
        ((-math.inf, 10.0), "not_finite", None),
    ],
)
def test_windows(window, status, clipped):
    got = check_window(window, duration=100.0, max_seconds=45.0)
    assert got[:2] == (status, clipped)
    assert (got[2] == "") == (status == "ok")


def test_messages_say_what_is_allowed():
    assert check_window((0, 50), 100.0, 45.0)[2] == "the crop is 50.0 s long; the limit is 45 s"
    assert "0 to 100.0 s" in check_window((200, 210), 100.0, 45.0)[2]


def request(path, start: float, end: float) -> CropRequest:
    return CropRequest(str(path), (start, end), (start, end))


def test_crops_of_a_real_file(tmp_path):
    path = write_video(tmp_path / "a.mp4")  # 4 s at 24 frames a second
    store = FrameStore()
    long, short = run_crops(
        [
            CropRequest(str(path), (-1.0, 2.0), (0.0, 2.0)),
            request(path, 3.0, 3.001),
        ],
        store,
        SETTINGS,
    )
    assert (long.status, long.window, long.clipped, long.message) == (
        CropStatus.ok,
        (-1.0, 2.0),
        (0.0, 2.0),
        "",
    )
    assert [read_index(p) for p in long.frames.pixels] == [6, 18, 30, 42]  # .25, .75, 1.25, 1.75 s
    assert long.frames.timestamps.tolist() == [0.25, 0.75, 1.25, 1.75]
    assert [read_index(p) for p in short.frames.pixels] == [72]
    store.close()


class FakeReader:
    """A reader whose `frames_at` first calls `gate` with the first time asked for."""

    gate = staticmethod(lambda start: None)

    def __init__(self, path: str) -> None:
        self.info = VideoInfo(100.0, 1.0, 4, 2)

    def split(self, times):
        return [np.arange(len(times))]

    def frames_at(self, times, size, deadline=None):
        self.gate(float(times[0]))
        return Frames(np.zeros((len(times), *size, 3), np.uint8), times.astype(float))

    def close(self):
        pass


def reader_with(gate) -> type[FakeReader]:
    return type("GatedReader", (FakeReader,), {"gate": staticmethod(gate)})


@pytest.fixture
def files(tmp_path):
    paths = [tmp_path / f"{i}.mp4" for i in range(2)]
    for path in paths:
        path.write_bytes(b"content")
    return paths


def test_defect_07_the_crops_of_all_rows_are_decoded_at_the_same_time(files):
    """Nobody passes the barrier until all six are inside: one after another would break it."""
    barrier = threading.Barrier(6, timeout=60)
    store = FrameStore(reader_with(lambda start: barrier.wait()), workers=6)
    requests = [request(path, t, t + 1.0) for path in files for t in (0.0, 10.0, 20.0)]
    results = run_crops(requests, store, SETTINGS)
    assert [r.status for r in results] == [CropStatus.ok] * 6
    assert [r.frames.timestamps[0] for r in results] == [0.25, 10.25, 20.25] * 2
    store.close()


def test_defect_07_the_deadline_is_enforced_for_each_crop_alone(files):
    release = threading.Event()
    store = FrameStore(reader_with(lambda start: start < 1 and release.wait(30)), workers=2)
    requests = [request(files[0], t, t + 1.0) for t in (0.0, 10.0, 20.0, 30.0)]
    results = run_crops(requests, store, replace(SETTINGS, crop_timeout=1.0))
    assert [r.status for r in results] == ["timeout", "ok", "ok", "ok"]
    late = results[0]
    assert (late.frames, late.clipped, late.window) == (None, None, (0.0, 1.0))
    assert late.message == "the crop took longer than 1 s to decode"
    release.set()
    store.close()


def test_waiting_in_the_queue_does_not_count_against_a_crop(files):
    """One worker, three crops of 0.6 s, 1.2 s each: the last starts after 1.2 s and is fine."""
    store = FrameStore(reader_with(lambda start: threading.Event().wait(0.6)), workers=1)
    requests = [request(files[0], t, t + 1.0) for t in (0.0, 10.0, 20.0)]
    results = run_crops(requests, store, replace(SETTINGS, crop_timeout=1.2))
    assert [r.status for r in results] == ["ok"] * 3
    store.close()


def test_defect_26_a_late_crop_is_not_the_next_turns_result(files):
    release, returned = threading.Event(), threading.Event()

    class Reader(FakeReader):
        def frames_at(self, times, size, deadline=None):
            if times[0] < 1 and not release.is_set():
                release.wait(30)
                returned.set()
                return Frames(np.full((len(times), *size, 3), 99, np.uint8), times.astype(float))
            return super().frames_at(times, size, deadline)

    store = FrameStore(Reader, workers=1)
    settings = replace(SETTINGS, crop_timeout=1.0)
    (late,) = run_crops([request(files[0], 0.0, 1.0)], store, settings)
    assert late.status == "timeout"
    release.set()
    assert returned.wait(60)
    next_turn = run_crops(
        [request(files[0], 10.0, 11.0), request(files[0], 0.0, 1.0)], store, settings
    )
    assert [r.frames.timestamps[0] for r in next_turn] == [10.25, 0.25]
    assert all((r.frames.pixels == 0).all() for r in next_turn)
    store.close()


def test_a_file_that_cannot_be_decoded_spoils_its_own_crop_only(files, tmp_path):
    def gate(start):
        if start > 5:
            raise VideoError(str(files[0]), "cannot be decoded near 10.25 s")

    store = FrameStore(reader_with(gate))
    requests = [
        request(files[0], 0.0, 1.0),
        request(files[0], 10.0, 11.0),
        request(tmp_path / "missing.mp4", 0.0, 1.0),
    ]
    good, damaged, missing = run_crops(requests, store, SETTINGS)
    assert [r.status for r in (good, damaged, missing)] == ["ok", "decode_error", "decode_error"]
    assert damaged.message == "cannot be decoded near 10.25 s"
    assert "cannot be opened" in missing.message
    assert str(tmp_path) not in missing.message  # paths are not the model's business
    assert missing.frames is None
    store.close()


def test_the_same_crop_in_every_row_of_a_group_is_decoded_once(files):
    store = FrameStore(reader_with(lambda start: None))
    results = run_crops([request(files[0], 0.0, 1.0)] * 8, store, SETTINGS)
    assert len(results) == 8 and store.decoded == 2
    store.close()


def test_a_file_that_hangs_costs_a_group_one_deadline(files):
    """Eight rows ask for one window: one try for all, not one after another's timeout."""
    release, tries = threading.Event(), []

    def gate(start):
        tries.append(start)
        release.wait(30)

    store = FrameStore(reader_with(gate), workers=1)
    group = [request(files[0], 0.0, 1.0)] * 8
    results = run_crops(group, store, replace(SETTINGS, crop_timeout=1.0))
    assert [r.status for r in results] == ["timeout"] * 8
    assert tries == [0.25]
    release.set()
    store.close()


def test_equal_windows_of_other_videos_and_the_calls_own_window_stay_apart(files):
    store = FrameStore(reader_with(lambda start: None))
    wide = CropRequest(str(files[0]), (-5.0, 1.0), (0.0, 1.0))
    results = run_crops(
        [request(files[0], 0.0, 1.0), wide, request(files[1], 0.0, 1.0)], store, SETTINGS
    )
    assert [r.window for r in results] == [(0.0, 1.0), (-5.0, 1.0), (0.0, 1.0)]
    assert store.decoded == 4, "two frames of either video"
    store.close()


def test_no_crops_no_work():
    store = FrameStore(reader_with(lambda start: None))
    assert run_crops([], store, SETTINGS) == []
    store.close()
