"""The video room: which frames, from real files of every awkward kind, decoded once."""

from __future__ import annotations

import contextlib
import pickle
import subprocess
import sys
import threading
import time
from collections import namedtuple

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.videos import (
    TICKS,
    read_index,
    rotate,
    truncate,
    write_audio,
    write_cut,
    write_video,
)

from paravt_env.video import (
    Frames,
    FrameStore,
    VideoError,
    VideoInfo,
    VideoReader,
    VideoTimeoutError,
    overview_times,
    window_times,
)
from paravt_env.video.readers.pyav import PyAVReader
from paravt_env.video.sampler import mark_wanted

SIZE = (32, 64)


def indices(frames: Frames) -> list[int]:
    return [read_index(pixels) for pixels in frames.pixels]


def read(path, times, size=SIZE) -> Frames:
    reader = PyAVReader(str(path))
    try:
        return reader.frames_at(np.array(times, float), size)
    finally:
        reader.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("videos")


@pytest.fixture(scope="module")
def cfr(folder):
    return write_video(folder / "cfr.mp4")


# --- which frames -----------------------------------------------------------------------------


def test_overview_times_are_midpoints():
    assert overview_times(60.0, 3).tolist() == [10.0, 30.0, 50.0]
    assert overview_times(60.0, 0).tolist() == []
    for duration, k in ((0.0, 4), (float("nan"), 4), (10.0, -1)):
        with pytest.raises(ValueError, match="positive duration"):
            overview_times(duration, k)


def test_window_times_one_part_for_every_period_begun():
    assert window_times(2.0, 4.0, fps=2.0, max_frames=16).tolist() == [2.25, 2.75, 3.25, 3.75]
    assert len(window_times(0.0, 3.01, fps=1.0, max_frames=16)) == 4
    assert len(window_times(0.1, 10.1, fps=1.0, max_frames=16)) == 10  # 10.1 - 0.1 > 10 in floats
    assert window_times(0.0, 32.0, fps=1.0, max_frames=2).tolist() == [8.0, 24.0]
    assert window_times(5.0, 5.002, fps=1.0, max_frames=16) == pytest.approx([5.001])
    for bad in ((1.0, 1.0, 1.0, 4), (2.0, 1.0, 1.0, 4), (0.0, 1.0, 0.0, 4), (0.0, 1.0, 1.0, 0)):
        with pytest.raises(ValueError, match="need"):
            window_times(bad[0], bad[1], fps=bad[2], max_frames=bad[3])


Packet = namedtuple("Packet", "pts dts is_discard", defaults=(False,))


def test_mark_wanted_stops_after_the_last_wanted_packet():
    shown: dict[int, int] = {}
    order = [Packet(0, -2), Packet(4, -1), Packet(2, 0), Packet(1, 1), Packet(3, 2), Packet(8, 3)]
    marked = list(mark_wanted(order, [1, 2], shown))
    assert [(p.pts, wanted) for p, wanted in marked] == [
        (0, False),
        (4, False),
        (2, True),
        (1, True),
    ]
    assert shown == {1: 1, 2: 2}


def test_mark_wanted_is_right_where_decode_times_come_late():
    order = [Packet(0, 1), Packet(8, 2), Packet(4, 3), Packet(2, 4), Packet(6, 5), Packet(16, 6)]
    shown: dict[int, int] = {}
    assert [p.pts for p, wanted in mark_wanted(order, [2, 3], shown) if wanted] == [0]
    assert shown == {2: 0, 3: 0}, "decode times later than the pts mislead"
    shown.clear()
    assert [p.pts for p, wanted in mark_wanted(order, [2, 3], shown, 3) if wanted] == [2]
    assert shown == {2: 2, 3: 2}


def test_mark_wanted_never_chooses_a_discarded_packet():
    shown: dict[int, int] = {}
    order = [Packet(0, 0), Packet(1, 1, True), Packet(2, 2), Packet(9, 9)]
    assert [p.pts for p, wanted in mark_wanted(order, [1, 3], shown) if wanted] == [0, 2]
    assert shown == {1: 0, 3: 2}


@given(st.lists(st.integers(1, 5), min_size=1, max_size=40), st.data())
@settings(max_examples=150, deadline=None)
def test_mark_wanted_agrees_with_the_definition(gaps, data):
    pts = np.cumsum([0, *gaps]).tolist()
    order = [0]  # groups of pictures: the last of each is decoded first
    while order[-1:] and len(order) < len(pts):
        n = data.draw(st.integers(1, min(4, len(pts) - len(order))))
        start = len(order)
        order += [start + n - 1, *range(start, start + n - 1)]
    dts = [p - 15 for p in pts]  # in order, and never later than what they decode
    packets = [Packet(pts[i], min(dts[k], pts[i])) for k, i in enumerate(order)]
    ticks = data.draw(st.lists(st.integers(0, pts[-1] + 3), min_size=1, max_size=8))
    shown: dict[int, int] = {}
    marked = list(mark_wanted(packets, ticks, shown))
    truth = {t: max(p for p in pts if p <= t) for t in ticks}
    assert shown == truth
    assert [p.pts for p, wanted in marked if wanted] == [
        p.pts for p in packets if p.pts in truth.values()
    ]
    assert [p for p, _ in marked] == packets[: len(marked)]  # decode order, none left out
    assert marked[-1][1]


# --- frames of real files ---------------------------------------------------------------------


def sampled(starts: np.ndarray, duration: float) -> tuple[np.ndarray, list[int]]:
    """Times in random order (every frame's start, and others), and the frames shown then."""
    others = np.random.default_rng(0).uniform(0, duration, 40)
    times = np.random.default_rng(1).permutation(np.concatenate([starts, others]))
    return times, np.maximum(0, np.searchsorted(starts, times + 1e-9, side="right") - 1).tolist()


@pytest.mark.parametrize(
    "name, options",
    [
        ("plain.mp4", {}),
        ("open_gop.mp4", {"open_gop": True}),
        ("long_gop.mp4", {"gop": 250}),
        ("no_b_frames.mp4", {"b_frames": 0}),
        ("faststart.mp4", {"options": {"movflags": "faststart"}}),
        ("fragmented.mp4", {"options": {"movflags": "frag_keyframe+empty_moov"}}),
        ("plain.mkv", {}),
        ("open_gop.mkv", {"open_gop": True}),
        ("plain.ts", {}),
        ("mpeg4.mp4", {"codec": "mpeg4"}),
    ],
)
def test_every_frame_is_the_one_on_screen(folder, name, options):
    path = write_video(folder / name, frames=72, **options)
    starts = np.arange(72) / 24
    if name.endswith("mkv"):  # timestamps of whole milliseconds
        starts = np.round(starts, 3)
    times, expected = sampled(starts, 3.0)
    frames = read(path, times)
    assert indices(frames) == expected
    np.testing.assert_allclose(frames.timestamps, starts[expected], atol=1e-9)
    assert frames.timestamps.dtype == np.float64 and frames.pixels.shape[1:] == (32, 64, 3)


def test_variable_frame_rate_with_a_start_offset(folder):
    gaps = np.random.default_rng(2).integers(200, 9000, 60)
    ticks = 5 * TICKS + np.cumsum(gaps) - gaps[0]
    path = write_video(folder / "vfr.mp4", ticks=ticks.tolist())
    starts = (ticks - ticks[0]) / TICKS  # time 0 is the first instant of the file
    times, expected = sampled(starts, starts[-1])
    frames = read(path, times)
    assert indices(frames) == expected
    np.testing.assert_allclose(frames.timestamps, starts[expected], atol=1e-9)


@pytest.mark.parametrize("open_gop", [False, True])
def test_stream_copied_cut(folder, open_gop):
    source = write_video(folder / f"source{open_gop}.mp4", open_gop=open_gop)
    path = write_cut(source, folder / f"cut{open_gop}.mp4", start=1.5)  # from the key frame at 1 s
    times, expected = sampled(np.arange(72) / 24, 3.0)
    assert indices(read(path, times)) == [24 + i for i in expected]


def test_sound_that_starts_before_the_picture_sets_time_zero(folder):
    ticks = [TICKS // 2 + i * 500 for i in range(48)]
    path = write_video(folder / "late_picture.mp4", ticks=ticks, sound=True)
    frames = read(path, [0.0, 0.5, 1.5])
    assert indices(frames) == [0, 0, 24]
    assert frames.timestamps.tolist() == [0.5, 0.5, 1.5]


def test_a_key_frame_shown_after_the_wanted_time_is_not_started_from(cfr):
    reader = PyAVReader(str(cfr))
    reader._keys._delay = 0  # an index that says nothing of reordering
    times = (np.arange(96) + 0.5) / 24
    assert indices(reader.frames_at(times, SIZE)) == list(range(96))
    reader.close()


def test_frames_that_refer_to_before_the_key_frame_are_dropped(folder):
    path = write_video(folder / "leading.mp4", open_gop=True)
    with av.open(str(path)) as container:
        container.seek(TICKS, stream=container.streams.video[0])
        stored = [packet.pts for packet, _ in zip(container.demux(video=0), range(6), strict=False)]
    reader = PyAVReader(str(path))
    fed = [packet.pts for packet, _ in zip(reader._packets(TICKS, None), range(6), strict=False)]
    reader.close()
    assert stored[0] == fed[0] == TICKS
    assert min(stored) < TICKS == min(fed)


def test_skipping_is_bit_exact(cfr):
    with av.open(str(cfr)) as container:
        plain = [
            frame.reformat(64, 32, "rgb24", interpolation="BILINEAR").to_ndarray()
            for frame in container.decode(video=0)
        ]
    wanted = [3, 24, 25, 47, 48, 80, 95]
    frames = read(cfr, np.array(wanted) / 24)
    for i, pixels in zip(wanted, frames.pixels, strict=True):
        np.testing.assert_array_equal(pixels, plain[i])


def test_unwanted_disposable_frames_are_not_decoded(cfr, monkeypatch):
    kept: list[int] = []
    original = PyAVReader._keep

    def spy(self, decoded, *rest):
        kept.extend(frame.pts for frame in decoded)
        original(self, decoded, *rest)

    monkeypatch.setattr(PyAVReader, "_keep", spy)
    assert indices(read(cfr, [20 / 24])) == [20]
    assert len(kept) < 15  # of the 21 frames up to there


def test_before_the_start_and_after_the_end(cfr):
    frames = read(cfr, [-3.0, 4.0, 1e300, 0.0])
    assert indices(frames) == [0, 95, 95, 0]
    assert frames.timestamps.tolist() == [0.0, 95 / 24, 95 / 24, 0.0]


def test_no_frames_asked_and_times_that_are_not_finite(cfr):
    assert read(cfr, []).pixels.shape == (0, 32, 64, 3)
    with pytest.raises(ValueError, match="finite"):
        read(cfr, [1.0, float("nan")])


def test_a_returned_timestamp_finds_its_frame_again(folder):
    path = write_video(folder / "ntsc.mp4", frames=48, fps=30000 / 1001)
    first = read(path, np.linspace(0, 1.6, 30))
    again = read(path, first.timestamps)
    assert indices(again) == indices(first)


def test_info(cfr, folder):
    reader = PyAVReader(str(cfr))
    assert isinstance(reader, VideoReader)
    assert reader.info == VideoInfo(duration=4.0, fps=24.0, width=128, height=64)
    reader.close()
    ts = PyAVReader(str(write_video(folder / "info.ts", frames=48)))
    assert ts.info.duration == pytest.approx(2.0)
    ts.close()


def test_a_picture_stored_lying_is_returned_upright(folder, cfr):
    turned = rotate(cfr, folder / "turned.mp4")
    reader = PyAVReader(str(turned))
    assert (reader.info.width, reader.info.height) == (64, 128)
    frames = reader.frames_at(np.array([2.0]), (64, 32))
    reader.close()
    assert frames.pixels.shape == (1, 64, 32, 3)
    assert read_index(np.rot90(frames.pixels[0])) == 48  # stored a quarter turn to the left


def test_split_groups_by_key_frame(cfr):
    reader = PyAVReader(str(cfr))  # key frames at 0, 1, 2 and 3 s
    groups = reader.split(np.array([2.5, 0.1, 2.1, 0.9, 3.0]))
    reader.close()
    assert [g.tolist() for g in groups] == [[1, 3], [2, 0], [4]]


# --- K frames asked is K frames seen ------------------------------------------------------------


@pytest.mark.parametrize("fps", [1.0, 8.0, 30.0])
@pytest.mark.parametrize("k", [1, 4, 16])
def test_defect_01_the_number_of_frames_never_depends_on_the_frame_rate(folder, fps, k):
    path = write_video(folder / f"fps{fps}.mp4", frames=int(2 * fps), fps=fps)
    store = FrameStore()
    info = store.info(str(path))
    frames = store.frames(str(path), overview_times(info.duration, k), SIZE)
    expected = [int((i + 0.5) * 2 / k * fps) for i in range(k)]  # repeated where fps is low
    assert indices(frames) == expected
    store.close()


# --- bad files --------------------------------------------------------------------------------


def bad_file(folder, kind: str):
    path = folder / f"bad_{kind}.mp4"
    if kind == "empty":
        path.write_bytes(b"")
    elif kind == "text":
        path.write_text("not a video\n" * 100)
    elif kind == "text_that_ffmpeg_draws":
        path = path.with_suffix(".txt")
        path.write_text("not a video\n" * 100)
    elif kind == "audio":
        write_audio(path)
    elif kind == "cover":
        path = write_audio(path.with_suffix(".mp3"), cover=True, codec="libmp3lame")
    elif kind == "truncated":
        truncate(write_video(folder / "whole.mp4"), path, 0.6)
    elif kind == "folder":
        path.mkdir()
    return path


@pytest.mark.parametrize(
    "kind, reason",
    [
        ("missing", "No such file.*root folder"),
        ("empty", "file is empty: copy or download"),
        ("text", "not a video.*copy or download"),
        ("text_that_ffmpeg_draws", "holds no video"),
        ("audio", "holds only audio: a task needs a file with a video track"),
        ("cover", "holds only audio"),
        ("truncated", "not a video that FFmpeg can open, or is truncated"),
        ("folder", "not a file"),
    ],
)
def test_bad_files(folder, kind, reason):
    path = str(bad_file(folder, kind))
    store = FrameStore()
    for ask in (store.info, lambda p: store.frames(p, np.array([0.5]), SIZE)):
        with pytest.raises(VideoError, match=reason) as caught:
            ask(path)
        assert caught.value.path == path
        assert path not in caught.value.reason
    store.close()


def test_a_path_with_a_nul_byte_is_a_video_error():
    with pytest.raises(VideoError, match="not a path"):
        FrameStore().info("a\0b.mp4")


def test_truncated_after_the_index_reads_the_intact_part_and_says_where_it_ends(folder):
    whole = write_video(folder / "moov_first.mp4", options={"movflags": "faststart"})
    path = truncate(whole, folder / "moov_first_cut.mp4", 0.7)
    store = FrameStore()
    assert store.info(str(path)).duration == 4.0
    assert indices(store.frames(str(path), np.array([0.1, 0.5]), SIZE)) == [2, 12]
    with pytest.raises(VideoError, match=r"no intact frame at \d\.\d5 s.*truncated"):
        store.frames(str(path), overview_times(4.0, 8), SIZE)
    # never a stale frame in place of a lost one
    answers = []
    for i in range(96):
        with contextlib.suppress(VideoError):
            frames = store.frames(str(path), np.array([(i + 0.5) / 24]), SIZE)
            answers.append((i, *indices(frames)))
    assert 12 < len(answers) < 90 and all(i == got for i, got in answers)
    store.close()


def test_errors_survive_pickling():
    error = pickle.loads(pickle.dumps(VideoTimeoutError("a.mp4", "late")))
    assert (type(error), error.path, error.reason) == (VideoTimeoutError, "a.mp4", "late")


# --- decode once ------------------------------------------------------------------------------


class FakeReader:
    """Frames whose pixels are 10 x the second asked for; `gate` runs before each decode."""

    def __init__(self, path: str, gate=lambda times: None) -> None:
        self.info = VideoInfo(100.0, 1.0, 4, 2)
        self._gate = gate

    def split(self, times):
        return [np.array([i]) for i in range(len(times))]

    def frames_at(self, times, size, deadline=None):
        self._gate(times)
        stamps = np.floor(times)
        pixels = np.zeros((len(times), *size, 3), np.uint8)
        return Frames(pixels + (10 * stamps).astype(np.uint8)[:, None, None, None], stamps)

    def close(self):
        pass


def fake_store(gate=lambda times: None, **options) -> FrameStore:
    return FrameStore(lambda path: FakeReader(path, gate), **options)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "any.mp4"
    path.write_bytes(b"content")
    return str(path)


def values(frames: Frames) -> list[int]:
    return frames.pixels[:, 0, 0, 0].tolist()


def test_kept_frames_are_handed_out_as_they_are_and_cannot_be_written_to(cfr):
    store = FrameStore()
    times = overview_times(4.0, 8)
    store.frames(str(cfr), times, SIZE)
    claims, own = store.claim(str(cfr), times, SIZE)
    again = store.frames(str(cfr), times, SIZE)
    assert not own and again.timestamps.tolist() == [claim.stamp for claim in claims]
    for image, claim in zip(again.images, claims, strict=True):
        assert image is claim.pixels  # nothing is copied before an observation is filled
        with pytest.raises(ValueError, match="read-only"):
            image[:] = 0
    store.close()


def test_a_second_request_decodes_nothing(cfr):
    store = FrameStore()
    times = overview_times(4.0, 8)
    first = store.frames(str(cfr), times, SIZE)
    again = store.frames(str(cfr), times, SIZE)
    np.testing.assert_array_equal(first.pixels, again.pixels)
    assert (store.decoded, store.hits) == (8, 8)
    again.pixels[:] = 0  # a caller's scribbling stays its own
    np.testing.assert_array_equal(store.frames(str(cfr), times, SIZE).pixels, first.pixels)
    store.frames(str(cfr), times, (16, 32))  # another size is another frame
    assert store.decoded == 16
    store.close()


def test_a_replaced_file_is_another_file(folder):
    path = write_video(folder / "replaced.mp4", frames=24)
    store = FrameStore()
    assert indices(store.frames(str(path), np.array([0.5]), SIZE)) == [12]
    write_video(path, frames=24, first_index=1000)
    assert indices(store.frames(str(path), np.array([0.5]), SIZE)) == [1012]
    store.close()


def test_concurrent_requests_for_the_same_frames_decode_once(file):
    started, release = threading.Event(), threading.Event()

    def gate(times):
        started.set()
        assert release.wait(60)

    store = fake_store(gate)
    first = store.submit(file, np.array([1.0, 2.0]), (1, 1))
    assert started.wait(60)
    others = [store.submit(file, np.array([2.0, 1.0]), (1, 1)) for _ in range(7)]
    release.set()
    assert values(first.result()) == [10, 20]
    assert [values(o.result()) for o in others] == [[20, 10]] * 7
    assert (store.decoded, store.hits) == (2, 14)
    store.close()


def test_repeated_times_are_decoded_once_and_returned_each_time(file):
    store = fake_store()
    assert values(store.frames(file, np.array([3.0, 3.0, 3.0]), (1, 1))) == [30, 30, 30]
    assert store.decoded == 1
    store.close()


def test_memory_stays_under_its_cap_and_the_least_recently_used_goes(file):
    store = fake_store(memory_bytes=3 * 12, workers=1)  # three frames of 2 x 2
    for second in (1.0, 2.0, 3.0):
        store.frames(file, np.array([second]), (2, 2))
    store.frames(file, np.array([1.0]), (2, 2))  # used again
    store.frames(file, np.array([4.0]), (2, 2))  # 2 is the oldest now
    assert (store.decoded, store.kept_bytes) == (4, 36)
    store.frames(file, np.array([1.0, 3.0, 4.0]), (2, 2))
    assert store.decoded == 4
    store.frames(file, np.array([2.0]), (2, 2))
    assert store.decoded == 5
    assert values(store.frames(file, np.arange(8.0), (2, 2))) == [10 * i for i in range(8)]
    assert store.kept_bytes == 36
    store.close()


def test_two_times_at_which_one_frame_is_on_screen_keep_one_frame(file):
    store = fake_store()
    assert values(store.frames(file, np.array([1.0, 1.5]), (2, 2))) == [10, 10]
    assert store.kept_bytes == 12
    store.close()


def test_the_units_of_one_request_are_decoded_by_several_threads(file):
    both = threading.Barrier(2, timeout=60)
    store = fake_store(lambda times: both.wait(), workers=2)
    assert values(store.frames(file, np.array([1.0, 2.0, 3.0, 4.0]), (1, 1))) == [10, 20, 30, 40]
    store.close()


def test_a_damaged_unit_leaves_the_others_in_the_store(file):
    def gate(times):
        if times[0] == 2.0:
            raise VideoError(file, "damaged there")

    store = fake_store(gate, workers=1)
    with pytest.raises(VideoError, match="damaged there"):
        store.frames(file, np.array([1.0, 2.0, 3.0]), (1, 1))
    assert store.decoded == 2
    assert values(store.frames(file, np.array([1.0, 3.0]), (1, 1))) == [10, 30]
    assert store.decoded == 2
    store.close()


def test_our_own_bug_raises_and_is_not_a_video_error(file):
    def gate(times):
        raise ZeroDivisionError("a bug")

    store = fake_store(gate)
    with pytest.raises(ZeroDivisionError, match="a bug"):
        store.frames(file, np.array([1.0]), (1, 1))
    store.close()


# --- deadlines --------------------------------------------------------------------------------


def test_the_deadline_is_looked_at_between_packets(cfr):
    reader = PyAVReader(str(cfr))
    with pytest.raises(VideoTimeoutError):
        reader.frames_at(np.array([0.5]), SIZE, deadline=time.monotonic() - 1)
    assert indices(reader.frames_at(np.array([0.5]), SIZE, time.monotonic() + 60)) == [12]
    reader.close()


def test_a_decoder_that_hangs_is_written_off_and_the_next_request_runs(file):
    release = threading.Event()
    store = fake_store(lambda times: times[0] == 1.0 and release.wait(30), workers=1)
    hung = store.submit(file, np.array([1.0]), (1, 1), timeout=0.1)
    queued = store.submit(file, np.array([2.0]), (1, 1), timeout=60.0)  # behind it, one worker
    with pytest.raises(VideoTimeoutError):
        hung.result()
    assert values(queued.result()) == [20]
    release.set()
    store.close()


def test_a_hanging_open_is_written_off_too(file):
    release = threading.Event()

    def hang(path):
        release.wait(30)
        return FakeReader(path)

    store = FrameStore(hang)
    for ask in (
        lambda deadline: store.info(file, deadline),
        lambda deadline: store.frames(file, np.array([1.0]), (1, 1), deadline),
    ):
        with pytest.raises(VideoTimeoutError):
            ask(time.monotonic() + 0.1)
    release.set()
    store.close()


def test_another_requests_deadline_is_not_ours(file):
    started, release = threading.Event(), threading.Event()

    def gate(times):
        started.set()
        release.wait(30)

    store = fake_store(gate, workers=1)
    hasty = store.submit(file, np.array([1.0]), (1, 1), timeout=0.1)
    assert started.wait(60)
    patient = store.submit(file, np.array([1.0]), (1, 1), timeout=20.0)  # joins the decode
    with pytest.raises(VideoTimeoutError):
        hasty.result()
    release.set()
    assert values(patient.result()) == [10]
    store.close()


def test_a_frame_that_another_request_gave_up_comes_between_kept_ones(file):
    started, release = threading.Event(), threading.Event()

    def gate(times):
        if times[0] == 1.0:
            started.set()
            release.wait(30)

    store = fake_store(gate, workers=1)
    store.frames(file, np.array([2.0]), (1, 1))
    hasty = store.submit(file, np.array([1.0]), (1, 1), timeout=0.1)
    assert started.wait(60)
    patient = store.submit(file, np.array([2.0, 1.0, 2.0]), (1, 1), timeout=20.0)
    with pytest.raises(VideoTimeoutError):
        hasty.result()
    release.set()
    assert values(patient.result()) == [20, 10, 20]
    store.close()


def test_defect_26_late_output_is_never_read_as_another_requests_result(file):
    """The hung decode of second 1 comes back while second 2 is read: it must change nothing."""
    release, late_done = threading.Event(), threading.Event()
    calls: list[float] = []

    class Reader(FakeReader):
        def frames_at(self, times, size, deadline=None):
            calls.append(float(times[0]))
            if calls == [1.0]:
                release.wait(30)
                wrong = np.full((1, *size, 3), 99, np.uint8)  # what a confused decoder returns
                return Frames(wrong, np.array([2.0]))
            return super().frames_at(times, size, deadline)

        def close(self):
            if release.is_set():
                late_done.set()

    store = FrameStore(Reader, workers=1)
    with pytest.raises(VideoTimeoutError):
        store.submit(file, np.array([1.0]), (1, 1), timeout=0.1).result()
    release.set()
    assert late_done.wait(60)
    assert values(store.frames(file, np.array([2.0]), (1, 1))) == [20]
    assert values(store.frames(file, np.array([1.0]), (1, 1))) == [10]
    assert calls == [1.0, 2.0, 1.0]
    store.close()


def test_closing_the_store_frees_whoever_waits(file):
    started, release = threading.Event(), threading.Event()

    def gate(times):
        started.set()
        release.wait(30)

    store = fake_store(gate, workers=1)
    store.submit(file, np.array([1.0]), (1, 1))
    assert started.wait(60)
    queued = store.submit(file, np.array([2.0]), (1, 1))
    store.close()
    with pytest.raises(VideoTimeoutError):
        queued.result()
    with pytest.raises(RuntimeError, match="closed"):
        store.submit(file, np.array([3.0]), (1, 1))
    release.set()


def test_wrong_settings_are_errors(file):
    with pytest.raises(ValueError, match=r"backend 'decrod' is not one of .*'decord'\?"):
        FrameStore("decrod")
    with pytest.raises(ValueError, match="at least one worker"):
        FrameStore(workers=0)
    with pytest.raises(ValueError, match="not finite"):
        FrameStore().frames(file, np.array([np.inf]), (1, 1))


def test_importing_the_vocabulary_loads_no_ffmpeg():
    code = "import sys, paravt_env.video, paravt_env.crop; print('av' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
