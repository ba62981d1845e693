"""Files of the kinds that other programs write: every frame as a full decode in order gives it.

Each file is read for overviews of 8, 16 and 64 frames and for 20 random windows, by 1, 2 and 4
threads; pixels must equal those of a plain decode from the first packet to the last, bit by bit,
and frames must come at the times at which the file's writer put them.
"""

from __future__ import annotations

import functools
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from support.builders import ListTasks, make_task
from support.kinds import (
    FPS,
    write_colour,
    write_intra_refresh,
    write_late_decode_times,
    write_mpeg2,
    write_old_444,
    write_oriented,
    write_packed,
    write_plain_i,
    write_rare_end,
    write_tracks,
    write_without_reorder_table,
    write_x264,
)
from support.videos import HEIGHT, WIDTH, burn, read_index, write_cut, write_video

from paravt_env.env import LongVideoEnv
from paravt_env.video import FrameStore, VideoError, overview_times, window_times
from paravt_env.video.readers.lookup import _known
from paravt_env.video.readers.order import DisplayOrder
from paravt_env.video.readers.pyav import PyAVReader

SIZE = (HEIGHT, WIDTH)
REPEATS = Path(__file__).parent / "data" / "theora_repeats.ogv"
"""20 pictures, 5 a second, coded as 100 by `ffmpeg -r 25 -c:v libtheora -g 30`: four in five are
empty packets."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("kinds")


def linear(path: Path) -> np.ndarray:
    """All frames in the order in which a decoder returns them, uint8 (N, *SIZE, 3)."""
    frames = []
    with av.open(str(path)) as file:
        context = file.streams.video[0].codec_context
        context.thread_count = 1
        for packet in file.demux(video=0):
            if packet.size:  # an empty packet would end the decoding
                frames += context.decode(packet)
        frames += context.decode(None)
    shape = {"width": WIDTH, "height": HEIGHT, "format": "rgb24", "interpolation": "BILINEAR"}
    return np.stack([frame.reformat(**shape).to_ndarray() for frame in frames])


def requests(duration: float) -> list[np.ndarray]:
    """The times of overviews and of windows of 16 frames."""
    rng = np.random.default_rng(3)
    asked = [overview_times(duration, k) for k in (8, 16, 64)]
    for start in rng.uniform(0, duration - 0.5, 20):
        end = min(duration, start + rng.uniform(0.3, 2.0))
        asked.append(window_times(start, end, fps=25.0, max_frames=16))
    return asked


@functools.cache
def made(folder: Path, kind: str) -> tuple[Path, np.ndarray]:
    """A file of that kind, and when each of its frames appears (seconds)."""
    path = folder / kind
    plain = np.arange(100) / FPS
    asp = {"codec": "mpeg4", "fps": FPS, "frames": 100}
    if kind.startswith("refresh"):
        return write_intra_refresh(path), plain
    if kind == "old_444.mp4":
        return write_old_444(path), plain[:60]
    if kind == "plain_i.mp4":
        params = "keyint=20:open-gop=1:bframes=3:scenecut=0:crf=20"
        return write_plain_i(path, write_x264(folder / "open_gop.mp4", params)), plain
    if kind == "packed.avi":
        return write_packed(path, write_video(folder / "one_b.avi", b_frames=1, **asp)), plain
    if kind == "divx.avi":
        return write_video(path, b_frames=2, **asp), plain
    if kind.startswith("mpeg2"):
        return write_mpeg2(path), plain
    if kind == "h264_no_b.avi":
        return write_video(path, frames=100, fps=FPS, b_frames=0), plain
    if kind.startswith("h264."):
        return write_video(path, frames=100, fps=FPS), plain
    if kind == "h264_open.avi":
        return write_video(path, frames=100, fps=FPS, open_gop=True), plain
    if kind.startswith("no_table"):
        codec = "libx265" if "hevc" in kind else "libx264"
        source = write_video(folder / f"table_{kind}", codec=codec, frames=100, fps=FPS)
        return write_without_reorder_table(path, source), plain
    if kind.startswith("late"):
        codec = "libx265" if "hevc" in kind else "libx264"
        source = write_video(folder / f"early_{kind}", codec=codec, frames=100, fps=FPS)
        return write_late_decode_times(path, source, 10_800), plain
    if kind == "rare_end.mp4":
        return write_rare_end(path)
    assert kind == "theora"
    return REPEATS, np.arange(20) / 5


KINDS = ["refresh.mp4", "refresh.mkv", "refresh.ts", "old_444.mp4", "plain_i.mp4", "packed.avi"]
KINDS += ["divx.avi", "h264.avi", "h264.asf", "h264.mxf", "h264_open.avi", "no_table.mp4"]
KINDS += ["no_table_hevc.mp4", "late.ts", "late_hevc.ts", "rare_end.mp4", "theora"]
KINDS += ["h264_no_b.avi", "mpeg2.mpg", "mpeg2.ts"]
LENGTHS = {"rare_end.mp4": 29.958 + 4.0, "old_444.mp4": 2.4}


@pytest.mark.parametrize("kind", KINDS)
def test_every_frame_is_that_of_a_full_decode(folder, kind):
    path, starts = made(folder, kind)
    truth = linear(path)
    assert len(truth) == len(starts)
    for workers in (1, 2, 4):
        _known.clear()
        store = FrameStore(workers=workers)
        duration = store.info(str(path)).duration
        assert duration == pytest.approx(LENGTHS.get(kind, 4.0), abs=0.05)
        for times in requests(duration):
            frames = store.frames(str(path), times, SIZE)
            shown = np.maximum(0, np.searchsorted(starts, times + 1e-6, side="right") - 1)
            np.testing.assert_allclose(frames.timestamps, starts[shown], atol=2e-3)
            np.testing.assert_array_equal(frames.pixels, truth[shown])
        store.close()


def test_what_a_reader_sees_of_the_first_and_the_last_frame(folder):
    for kind in ("h264.avi", "rare_end.mp4", "theora"):
        path, starts = made(folder, kind)
        reader = PyAVReader(str(path))
        frames = reader.frames_at(np.array([-1.0, reader.info.duration, 1e9]), SIZE)
        reader.close()
        assert frames.timestamps.tolist() == [0.0, starts[-1], starts[-1]]


def test_the_old_encoders_note_changes_the_pictures_of_a_seek(folder):
    """What the test above would miss if the note changed nothing."""
    path, _ = made(folder, "old_444.mp4")
    truth = linear(path)
    with av.open(str(path)) as file:
        stream = file.streams.video[0]
        file.seek(round(2 / stream.time_base), stream=stream)
        shape = {"width": WIDTH, "height": HEIGHT, "format": "rgb24", "interpolation": "BILINEAR"}
        sought = [frame.reformat(**shape).to_ndarray() for frame in file.decode(stream)]
    assert (np.stack(sought) != truth[-len(sought) :]).any()


def test_a_decoder_is_started_further_back_only_where_it_must(folder, monkeypatch):
    attempts: list[int | None] = []
    original = PyAVReader._run

    def spy(self, ticks, back, *rest):
        attempts.append(back)
        original(self, ticks, back, *rest)

    monkeypatch.setattr(PyAVReader, "_run", spy)
    path, _ = made(folder, "refresh.mp4")
    reader = PyAVReader(str(path))
    frames = reader.frames_at(np.arange(100) / FPS, SIZE)
    assert frames.slow is None and set(attempts) == {0}
    # a decoder that is started at the recovery point itself withholds frames at first
    monkeypatch.setattr(PyAVReader, "_is_entry", lambda self, packet: True)
    again = [reader.frames_at(np.array([i / FPS]), SIZE) for i in range(100)]
    reader.close()
    np.testing.assert_array_equal([frame.pixels[0] for frame in again], frames.pixels)
    assert 10 < sum(frame.slow is not None and frame.slow.all() for frame in again) < 60
    assert set(attempts) == {0, 1}


def test_key_frames_that_promise_nothing_are_no_place_to_start(folder):
    path, _ = made(folder, "plain_i.mp4")
    reader = PyAVReader(str(path))
    assert len(reader.split(np.arange(100) / FPS)) == 1, "one run, not one from the start for each"
    late, early = (reader.frames_at(np.array([time]), SIZE) for time in (3.0, 0.1))
    reader.close()
    assert late.slow_count == 1 and early.slow is None
    reader = PyAVReader(str(folder / "open_gop.mp4"))
    assert len(reader.split(np.arange(100) / FPS)) == 5
    reader.close()


def test_a_seek_that_makes_times_up_is_not_believed(folder):
    """In MPEG program streams the packets after a seek have other times than in a pass."""
    path, _ = made(folder, "mpeg2.mpg")
    reader = PyAVReader(str(path))
    frames = reader.frames_at(np.arange(100) / FPS + 0.01, SIZE)
    assert frames.slow is not None and 10 < frames.slow_count < 90
    reader.close()
    store = FrameStore(isolation="process")
    again = store.frames(str(path), np.arange(100) / FPS + 0.01, SIZE)
    assert again.slow_count > 10 and store.frames(str(path), np.array([0.01]), SIZE).slow is None
    store.close()


def test_times_that_packets_do_not_hold_are_those_of_the_decoders_order(folder):
    for kind in ("h264.avi", "h264.asf", "h264.mxf", "no_table.mp4", "packed.avi", "divx.avi"):
        reader = PyAVReader(str(made(folder, kind)[0]))
        assert isinstance(reader._order, DisplayOrder) and not reader.has_times
        assert len(reader._order.restarts) > 2
        keys = reader.key_times(np.array([1.1, 3.0]))
        assert np.abs(keys - [1.1, 3.0]).max() < 0.6
        np.testing.assert_allclose(reader.frames_at(keys, SIZE).timestamps, keys)
        reader.close()
    reader = PyAVReader(str(made(folder, "h264.mkv")[0]))
    assert reader.has_times
    reader.close()


# --- refused, with what is missing and what to do -----------------------------------------------


def test_joined_recordings_are_refused_with_the_second_of_the_seam(folder):
    halves = [write_video(folder / f"half{i}.ts", frames=100, fps=FPS) for i in range(2)]
    path = folder / "joined.ts"
    path.write_bytes(b"".join(half.read_bytes() for half in halves))
    with pytest.raises(VideoError, match=r"two recordings joined at 4\.00 s.*ffmpeg .*-c copy"):
        PyAVReader(str(path))


@pytest.mark.parametrize(
    "name, lacks",
    [
        ("raw.h264", "holds no presentation times: ffmpeg"),
        ("cut.avi", "no presentation times .*starts inside a group of pictures: ffmpeg"),
        ("late.rm", "several of its frames have one time each: ffmpeg"),
        ("hidden.mp4", "no presentation times .*hides frames by an edit list: ffmpeg"),
    ],
)
def test_what_cannot_be_told_is_refused_and_never_called_damaged(folder, name, lacks):
    path = folder / name
    if name == "cut.avi":
        source = write_video(folder / "open.avi", frames=100, fps=FPS, open_gop=True)
        write_cut(source, path, start=1.5)
    elif name == "hidden.mp4":
        source = write_video(folder / "source.mp4", frames=60)
        # the first decode time is negative, and an edit list hides what is before 0
        from support.kinds import remux

        remux(source, path, lambda packet: setattr(packet, "pts", packet.dts))
    else:
        codec = "rv20" if name.endswith("rm") else "libx264"
        write_video(path, codec=codec, frames=60, fps=FPS, b_frames=0 if codec == "rv20" else 3)
    with pytest.raises(VideoError, match=lacks) as caught:
        PyAVReader(str(path))
    assert "damaged" not in caught.value.reason


# --- pictures -----------------------------------------------------------------------------------

EIGHT = [(1, 0, 0, 1), (-1, 0, 0, 1), (1, 0, 0, -1), (-1, 0, 0, -1)]
EIGHT += [(0, 1, 1, 0), (0, 1, -1, 0), (0, -1, 1, 0), (0, -1, -1, 0)]


@pytest.mark.parametrize("matrix", EIGHT)
def test_all_eight_display_matrices(folder, matrix):
    a, b, c, d = matrix
    path = write_oriented(
        folder / f"turned{EIGHT.index(matrix)}.mp4", matrix, 0b1011_0001_0000_0110
    )
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    column, row = a * x + c * y, b * x + d * y
    column, row = column - column.min(), row - row.min()
    expected = np.zeros((row.max() + 1, column.max() + 1, 3), np.uint8)
    expected[row, column] = burn(0b1011_0001_0000_0110)
    reader = PyAVReader(str(path))
    assert (reader.info.height, reader.info.width) == expected.shape[:2]
    assert reader.is_mirrored == (a * d - b * c < 0)
    pixels = reader.frames_at(np.array([0.1]), expected.shape[:2]).pixels[0]
    reader.close()
    assert np.abs(pixels.astype(int) - expected).max() < 40


@pytest.mark.parametrize("lines, matrix", [(576, 5), (720, 1)])
def test_an_untagged_picture_is_bt709_from_720_lines_on(folder, lines, matrix):
    rgb = (40, 170, 90)
    path = write_colour(folder / f"colour{lines}.mp4", lines, rgb, matrix)
    reader = PyAVReader(str(path))
    pixel = reader.frames_at(np.array([0.0]), (8, 8)).pixels[0, 4, 4]
    reader.close()
    assert np.abs(pixel.astype(int) - rgb).max() <= 3  # the other matrix is 20 off


@pytest.mark.parametrize(
    "sizes, marked, chosen",
    [
        ([(32, 64), (64, 128)], [True, True], 1),
        ([(32, 64), (64, 128)], [False, False], 1),
        ([(32, 64), (64, 128)], [True, False], 0),
        ([(64, 128), (32, 64)], [False, True], 1),
    ],
)
def test_of_several_tracks_the_default_one_or_the_largest(folder, sizes, marked, chosen):
    name = f"tracks_{sizes[0][0]}_{marked[0]}_{marked[1]}.mkv"
    reader = PyAVReader(str(write_tracks(folder / name, sizes, marked)))
    assert (reader.info.height, reader.info.width, reader.track) == (*sizes[chosen], chosen)
    assert read_index(reader.frames_at(np.array([0.2]), SIZE).pixels[0]) == 100 * chosen + 5
    reader.close()


# --- what an environment tells ------------------------------------------------------------------


def test_an_environment_counts_the_slow_frames_of_overview_and_crops(folder):
    path, _ = made(folder, "mpeg2.mpg")
    for isolation in ("thread", "process"):
        env = LongVideoEnv(
            ListTasks([make_task(str(path))]),
            frame_size=(32, 64),
            frame_budget=8,
            crop_fps=4.0,
            video_isolation=isolation,
        )
        slow = env.reset(seed=0)[1]["slow_frames"]
        assert 0 < slow <= 8
        action = env.action_space.sample() | {"completion": "", "answer": ""}
        crops = np.zeros_like(action["crops"])
        crops[0] = 2.5, 3.5
        mask = np.zeros_like(action["crop_mask"])
        mask[0] = 1
        info = env.step(action | {"crops": crops, "crop_mask": mask})[4]
        assert (info["frames_seen"], info["slow_frames"]) == (12, slow + 4)
        env.close()


@pytest.mark.parametrize("square, width", [(False, WIDTH), (True, 2 * WIDTH)])
def test_the_width_of_pixels_that_are_not_square(folder, square, width):
    path = write_video(folder / f"wide{square}.mp4", frames=8, pixel_aspect=Fraction(2))
    reader = PyAVReader(str(path))
    assert (reader.info.width, reader.info.pixel_aspect) == (WIDTH, 2.0)
    reader.close()
    env = LongVideoEnv(
        ListTasks([make_task(str(path))]), frame_size=SIZE, frame_budget=1, square_pixels=square
    )
    video = env.reset(seed=0)[0]["video"]
    assert (int(video["width"].item()), int(video["height"].item())) == (width, HEIGHT)
    env.close()
