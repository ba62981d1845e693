"""Broken videos: each kind is one task's clear error; nothing leaks, whatever was opened."""

from __future__ import annotations

import gc
import os
import threading
from pathlib import Path

import numpy as np
import pytest
from support.builders import ListTasks, make_task
from support.videos import blot, read_index, truncate, write_audio, write_video

from paravt_env.env import LongVideoEnv
from paravt_env.vector import LongVideoVectorEnv
from paravt_env.video import FrameStore, VideoError
from paravt_env.video.readers.pyav import PyAVReader

SIZE = (32, 64)

# kind -> what the reason must say
BROKEN = {
    "missing": "No such file",
    "empty": "file is empty",
    "folder": "not a file",
    "device": "not a file",
    "dangling_link": "No such file",
    "text": "not a video",
    "zeros": "not a video",
    "noise": "not a video",
    "web_page": "not a video",
    "playlist": "list of other files",
    "concat": "list of other files",
    "audio": "only audio",
    "cover": "only audio",
    "picture": "no video",
    "truncated": "not a video that FFmpeg can open, or is truncated",
    "first_bytes": "no video|not a video",
    "index_only": "truncated or damaged|damaged|no intact frame",
    "noise_inside": "damaged|no intact frame",
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return write_video(tmp_path_factory.mktemp("whole") / "whole.mp4")


@pytest.fixture(scope="module")
def moov_first(tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "moov_first.mp4"
    return write_video(path, options={"movflags": "faststart"})


def break_video(kind: str, folder: Path, whole: Path, moov_first: Path) -> Path:
    """A file of that kind."""
    path = folder / f"{kind}.mp4"
    texts = {
        "text": "not a video\n" * 100,
        "web_page": "<!DOCTYPE html><title>404</title>" + "sorry " * 200,
        "playlist": f"#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\n{whole}\n#EXT-X-ENDLIST\n",
        "concat": f"ffconcat version 1.0\nfile '{whole.name}'\n",
    }
    if kind in texts:
        path = path.with_suffix(".m3u8") if kind == "playlist" else path
        path.write_text(texts[kind])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "folder":
        path.mkdir()
    elif kind == "device":
        path = Path(os.devnull)
    elif kind == "dangling_link":
        path.symlink_to(folder / "nowhere.mp4")
    elif kind == "zeros":
        path.write_bytes(bytes(5000))
    elif kind == "noise":
        path.write_bytes(np.random.default_rng(0).bytes(5000))
    elif kind in ("audio", "cover"):
        path = path if kind == "audio" else path.with_suffix(".mp3")
        codec = "aac" if kind == "audio" else "libmp3lame"
        write_audio(path, cover=kind == "cover", codec=codec)
    elif kind == "picture":
        header = b"P6\n64 32\n255\n"
        path = path.with_suffix(".ppm")
        path.write_bytes(header + bytes(3 * 32 * 64))
    elif kind == "truncated":
        truncate(whole, path, 0.6)
    elif kind == "first_bytes":
        truncate(moov_first, path, 0.02)
    elif kind == "index_only":
        data = moov_first.read_bytes()
        path.write_bytes(data[: data.index(b"mdat") + 4])
    elif kind == "noise_inside":
        at = moov_first.read_bytes().index(b"mdat") / moov_first.stat().st_size
        blot(moov_first, path, at + 0.02, 1.0)
    return path


@pytest.mark.parametrize("kind", BROKEN)
def test_every_kind_is_a_clear_error_of_its_own(tmp_path, whole, moov_first, kind):
    path = str(break_video(kind, tmp_path, whole, moov_first))
    store = FrameStore()
    with pytest.raises(VideoError, match=BROKEN[kind]) as caught:
        store.frames(path, np.linspace(0.1, 3.9, 8), SIZE)
    assert caught.value.path == path and path not in caught.value.reason
    # the store goes on
    assert [read_index(p) for p in store.frames(str(whole), np.array([1.0]), SIZE).pixels] == [24]
    store.close()


def test_a_vector_environment_reports_each_and_plays_the_others(tmp_path, whole, moov_first):
    kinds = list(BROKEN)
    paths = [str(break_video(kind, tmp_path, whole, moov_first)) for kind in kinds]
    tasks = [make_task(path, kind) for path, kind in zip(paths, kinds, strict=True)]
    tasks.append(make_task(str(whole), "fine"))
    vector = LongVideoVectorEnv(
        len(tasks), tasks=ListTasks(tasks), frame_size=SIZE, frame_budget=8, max_crops=1
    )
    _, info = vector.reset(options={"task_id": [task.id for task in tasks]})
    assert info["stop_reason"].tolist()[:-1] == ["video_error"] * len(kinds)
    assert not info["_stop_reason"][-1] and info["frames_seen"][-1] == 8
    for kind, error in zip(kinds, info["error"], strict=False):
        assert f"task '{kind}'" in error
    vector.close()


def test_noise_in_the_middle_loses_frames_and_never_mixes_them_up(tmp_path, moov_first):
    path = str(blot(moov_first, tmp_path / "spot.mp4", 0.70, 0.72))
    store = FrameStore()
    times = (np.arange(96) + 0.5) / 24
    answers = {}
    for i, time in enumerate(times):
        try:
            frames = store.frames(path, np.array([time]), SIZE)
            answers[i] = frames.timestamps[0]
        except VideoError as error:
            assert "damaged" in error.reason
    assert answers.keys() >= set(range(24))  # the key frame's group before the noise is intact
    np.testing.assert_allclose(list(answers.values()), np.array(list(answers)) / 24)
    store.close()


def test_the_environment_raises_with_the_tasks_name(tmp_path, whole, moov_first):
    path = str(break_video("audio", tmp_path, whole, moov_first))
    env = LongVideoEnv(ListTasks([make_task(path, "silent")]), frame_size=SIZE)
    with pytest.raises(VideoError, match=r"task 'silent'.*only audio"):
        env.reset(seed=0)
    env.close()


# --- nothing leaks ----------------------------------------------------------------------------


def resident() -> int:
    """Bytes of memory in use by this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="needs Linux's /proc")
@pytest.mark.parametrize(
    "use, opens", [("reader", 200), ("store", 200), ("broken", 100), ("process", 40)]
)
def test_200_opens_leak_no_memory_and_no_descriptor(tmp_path, whole, use, opens):
    bad = str(truncate(whole, tmp_path / "bad.mp4", 0.6))
    audio = str(write_audio(tmp_path / "audio.mp4"))
    store = FrameStore(isolation="process" if use == "process" else "thread", memory_bytes=10**5)
    times = np.random.default_rng(0).uniform(0, 4, (opens + 30, 1))

    def open_once(i: int) -> None:
        if use == "reader":
            reader = PyAVReader(str(whole))
            reader.frames_at(times[i], SIZE)
            reader.close()
        elif use == "broken":
            for path in (bad, audio):
                with pytest.raises(VideoError):
                    PyAVReader(path)
        else:
            store.frames(str(whole), times[i], SIZE)

    for i in range(30):  # pools of memory, thread stacks, the code itself
        open_once(i)
    gc.collect()
    memory, files, threads = resident(), descriptors(), threading.active_count()
    for i in range(30, opens + 30):
        open_once(i)
    gc.collect()
    assert descriptors() == files
    assert threading.active_count() == threads
    assert resident() - memory < 4 * 2**20  # an unclosed reader keeps 0.1 to 1 MB
    store.close()
