"""Clips cover a video; shots begin where the picture changes; the right frames are shown."""

import sys
from pathlib import Path

import av
import numpy as np
import pytest
from support.builders import make_clip
from support.videos import read_index

from paravt_env.video.store.store import FrameStore
from train.common.errors import ConfigError
from train.config.reason import ClipConfig
from train.datagen.clips import clips_of, frame_size, pieces, shown
from train.datagen.refusal import Rejected
from train.datagen.videos import Film


@pytest.fixture
def store():
    store = FrameStore()
    yield store
    store.close()


def film(path, duration=30.0, size=(64, 128)):
    return Film("clip.mp4", str(path), "0" * 32, "train", duration, size)


@pytest.mark.parametrize(
    ("cuts", "spans"),
    [
        ([], [(0, 10), (10, 20), (20, 30)]),
        ([4.0], [(0, 4), (4, 12.667), (12.667, 21.333), (21.333, 30)]),
        ([4.0, 5.0, 14.0], [(0, 5), (5, 14), (14, 22), (22, 30)]),
        ([1.0, 9.0, 29.5], [(0, 9), (9, 16), (16, 23), (23, 30)]),
        ([10.0, 12.0], [(0, 10), (10, 12), (12, 21), (21, 30)]),
        ([-1.0, 0.0, 30.0, 31.0], [(0, 10), (10, 20), (20, 30)]),
    ],
)
def test_pieces_are_shots_without_short_ones_and_long_ones_divided(cuts, spans):
    assert pieces(cuts, 30.0, 10.0, 2.0) == spans


def test_windows_are_equal_and_numbered_from_one(clip, store):
    clips = clips_of(film(clip), store, ClipConfig(seconds=8.0))
    assert [tuple(one) for one in clips] == [
        (1, 0.0, 7.5), (2, 7.5, 15.0), (3, 15.0, 22.5), (4, 22.5, 30.0)
    ]  # fmt: skip


def test_the_frames_of_a_clip_are_spread_over_it_and_no_larger_than_the_video(clip, store):
    frames = shown(film(clip), (10.0, 20.0), 4, 1000, store)
    assert frames.timestamps.tolist() == [11.25, 13.75, 16.25, 18.75]
    assert [read_index(pixels) for pixels in frames.pixels] == [45, 55, 65, 75]
    assert frames.pixels.shape[1:3] == (64, 128)


@pytest.mark.parametrize(
    ("size", "height", "expected"),
    [((1080, 1920), 360, (360, 640)), ((1920, 1080), 361, (360, 202)), ((3, 2001), 360, (2, 8)),
     ((2000, 2), 360, (360, 2))],
)  # fmt: skip
def test_frames_keep_the_proportion_and_stay_small(size, height, expected):
    assert frame_size(film("v", size=size), height) == expected


def test_a_video_that_breaks_off_is_rejected(tmp_path, store):
    path = tmp_path / "short.mp4"
    path.write_bytes(Path(make_clip(tmp_path)).read_bytes()[:3000])
    with pytest.raises(Rejected) as error:
        shown(film(path), (10.0, 20.0), 4, 64, store)
    assert error.value.reason == "unreadable_video"


@pytest.fixture
def three_shots(tmp_path):
    """Dark blue until 10 s, yellow until 17 s, dark red to 30 s; 4 fps."""
    path = tmp_path / "shots.mp4"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=4)
        stream.width, stream.height, stream.pix_fmt = 128, 64, "yuv420p"
        for number in range(120):
            place = 0 if number < 40 else 1 if number < 68 else 2
            colour = ((10, 10, 90), (230, 220, 40), (110, 0, 0))[place]
            picture = np.full((64, 128, 3), colour, np.uint8)
            picture[8:16, number : number + 8] = 255  # something moves, which is no cut
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        out.mux(stream.encode())
    return path


def test_shots_are_found_where_the_picture_changes(three_shots, store):
    pytest.importorskip("scenedetect")
    config = ClipConfig(boundaries="shots", seconds=15.0)
    clips = clips_of(film(three_shots), store, config)
    assert [(one.start, one.end) for one in clips] == [(0.0, 10.0), (10.0, 17.0), (17.0, 30.0)]
    deaf = ClipConfig(boundaries="shots", seconds=15.0, threshold=250.0)
    assert len(clips_of(film(three_shots), store, deaf)) == 2


def test_shots_need_their_extra(three_shots, store, monkeypatch):
    monkeypatch.setitem(sys.modules, "scenedetect", None)
    with pytest.raises(ConfigError, match=r"pip install 'paravt\[shots\]'"):
        clips_of(film(three_shots), store, ClipConfig(boundaries="shots"))


@pytest.mark.parametrize(
    "wrong",
    [{"seconds": 0}, {"frames": 0}, {"boundaries": "cuts"}, {"shortest": 11}, {"scan_fps": 0},
     {"least_captions": 1.5}, {"height": 1}],
)  # fmt: skip
def test_settings_that_cannot_work_are_refused(wrong):
    with pytest.raises(ValueError):
        ClipConfig(**wrong)
