"""How long frames take: the sampler against the readers that agentic-video code uses today.

Two questions of a rollout are timed on one H.264 file (640 x 360, 24 frames a second, a key frame
every 250, B-frames, an hour long): the **overview**, 64 frames over the whole file, and a turn of
**crops**, 5 windows of 16 frames in 20 s. *Cold*: nothing is decoded yet (the file itself is in
the page cache for everybody). *Group*: what each other rollout of the group pays for the same
frames; the peers share nothing between rollouts, so they pay the cold price again.

Every reader delivers RGB of 168 x 280. Rounds are interleaved, each starts with the next reader,
and the table shows medians. `3.0x` means that ParaVT (its default of 2 threads) is three times as
fast. What is not installed is listed as such.

    pip install qwen-vl-utils==0.0.14 decord torchcodec opencv-python-headless torchvision
    python benchmarks/frames.py --output benchmarks/results/frames.txt
    python benchmarks/frames.py --quick

torchcodec also needs FFmpeg's shared libraries on the loader's path.
"""

from __future__ import annotations

import argparse
import gc
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from importlib import metadata
from pathlib import Path

import av
import numpy as np

from paravt_env.video import FrameStore, overview_times, window_times

FPS, GOP, SIZE, SCALED = 24, 250, (360, 640), (168, 280)
PART = 2 * GOP  # frames that are encoded, then repeated
CROP_SECONDS, CROP_FRAMES, GROUP = 20.0, 16, 8
Window = tuple[float, float]


@dataclass(frozen=True)
class Load:
    """What is asked for."""

    path: str
    duration: float
    overview: int
    windows: tuple[Window, ...]


@dataclass(frozen=True)
class Timing:
    """Seconds of one round."""

    overview: float
    overview_group: float
    crops: float
    crops_group: float


# --- the file -----------------------------------------------------------------------------------


def make_file(minutes: int, folder: Path) -> Path:
    """A file of that length: 2 groups of pictures encoded once, then repeated packet by packet."""
    path = folder / f"frames_{minutes}min_g{GOP}.mp4"
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f"{path.stem}.{os.getpid()}.part.mp4"
    with av.open(str(part), "w") as out:
        stream = out.add_stream("libx264", rate=FPS)
        stream.height, stream.width = SIZE
        stream.pix_fmt = "yuv420p"
        stream.options = {
            "preset": "veryfast",
            "x264-params": f"keyint={GOP}:min-keyint={GOP}:scenecut=0:open-gop=0:bframes=3",
        }
        packets = [p for picture in _pictures(PART) for p in stream.encode(picture)]
        packets += stream.encode(None)
        times = [(packet.pts, packet.dts) for packet in packets]
        base = packets[0].time_base
        ticks = round(Fraction(PART, FPS) / base)  # of the part that repeats
        for repeat in range(-(-minutes * 60 * FPS // (PART))):
            for packet, (pts, dts) in zip(packets, times, strict=True):
                copy = av.Packet(bytes(packet))
                copy.stream, copy.time_base = stream, base
                copy.pts, copy.dts = pts + repeat * ticks, dts + repeat * ticks
                copy.is_keyframe = packet.is_keyframe
                if copy.pts < minutes * 60 / base:
                    out.mux(copy)
    part.replace(path)
    return path


def _pictures(count: int) -> Iterator[av.VideoFrame]:
    """A panning texture, moving blocks and grain: enough of everything to cost what films do."""
    rng = np.random.default_rng(0)
    height, width = SIZE
    y, x = np.mgrid[:height, : 2 * width]
    waves = [np.sin((x * a + y * b) / 40) for a, b in ((1.0, 0.3), (0.4, 1.0), (0.7, -0.6))]
    texture = (120 + 60 * np.stack(waves, -1)).astype(np.uint8)
    grain = rng.integers(0, 12, (8, height, width, 1), np.uint8)
    for i in range(count):
        pan = int(width / 2 * (1 + np.sin(i / 90)))
        picture = texture[:, pan : pan + width] + grain[i % 8]
        for block in range(12):
            row = 20 * block + int(30 * np.sin(i / 9 + block)) + 40
            column = (97 * block + i * (block % 5 - 2)) % (width - 80)
            picture[row : row + 60, column : column + 80] = 20 * block
        frame = av.VideoFrame.from_ndarray(picture, "rgb24")
        frame.pts, frame.time_base = i, Fraction(1, FPS)
        yield frame


# --- the readers --------------------------------------------------------------------------------


def paravt(workers: int) -> Callable[[Load], Timing]:
    """Ours, with a fresh store each round."""

    def run(load: Load) -> Timing:
        store = FrameStore(workers=workers)
        overview = overview_times(load.duration, load.overview)
        crops = [window_times(*w, fps=1.0, max_frames=CROP_FRAMES) for w in load.windows]

        def turn() -> None:
            for pending in [store.submit(load.path, times, SCALED) for times in crops]:
                assert pending.result().pixels.shape == (CROP_FRAMES, *SCALED, 3)

        times = [
            _seconds(lambda: store.frames(load.path, overview, SCALED)),
            _seconds(lambda: store.frames(load.path, overview, SCALED)),
            _seconds(turn),
            _seconds(turn),
        ]
        assert store.decoded == load.overview + CROP_FRAMES * len(load.windows)
        store.close()
        return Timing(*times)

    return run


def qwen_vl_utils(backend: str) -> Callable[[Load], Timing]:
    """The peers' default reader with one of its back ends; the crops of a turn in threads."""
    from qwen_vl_utils import vision_process

    package = {"torchcodec": "torchcodec.decoders", "decord": "decord"}[backend]
    __import__(package)  # a back end that does not load would silently be replaced

    def fetch(load: Load, frames: int, window: Window | None) -> None:
        vision_process.FORCE_QWENVL_VIDEO_READER = backend
        vision_process.get_video_reader_backend.cache_clear()
        asked = {"video": load.path, "nframes": frames}
        asked |= {"resized_height": SCALED[0], "resized_width": SCALED[1]}
        if window is not None:
            asked |= {"video_start": window[0], "video_end": window[1]}
        video = vision_process.fetch_video(asked)
        assert tuple(video.shape) == (frames, 3, *SCALED), video.shape

    return _peer(fetch)


def opencv() -> Callable[[Load], Timing]:
    """OpenCV: seek to each time, read, resize."""
    import cv2

    def fetch(load: Load, frames: int, window: Window | None) -> None:
        start, end = window or (0.0, load.duration)
        video = cv2.VideoCapture(load.path)
        for moment in window_times(start, end, fps=1000.0, max_frames=frames):
            video.set(cv2.CAP_PROP_POS_MSEC, 1000 * moment)
            done, picture = video.read()
            assert done
            cv2.cvtColor(cv2.resize(picture, SCALED[::-1]), cv2.COLOR_BGR2RGB)
        video.release()

    return _peer(fetch)


def pyav_plain() -> Callable[[Load], Timing]:
    """PyAV as its manual shows it: seek, decode up to the time, convert."""

    def fetch(load: Load, frames: int, window: Window | None) -> None:
        start, end = window or (0.0, load.duration)
        with av.open(load.path) as container:
            stream = container.streams.video[0]
            for moment in window_times(start, end, fps=1000.0, max_frames=frames):
                container.seek(int(moment / stream.time_base), stream=stream)
                for frame in container.decode(stream):
                    if frame.time + 1 / FPS > moment:
                        frame.to_ndarray(height=SCALED[0], width=SCALED[1], format="rgb24")
                        break

    return _peer(fetch)


READERS: dict[str, Callable[[], Callable[[Load], Timing]]] = {
    "ParaVT, 2 threads": lambda: paravt(2),
    "ParaVT, 1 thread": lambda: paravt(1),
    "qwen-vl-utils + torchcodec": lambda: qwen_vl_utils("torchcodec"),
    "qwen-vl-utils + decord": lambda: qwen_vl_utils("decord"),
    "OpenCV, seek and read": opencv,
    "PyAV, seek and decode": pyav_plain,
}


def _peer(fetch: Callable[[Load, int, Window | None], None]) -> Callable[[Load], Timing]:
    def turn(load: Load) -> None:
        with ThreadPoolExecutor(len(load.windows)) as threads:
            list(threads.map(lambda w: fetch(load, CROP_FRAMES, w), load.windows))

    def run(load: Load) -> Timing:
        overview = _seconds(lambda: fetch(load, load.overview, None))
        crops = _seconds(lambda: turn(load))
        return Timing(overview, overview, crops, crops)

    return run


def _seconds(work: Callable[[], object]) -> float:
    gc.collect()
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


# --- the table ----------------------------------------------------------------------------------


def measure(load: Load, rounds: int) -> tuple[dict[str, Timing], dict[str, str]]:
    """Median timings by reader, and why the others could not run."""
    readers: dict[str, Callable[[Load], Timing]] = {}
    absent: dict[str, str] = {}
    for name, make in READERS.items():
        try:
            readers[name] = make()
        except ModuleNotFoundError as error:
            absent[name] = f"not installed ({error.name})"
        except (ImportError, OSError, RuntimeError) as error:
            absent[name] = f"does not load ({str(error).strip().splitlines()[0]})"
    seen: dict[str, list[Timing]] = {name: [] for name in readers}
    names = list(readers)
    for i in range(rounds):
        for name in names[i % len(names) :] + names[: i % len(names)]:
            seen[name].append(readers[name](load))
            print(f"round {i + 1}/{rounds}: {name}", file=sys.stderr)
    fields = Timing.__dataclass_fields__
    medians = {
        name: Timing(*(statistics.median(getattr(t, f) for t in timings) for f in fields))
        for name, timings in seen.items()
    }
    return medians, absent


def table(load: Load, medians: dict[str, Timing], absent: dict[str, str], rounds: int) -> str:
    """Seconds, and how many times as fast ParaVT is."""
    ours = medians["ParaVT, 2 threads"]
    k, n = load.overview, len(load.windows)
    title = f"{k} frames of {load.duration / 60:.0f} min; {n} windows of {CROP_FRAMES} frames"
    heads = ("overview", "crops", f"group of {GROUP}, each other rollout", f"group of {GROUP}, all")
    lines = [
        f"{title}; median of {rounds} interleaved rounds; seconds, and time / ParaVT's time",
        "",
        f"{'reader':28}" + "".join(f"{h:>38}" if "each" in h else f"{h:>18}" for h in heads),
    ]
    for name, t in medians.items():
        cold, own = t.overview + t.crops, ours.overview + ours.crops
        other = t.overview_group + t.crops_group
        own_other = ours.overview_group + ours.crops_group
        whole, own_whole = cold + (GROUP - 1) * other, own + (GROUP - 1) * own_other
        lines.append(
            f"{name:28}"
            f"{_cell(t.overview, ours.overview):>18}{_cell(t.crops, ours.crops):>18}"
            f"{_cell(other, own_other):>38}{_cell(whole, own_whole):>18}"
        )
    lines += [f"{name:28}  {why}" for name, why in absent.items()]
    return "\n".join(lines)


def _cell(seconds: float, ours: float) -> str:
    ratio = seconds / ours
    return f"{seconds:.3f} s {ratio:.0f}x" if ratio >= 20 else f"{seconds:.3f} s {ratio:.1f}x"


def machine() -> str:
    """One line: processor, cores, versions."""
    lines = (
        Path("/proc/cpuinfo").read_text().splitlines() if os.path.exists("/proc/cpuinfo") else []
    )
    cpu = next((x.split(":")[1].strip() for x in lines if "model name" in x), platform.processor())
    ffmpeg = ".".join(map(str, av.library_versions["libavcodec"]))
    peers = ("qwen-vl-utils", "torchcodec", "decord", "opencv-python-headless", "torch")
    versions = [f"{p} {_version(p)}" for p in ("av", *peers)]
    return (
        f"{cpu}, {os.cpu_count()} cores, Python {platform.python_version()}, "
        f"libavcodec {ffmpeg}, {', '.join(versions)}"
    )


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def main() -> None:
    """Make the file (cached), run the rounds, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="a short file: under a minute")
    parser.add_argument("--rounds", type=int, help="rounds (default 5; 3 with --quick)")
    parser.add_argument("--output", type=Path, help="also write the table here")
    cache = Path(os.environ.get("PARAVT_CACHE", Path(tempfile.gettempdir()) / "paravt"))
    parser.add_argument("--cache", type=Path, default=cache, help="folder of the video file")
    args = parser.parse_args()
    minutes, overview, windows = (5, 8, 1) if args.quick else (60, 64, 5)
    rounds = args.rounds or (3 if args.quick else 5)
    start = time.perf_counter()
    path = make_file(minutes, args.cache / "benchmarks")
    print(f"{path.name} ready after {time.perf_counter() - start:.1f} s", file=sys.stderr)
    path.read_bytes()  # into the page cache, for everybody
    duration = minutes * 60.0
    starts = [(i + 0.5) * duration / windows - 7.3 for i in range(windows)]
    load = Load(str(path), duration, overview, tuple((s, s + CROP_SECONDS) for s in starts))
    medians, absent = measure(load, rounds)
    command = " ".join(["python", "benchmarks/frames.py", *sys.argv[1:]])
    text = f"$ {command}\n{machine()}\n\n{table(load, medians, absent, rounds)}\n"
    print(text)
    if args.output is not None:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(text)


if __name__ == "__main__":
    main()
