"""Snapped overviews: key frames where they are near, exact frames elsewhere, true timestamps."""

from __future__ import annotations

import numpy as np
import pytest
from support.builders import ListTasks, make_task
from support.videos import read_index, write_video

from paravt_env.env import LongVideoEnv
from paravt_env.video import Frames, FrameStore, VideoError, VideoInfo
from paravt_env.video.readers.pyav import PyAVReader
from paravt_env.video.sampler import SNAP, snap_times

SIZE = (32, 64)


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    """8 s of 24 frames, a key frame every 30: at 0, 1.25, 2.5, 3.75, 5, 6.25 and 7.5 s."""
    path = tmp_path_factory.mktemp("snap") / "film.mp4"
    return str(write_video(path, frames=192, gop=30))


def test_a_time_moves_only_to_a_key_frame_within_reach():
    times, keys = np.array([1.0, 3.0, 5.0]), np.array([1.2, 3.3, 4.8])
    assert snap_times(times, keys, 0.25).tolist() == [1.2, 3.0, 4.8]
    assert snap_times(times, keys, 0.0).tolist() == times.tolist()
    assert snap_times(times, times, 0.0).tolist() == times.tolist()
    assert SNAP == 0.1


def test_a_store_snaps_and_remembers(film, monkeypatch):
    opened: list[str] = []
    original = PyAVReader._open

    def spy(self):
        opened.append(self.path)
        original(self)

    monkeypatch.setattr(PyAVReader, "_open", spy)
    store = FrameStore()
    times = np.array([1.0, 3.0, 5.0, 7.0])
    snapped = store.snap(film, times, 0.5)
    assert snapped.tolist() == [1.25, 2.5, 5.0, 7.5]
    before = len(opened)
    assert store.snap(film, times, 0.5).tolist() == snapped.tolist()
    assert len(opened) == before  # the group's other rollouts open nothing
    assert store.snap(film, times, 0.3).tolist() == [1.25, 3.0, 5.0, 7.0]
    frames = store.frames(film, snapped, SIZE)
    assert [read_index(p) for p in frames.pixels] == [30, 60, 120, 180]
    np.testing.assert_array_equal(frames.timestamps, snapped)
    store.close()


def test_a_snapped_frame_decodes_nothing_but_itself(film, monkeypatch):
    decoded: list[int] = []
    original = PyAVReader._keep

    def spy(self, frames, *rest):
        decoded.extend(frame.pts for frame in frames)
        original(self, frames, *rest)

    monkeypatch.setattr(PyAVReader, "_keep", spy)
    reader = PyAVReader(film)
    reader.frames_at(reader.key_times(np.array([1.0, 5.2])), SIZE)
    reader.close()
    assert len(decoded) == 2


def test_the_environment_snaps_its_overview_and_tells_true_times(film):
    settings = {
        "tasks": ListTasks([make_task(film)]),
        "frame_size": SIZE,
        "frame_budget": 2,
        "max_crops": 1,
        "frames_per_crop": 2,
    }
    shown = {}
    for sampling in ("exact", "snap"):
        env = LongVideoEnv(overview_sampling=sampling, **settings)
        observation, info = env.reset(seed=0)
        shown[sampling] = observation["timestamps"].tolist()
        indices = [read_index(p) for p in observation["frames"]]
        assert indices == [round(24 * t) for t in shown[sampling]]
        assert info["frames_seen"] == 2
        action = env.action_space.sample() | {"completion": "", "answer": ""}
        action |= {"crops": np.array([[1.0, 1.5]]), "crop_mask": np.ones(1, np.int8)}
        observation = env.step(action)[0]  # a crop is exact, whatever the overview is
        assert read_index(observation["frames"][0]) == 30
        env.close()
    # wanted: 2 and 6 s, which may move by 0.4 s: the key frames at 2.5 and 6.25 s
    assert shown == {"exact": [2.0, 6.0], "snap": [2.0, 6.25]}


def test_no_overview_needs_no_key_frames(film):
    env = LongVideoEnv(
        ListTasks([make_task(film)]),
        frame_size=SIZE,
        frame_budget=0,
        overview_sampling="snap",
    )
    assert env.reset(seed=0)[1]["frames_seen"] == 0
    env.close()


class NoKeys:
    """A back end that does not know its key frames."""

    info = VideoInfo(10.0, 1.0, 4, 2)

    def __init__(self, path: str) -> None:
        pass

    def split(self, times):
        return [np.arange(len(times))]

    def frames_at(self, times, size, deadline=None):
        return Frames.empty(size)

    def close(self):
        pass


def test_a_back_end_that_cannot_snap_says_so(film):
    store = FrameStore(NoKeys)
    with pytest.raises(ValueError, match="'NoKeys' does not tell where key frames are"):
        store.snap(film, np.array([1.0]), 0.5)
    store.close()


def test_a_missing_file_is_a_video_error():
    with pytest.raises(VideoError, match="No such file"):
        FrameStore().snap("missing.mp4", np.array([1.0]), 0.5)


def test_a_wrong_sampling_is_an_error(film):
    with pytest.raises(ValueError, match="did you mean 'snap'"):
        LongVideoEnv(ListTasks([make_task(film)]), overview_sampling="snapp")
