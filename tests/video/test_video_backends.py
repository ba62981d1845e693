"""Every back end on every awkward kind of file: the right frame, or a refusal that says why.

The frame's index is burned into its pixels, so a frame that is off by one is seen. Back ends that
are not installed are skipped.
"""

from __future__ import annotations

import functools
import logging
import subprocess
import sys
import types
from fractions import Fraction

import av
import numpy as np
import pytest
from support.kinds import write_colour, write_tracks
from support.videos import (
    TICKS,
    read_index,
    rotate,
    write_audio,
    write_cut,
    write_hidden_start,
    write_trimmed,
    write_video,
)

from paravt_env.settings import make_settings
from paravt_env.video import FrameStore, VideoError, VideoReader
from paravt_env.video.readers import backends
from paravt_env.video.readers.backends import BACKENDS, Backend, resolve_backend
from paravt_env.video.readers.table import FrameTable
from paravt_env.video.types import KeyFrameReader

SIZE = (32, 64)
N = 72


@functools.cache
def opener(name: str):
    try:
        return resolve_backend(name).load()
    except ImportError as error:
        pytest.skip(str(error))


@pytest.fixture(params=sorted(BACKENDS))
def backend(request) -> str:
    opener(request.param)
    return request.param


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("backends")


VFR = (3 * TICKS + np.cumsum(np.random.default_rng(5).integers(200, 9000, N))).tolist()

# kind -> how it is written, when its frames appear (seconds), the index of the first
KINDS = {
    "constant.mp4": {},
    "long_gop.mp4": {"gop": 250},
    "no_b_frames.mp4": {"b_frames": 0},
    "matroska.mkv": {},
    "variable.mp4": {"ticks": VFR},
    "variable.mkv": {"ticks": VFR},
    "open_gop.mp4": {"open_gop": True},
    "hevc.mp4": {
        "codec": "libx265",
        "options": {"x265-params": "log-level=none:open-gop=0"},
    },
    "hevc_open.mp4": {"codec": "libx265", "options": {"x265-params": "log-level=none:open-gop=1"}},
    "vp9.mp4": {"codec": "libvpx-vp9", "options": {"deadline": "realtime", "cpu-used": "8"}},
    "vp9.webm": {"codec": "libvpx-vp9", "options": {"deadline": "realtime", "cpu-used": "8"}},
    "odd.mp4": {"size": (54, 98), "pixels": "yuv444p"},
    "odd.webm": {"codec": "libvpx-vp9", "size": (55, 99), "options": {"cpu-used": "8"}},
    "copied.mp4": {},
    "copied_open.mp4": {"open_gop": True},
    "trimmed.mp4": {},
    "turned.mp4": {},
    "hidden_start.mp4": {},
    "mirrored.mp4": {},
    "sound_first.mp4": {"ticks": [TICKS // 2 + 500 * i for i in range(N)], "sound": True},
}

REFUSED = {  # by decord, and why
    "hidden_start.mp4": "edit lists",
    "mirrored.mp4": "turned pictures",
    "open_gop.mp4": "open groups of pictures",
    "hevc_open.mp4": "open groups of pictures",
    "copied_open.mp4": "open groups of pictures",
    "trimmed.mp4": "edit lists",
    "turned.mp4": "turned pictures",
}


REFUSALS = {  # pyav reads everything
    "decord": REFUSED,
    "pyav": {},
    "torchcodec": {"hidden_start.mp4": "begin with hidden frames", "mirrored.mp4": "mirrored"},
}


@functools.cache
def made(folder, kind: str):
    """A file of that kind: path, when its frames appear (seconds), index of the first."""
    options = dict(KINDS[kind])
    path = folder / kind
    starts, first, shown = np.arange(N) / 24, 0, N
    if kind.startswith("copied"):
        source = write_video(folder / f"source_{kind}", frames=96, **options)
        path, first = write_cut(source, path, start=1.5), 24  # from the key frame at 1 s
    elif kind == "trimmed.mp4":
        path = write_trimmed(write_video(folder / "whole.mp4", frames=2 * N, gop=250), path)
    elif kind == "hidden_start.mp4":
        path = write_hidden_start(write_video(folder / "long.mp4", frames=N + 18), path, 0.75)
        first = 18
    elif kind == "mirrored.mp4":
        path = rotate(write_video(folder / "straight.mp4", frames=N), path, mirrored=True)
    elif kind == "turned.mp4":
        path = rotate(write_video(folder / "upright.mp4", frames=N), path)
    else:
        write_video(path, frames=N, **options)
    if "ticks" in options:
        ticks = np.array(options["ticks"])
        starts = (ticks - (0 if options.get("sound") else ticks[0])) / TICKS
    if path.suffix in (".mkv", ".webm"):  # timestamps of whole milliseconds
        starts = np.round(starts + VFR[0] / TICKS, 3) - round(VFR[0] / TICKS, 3)
    assert len(starts) == shown
    return path, starts, first


def close_to_starts(starts: np.ndarray) -> np.ndarray:
    """Times a little before and after each frame appears, and far outside, in random order."""
    gaps = np.diff(starts, append=starts[-1] + 0.04)
    times = np.concatenate([starts + 0.002, starts + 0.95 * gaps, [-3.0, 1e6]])
    return np.random.default_rng(1).permutation(times)


def upright(pixels: np.ndarray, kind: str) -> np.ndarray:
    if kind == "mirrored.mp4":
        return pixels.swapaxes(0, 1)
    return np.rot90(pixels) if kind == "turned.mp4" else pixels


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_the_frame_on_screen_or_a_refusal(folder, backend, kind):
    path, starts, first = made(folder, kind)
    if kind in REFUSALS[backend]:
        why = REFUSALS[backend][kind]
        with pytest.raises(VideoError, match=rf"{why}.*use backend='pyav'") as caught:
            opener(backend)(str(path))
        assert caught.value.path == str(path)
        return
    reader = opener(backend)(str(path))
    assert isinstance(reader, VideoReader)
    times = close_to_starts(starts)
    size = SIZE[::-1] if kind in ("turned.mp4", "mirrored.mp4") else SIZE
    frames = reader.frames_at(times, size)
    units = reader.split(times)
    info = reader.info
    reader.close()
    expected = np.maximum(0, np.searchsorted(starts, times, side="right") - 1)
    assert [read_index(upright(p, kind)) for p in frames.pixels] == (first + expected).tolist()
    np.testing.assert_allclose(frames.timestamps, starts[expected], atol=2e-3)
    assert frames.pixels.dtype == np.uint8 and frames.pixels.shape[1:] == (*size, 3)
    assert sorted(np.concatenate(units).tolist()) == list(range(len(times)))
    assert info.duration == pytest.approx(starts[-1] + 1 / 24, abs=0.8 if "vari" in kind else 0.05)
    sides = {"odd.mp4": (98, 54), "odd.webm": (99, 55)}
    sides |= dict.fromkeys(("turned.mp4", "mirrored.mp4"), (64, 128))
    assert (info.width, info.height) == sides.get(kind, (128, 64))


def test_the_size_counts_stored_pixels_that_need_not_be_square(folder, backend):
    path = write_video(folder / f"wide_{backend}.mp4", frames=8, pixel_aspect=Fraction(2))
    with av.open(str(path)) as file:
        assert file.streams.video[0].sample_aspect_ratio == 2
    reader = opener(backend)(str(path))
    assert (reader.info.width, reader.info.height) == (128, 64)
    frames = reader.frames_at(np.array([0.0]), SIZE)
    reader.close()
    assert read_index(frames.pixels[0]) == 0, "stretched to the size, without bars"


@pytest.mark.parametrize("offset", [0, 7 * TICKS + 1])
def test_a_returned_timestamp_finds_its_frame_again(folder, backend, offset):
    ticks = [offset + round(i * TICKS * 1001 / 30000) for i in range(48)]
    path = write_video(folder / f"ntsc_{backend}_{offset}.mp4", ticks=ticks)
    reader = opener(backend)(str(path))
    first = reader.frames_at(np.linspace(0, 1.6, 48), SIZE)
    again = reader.frames_at(first.timestamps, SIZE)
    reader.close()
    np.testing.assert_array_equal(first.timestamps, again.timestamps)
    np.testing.assert_array_equal(first.pixels, again.pixels)


def test_no_frames_asked_and_times_that_are_not_finite(folder, backend):
    reader = opener(backend)(str(made(folder, "constant.mp4")[0]))
    assert reader.frames_at(np.zeros(0), SIZE).pixels.shape == (0, *SIZE, 3)
    assert reader.split(np.zeros(0)) == []
    with pytest.raises(ValueError, match="finite"):
        reader.frames_at(np.array([1.0, np.inf]), SIZE)
    reader.close()


def test_a_store_delivers_the_same_frames_from_every_back_end(folder, backend):
    path, starts, _ = made(folder, "constant.mp4")
    store = FrameStore(backend)
    assert (store.backend, store.isolated) == (backend, backend == "decord")
    frames = store.frames(str(path), starts[::5] + 0.01, SIZE)
    assert [read_index(p) for p in frames.pixels] == list(range(0, N, 5))
    store.close()


@pytest.mark.parametrize("kind", ["text", "cover", "audio", "playlist"])
def test_what_is_no_video_is_an_error_of_every_back_end(folder, backend, kind):
    path = folder / f"{backend}_{kind}.{'mp3' if kind == 'cover' else 'mp4'}"
    if kind == "text":
        path = path.with_suffix(".txt")
        path.write_text("not a video\n" * 100)
    elif kind == "playlist":
        other = made(folder, "constant.mp4")[0]
        path = path.with_suffix(".m3u8")
        path.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\n{other}\n#EXT-X-ENDLIST\n")
    else:
        write_audio(path, cover=kind == "cover", codec="libmp3lame" if kind == "cover" else "aac")
    with pytest.raises(VideoError) as caught:
        opener(backend)(str(path)).frames_at(np.array([0.1]), SIZE)
    assert (caught.value.path, bool(caught.value.reason)) == (str(path), True)


def test_decord_refuses_a_file_whose_frames_it_counts_otherwise(folder, monkeypatch):
    opener("decord")
    from paravt_env.video.readers import decord as ours

    path, starts, _ = made(folder, "no_b_frames.mp4")
    reader = ours.DecordReader(str(path))
    for wrong in (starts[:-1], starts + np.linspace(0, 0.5, N)):
        table = FrameTable(wrong, np.ones(len(wrong), bool), False, False)
        monkeypatch.setattr(reader, "_table", table)
        with pytest.raises(VideoError, match="other frames or times"):
            reader.frames_at(np.array([0.5]), SIZE)


def test_an_untagged_hd_picture_has_the_same_colours_in_every_back_end(folder, backend):
    path = write_colour(folder / f"colour_{backend}.mp4", 720, (40, 170, 90), 1)
    if backend == "decord":
        with pytest.raises(VideoError, match="colours of HD"):
            opener(backend)(str(path))
        return
    reader = opener(backend)(str(path))
    pixel = reader.frames_at(np.array([0.0]), (8, 8)).pixels[0, 4, 4]
    reader.close()
    assert np.abs(pixel.astype(int) - (40, 170, 90)).max() <= 4


def test_of_several_tracks_every_back_end_takes_the_same(folder, backend):
    path = write_tracks(folder / f"t_{backend}.mkv", [(32, 64), (64, 128)], [False, True])
    if backend == "decord":
        with pytest.raises(VideoError, match="several video tracks"):
            opener(backend)(str(path))
        return
    reader = opener(backend)(str(path))
    assert read_index(reader.frames_at(np.array([0.2]), SIZE).pixels[0]) == 105
    reader.close()


# --- decoding on a GPU ------------------------------------------------------------------------


def test_a_gpu_is_asked_for_by_name_and_never_chosen():
    for name in ("pyav", "decord", "auto"):
        with pytest.raises(ValueError, match=r"video_device='cuda' needs backend='torchcodec'"):
            make_settings({"backend": name, "video_device": "cuda"})
    with pytest.raises(ValueError, match=r"must be 'cpu', 'cuda' or 'cuda:N', not 'gpu'"):
        make_settings({"backend": "torchcodec", "video_device": "gpu"})
    assert resolve_backend("pyav").device == "cpu"


def test_a_gpu_that_is_not_there_is_an_error_that_says_so():
    opener("torchcodec")
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(RuntimeError, match=r"needs an Nvidia GPU.*use video_device='cpu'"):
        FrameStore("torchcodec", device="cuda")


@pytest.mark.gpu
@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("isolation", ["thread", "process"])
def test_a_gpu_shows_the_frame_on_screen_or_refuses(folder, kind, isolation):
    opener("torchcodec")
    if not pytest.importorskip("torch").cuda.is_available():
        pytest.skip("needs a CUDA GPU")
    path, starts, first = made(folder, kind)
    store = FrameStore("torchcodec", device="cuda", isolation=isolation)
    times = close_to_starts(starts)
    size = SIZE[::-1] if kind in ("turned.mp4", "mirrored.mp4") else SIZE
    if kind in REFUSALS["torchcodec"]:
        with pytest.raises(VideoError, match=REFUSALS["torchcodec"][kind]):
            store.frames(str(path), times, size)
    else:
        frames = store.frames(str(path), times, size)
        expected = np.maximum(0, np.searchsorted(starts, times, side="right") - 1)
        shown = [read_index(upright(pixels, kind)) for pixels in frames.images]
        assert shown == (first + expected).tolist()
    store.close()


# --- the choice by name -----------------------------------------------------------------------


def test_auto_takes_pyav_and_says_so(caplog):
    caplog.set_level(logging.INFO, "paravt_env.video")
    store = FrameStore("auto")
    assert (store.backend, store.isolated) == ("pyav", False)
    assert "video back end auto: pyav" in caplog.text
    store.close()


def test_auto_warns_when_its_first_choice_does_not_load(monkeypatch, caplog):
    monkeypatch.setitem(BACKENDS, "pyav", "no_such_module_at_all:Reader")
    monkeypatch.setitem(BACKENDS, "torchcodec", f"{__name__}:opener")
    monkeypatch.setattr(backends.importlib.util, "find_spec", lambda name: object())
    assert resolve_backend("auto").name == "torchcodec"
    (record,) = caplog.records
    assert record.levelno == logging.WARNING and "'pyav' is installed but" in record.message
    monkeypatch.setitem(BACKENDS, "torchcodec", "no_such_module_at_all:Reader")
    with pytest.raises(ImportError, match=r"no video back end loads: .*pyav.*torchcodec"):
        resolve_backend("auto")


def test_auto_never_takes_decord():
    assert "decord" not in backends.AUTO


@pytest.mark.parametrize("name", ["decord", "torchcodec"])
def test_an_absent_back_end_says_what_to_install(monkeypatch, name):
    monkeypatch.setattr(backends.importlib.util, "find_spec", lambda package: None)
    message = rf"'{name}' is not installed: pip install 'paravt\[{name}\]', or .*backend='pyav'"
    for use in (lambda: make_settings({"backend": name}), lambda: FrameStore(name)):
        with pytest.raises(ImportError, match=message):
            use()


def test_a_back_end_that_does_not_load_says_why(tmp_path, monkeypatch):
    (tmp_path / "broken_codec_module.py").write_text("raise OSError('libavutil.so.59: not found')")
    monkeypatch.syspath_prepend(tmp_path)
    backend = Backend("torchcodec", "broken_codec_module:Reader", "")
    with pytest.raises(ImportError, match=r"FFmpeg's shared libraries.*libavutil.so.59: not found"):
        backend.load()


def test_decord2_is_refused(monkeypatch):
    monkeypatch.setitem(sys.modules, "decord", types.SimpleNamespace(__version__="3.4.0"))
    monkeypatch.delitem(sys.modules, "paravt_env.video.readers.decord", raising=False)
    with pytest.raises(ImportError, match=r"decord2, which returns wrong frames: pip uninstall"):
        Backend("decord", BACKENDS["decord"], "").load()


def test_choosing_a_back_end_loads_no_other():
    code = (
        "import sys; from paravt_env.settings import make_settings; from paravt_env.video import *;"
        "make_settings({'backend': 'auto'}); FrameStore('pyav');"
        "print([m for m in ('torch', 'torchcodec', 'decord') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# --- snap -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["constant.mp4", "matroska.mkv", "copied_open.mp4", "vp9.webm"])
def test_key_times_are_those_of_the_nearest_key_frames(folder, backend, kind):
    if backend == "torchcodec" or (backend == "decord" and kind in REFUSED):
        pytest.skip("this back end does not tell")
    path, _, first = made(folder, kind)
    reader = opener(backend)(str(path))
    assert isinstance(reader, KeyFrameReader)
    wanted = np.array([0.0, 0.4, 0.6, 1.3, 1.6, 2.9])
    keys = reader.key_times(wanted)
    np.testing.assert_allclose(keys, [0, 0, 1, 1, 2, 2], atol=1.5e-3)
    shown = [read_index(p) - first for p in reader.frames_at(keys, SIZE).pixels]
    assert shown == [0, 0, 24, 24, 48, 48]
    reader.close()


def test_torchcodec_refuses_to_snap(folder):
    opener("torchcodec")
    store = FrameStore("torchcodec")
    with pytest.raises(ValueError, match=r"does not tell where key frames are: use backend='pyav'"):
        store.snap(str(made(folder, "constant.mp4")[0]), np.array([0.5]), 0.1)
    store.close()
