"""Containers x codecs x encoders: is every frame the one that a full decode in order gives?

Each row is a file that is written here, of 100 pictures that carry their number. All its pictures
are decoded in order once, by FFmpeg alone; then the default back end is asked for overviews of 8,
16 and 64 frames and for 20 random windows of up to 16, with 1, 2 and 4 threads. A frame is wrong if
one of its pixels differs from the full decode's, or if it does not appear at the time at which it
was written. *refused* is a file that is not read, with the reason.

    python benchmarks/video_matrix.py --output benchmarks/results/video_matrix.md
    python benchmarks/video_matrix.py --quick

*slow* counts the frames that only a decode from further back than needed gave.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

sys.path.append(str(Path(__file__).parent.parent / "tests"))
from support.kinds import (
    write_intra_refresh,
    write_late_decode_times,
    write_old_444,
    write_packed,
    write_rare_end,
    write_without_reorder_table,
)
from support.videos import burn, rotate, write_cut, write_hidden_start, write_video

from paravt_env.common.progress import counted
from paravt_env.video import FrameStore, VideoError, overview_times, window_times

TESTS = Path(__file__).parent.parent / "tests"
FPS, FRAMES = 25, 100
WORKERS = (1, 2, 4)
SIZE = (64, 128)
Written = tuple[Path, np.ndarray]
"""A file, and when each of its pictures appears in seconds."""


@dataclass(frozen=True)
class Row:
    """One file of the matrix."""

    container: str
    codec: str
    about: str
    write: Callable[[Path], Written]


@dataclass
class Result:
    """What was seen of a file."""

    compared: int = 0
    wrong: int = 0
    slow: int = 0
    refused: str = ""


# --- files --------------------------------------------------------------------------------------


def encoded(
    path: Path,
    codec: str,
    *,
    size: tuple[int, int] = SIZE,
    pixels: str = "yuv420p",
    gop: int = 24,
    b_frames: int = 0,
    options: dict[str, str] | None = None,
    container: dict[str, str] | None = None,
    ticks: Sequence[int] | None = None,
    base: Fraction = Fraction(1, FPS),
    interlaced: bool = False,
) -> Written:
    """A file of `FRAMES` pictures, at `ticks` of the time base."""
    ticks = range(FRAMES) if ticks is None else ticks
    with av.open(str(path), "w", options=container or {}) as out:
        stream = out.add_stream(codec, rate=FPS)
        stream.height, stream.width = size
        stream.pix_fmt, stream.time_base = pixels, base
        context = stream.codec_context
        context.time_base, context.gop_size, context.max_b_frames = base, gop, b_frames
        if interlaced:
            context.flags |= av.codec.context.Flags.interlaced_dct
        stream.options = options or {}
        for i, tick in enumerate(ticks):
            frame = av.VideoFrame.from_ndarray(burn(i, *size), "rgb24").reformat(format=pixels)
            frame.pts, frame.time_base = tick, base
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    times = np.array(ticks) * float(base)
    return path, times - times[0]


def x264(**params: object) -> dict[str, str]:
    """Options of libx264: key frames every 24 pictures, and what is given."""
    given = {"keyint": 24, "min-keyint": 24, "scenecut": 0, "bframes": 3} | params
    text = ":".join(f"{name.replace('_', '-')}={value}" for name, value in given.items())
    return {"preset": "veryfast", "crf": "20", "x264-params": text}


def x265(**params: object) -> dict[str, str]:
    """Likewise of libx265."""
    given = {"log-level": "none", "keyint": 24, "min-keyint": 24, "scenecut": 0} | params
    text = ":".join(f"{name.replace('_', '-')}={value}" for name, value in given.items())
    return {"preset": "ultrafast", "x265-params": text}


VPX = {"deadline": "realtime", "cpu-used": "8"}
ALT_REF = {"auto-alt-ref": "1", "lag-in-frames": "16", "deadline": "good", "cpu-used": "5"}
AV1 = {"preset": "12", "svtav1-params": "keyint=24:scd=0"}
H264, HEVC = "libx264", "libx265"
GAPS = np.random.default_rng(0).integers(200, 3000, FRAMES)
UNEVEN = (36_000 + np.cumsum(GAPS)).tolist()
"""Ticks of 1/12,000 s of a screen recording that starts at 3 s."""
FRAGMENTS = {"movflags": "frag_keyframe+empty_moov"}


def plain(container: str, codec: str, about: str, /, **settings: object) -> Row:
    """A row written by `encoded`."""
    return Row(container, codec, about, lambda path: encoded(path, codec, **settings))


def uneven(container: str, codec: str, options: dict[str, str]) -> Row:
    """A row of variable frame rate."""
    settings = {"options": options, "ticks": UNEVEN, "base": Fraction(1, 12_000)}
    return plain(container, codec, "variable rate, starts at 3 s", **settings)


def special(container: str, codec: str, about: str, write: Callable[[Path], Path]) -> Row:
    """A row of `tests/support`, at a constant rate."""

    def written(path: Path) -> Written:
        return write(path), np.arange(FRAMES) / FPS

    return Row(container, codec, about, written)


def beside(path: Path, name: str, **settings: object) -> Path:
    """A source of `write_video` that another file is made of."""
    given = {"frames": FRAMES, "fps": FPS} | settings
    return write_video(path.with_name(f"{path.stem}_{name}"), **given)


def rows() -> Iterator[Row]:
    """The matrix."""
    for container in ("mp4", "mov", "mkv", "ts", "flv", "nut", "avi", "asf", "mxf", "3gp"):
        yield plain(container, H264, "B pictures", options=x264())
    for container in ("mp4", "mkv", "ts", "avi", "flv"):
        yield plain(container, H264, "open groups", options=x264(open_gop=1))
    for container in ("mp4", "ts", "avi", "asf"):
        yield plain(container, H264, "no B pictures", options=x264(bframes=0))
    for container in ("mp4", "mkv", "ts"):
        yield special(container, H264, "periodic intra refresh", write_intra_refresh)
    yield plain("mp4", H264, "one key frame", options=x264(keyint=250))
    yield plain("mp4", H264, "fragmented", options=x264(), container=FRAGMENTS)
    yield plain("mp4", H264, "index first", options=x264(), container={"movflags": "faststart"})
    negative = {"movflags": "negative_cts_offsets"}
    yield plain("mp4", H264, "negative offsets", options=x264(), container=negative)
    yield plain("mp4", H264, "B pyramid of 8", options=x264(bframes=8, b_pyramid="normal"))
    yield plain("mp4", H264, "interlaced", options=x264(tff=1), interlaced=True)
    yield plain("ts", H264, "interlaced", options=x264(tff=1), interlaced=True)
    yield plain("mp4", H264, "10 bits", options=x264(), pixels="yuv420p10le")
    yield plain("mp4", H264, "4:4:4", options=x264(), pixels="yuv444p")
    yield plain("mkv", "libx264rgb", "lossless RGB", options={"qp": "0"}, pixels="rgb24")
    yield Row("mp4", H264, "4:4:4 of 2011", lambda path: (write_old_444(path), np.arange(60) / FPS))
    yield Row("mp4", H264, "rare last pictures", write_rare_end)
    for container in ("mp4", "mkv", "nut"):
        yield uneven(container, H264, x264())
    yield special(
        "mp4",
        H264,
        "no reorder table",
        lambda p: write_without_reorder_table(p, beside(p, "source.mp4")),
    )
    yield special(
        "ts",
        H264,
        "decode times late",
        lambda p: write_late_decode_times(p, beside(p, "a.ts"), 10_800),
    )
    yield special(
        "mp4", H264, "copied cut", lambda p: write_cut(beside(p, "a.mp4", frames=124), p, 1.0)
    )
    yield special(
        "mp4",
        H264,
        "copied cut, open groups",
        lambda p: write_cut(beside(p, "a.mp4", frames=124, open_gop=True), p, 1.0),
    )
    yield special(
        "mp4",
        H264,
        "edit list inside a group",
        lambda p: write_hidden_start(beside(p, "a.mp4", frames=118), p, 0.72),
    )
    yield special("mp4", H264, "a phone's turned picture", lambda p: rotate(beside(p, "a.mp4"), p))
    yield special("mp4", H264, "a mirrored picture", lambda p: rotate(beside(p, "a.mp4"), p, True))
    yield special("h264", H264, "raw stream", lambda p: write_video(p, frames=FRAMES, fps=FPS))
    yield special("ts", H264, "two recordings joined", _joined)
    for container in ("mp4", "mkv", "ts", "flv"):
        yield plain(container, HEVC, "open groups", options=x265(open_gop=1))
    for container in ("mp4", "ts"):
        yield plain(container, HEVC, "closed groups", options=x265(open_gop=0))
    yield plain("mp4", HEVC, "10 bits", options=x265(), pixels="yuv420p10le")
    yield special(
        "mp4",
        HEVC,
        "no reorder table",
        lambda p: write_without_reorder_table(p, beside(p, "a.mp4", codec=HEVC)),
    )
    yield special(
        "ts",
        HEVC,
        "decode times late",
        lambda p: write_late_decode_times(p, beside(p, "a.ts", codec=HEVC), 10_800),
    )
    yield uneven("mp4", HEVC, x265())
    for container in ("mp4", "mkv", "webm", "ivf"):
        yield plain(container, "libsvtav1", "hierarchical", options=AV1)
    for container in ("webm", "mkv", "mp4", "ivf"):
        yield plain(container, "libvpx-vp9", "realtime", options=VPX)
    yield plain("webm", "libvpx-vp9", "hidden frames", options=ALT_REF)
    for container in ("webm", "mkv", "ogg", "avi"):
        yield plain(container, "libvpx", "realtime", options=VPX)
    yield plain("webm", "libvpx", "hidden frames", options=ALT_REF)
    for container in ("avi", "mp4", "mkv", "mov"):
        yield plain(container, "mpeg4", "no B pictures")
        yield plain(container, "mpeg4", "B pictures", b_frames=2)
    yield special(
        "avi",
        "mpeg4",
        "packed B pictures",
        lambda p: write_packed(p, beside(p, "a.avi", codec="mpeg4", b_frames=1)),
    )
    for container in ("mpg", "ts", "mkv", "mp4", "mxf", "avi"):
        yield plain(container, "mpeg2video", "B pictures", b_frames=2)
    yield plain("mpg", "mpeg1video", "B pictures", b_frames=2)
    yield Row("ogv", "libtheora", "repeated pictures", _repeats)
    for container, codec in (
        ("asf", "wmv2"),
        ("asf", "msmpeg4"),
        ("avi", "msmpeg4"),
        ("avi", "wmv1"),
        ("flv", "flv"),
        ("rm", "rv20"),
        ("avi", "huffyuv"),
        ("mkv", "ffv1"),
        ("avi", "utvideo"),
        ("mov", "prores_ks"),
        ("mov", "dnxhd"),
        ("avi", "mjpeg"),
        ("mov", "mjpeg"),
    ):
        formats = {"huffyuv": "yuv422p", "prores_ks": "yuv422p10le", "dnxhd": "yuv422p"}
        formats["mjpeg"] = "yuvj420p"
        settings: dict[str, object] = {"pixels": formats.get(codec, "yuv420p")}
        if codec == "dnxhd":
            settings |= {"size": (128, 256), "options": {"profile": "dnxhr_lb"}}
        yield plain(container, codec, "-", **settings)


def _repeats(path: Path) -> Written:
    path.write_bytes((TESTS / "video" / "data" / "theora_repeats.ogv").read_bytes())
    return path, np.arange(20) / 5


def _joined(path: Path) -> Path:
    halves = [beside(path, f"{i}.ts", frames=50, first_index=50 * i) for i in range(2)]
    path.write_bytes(b"".join(half.read_bytes() for half in halves))
    return path


# --- comparison ---------------------------------------------------------------------------------


def linear(path: Path) -> np.ndarray:
    """Every picture in the order in which a decoder returns them, upright, uint8 (N, *SIZE, 3)."""
    pictures = []
    with av.open(str(path)) as file:
        stream = file.streams.video[0]
        stream.codec_context.thread_count = 1
        for packet in file.demux(stream):
            if packet.size:
                pictures += stream.codec_context.decode(packet)
        pictures += stream.codec_context.decode(None)
        width, height = SIZE[1], SIZE[0]
        return np.stack(
            [
                picture.reformat(width, height, "rgb24", interpolation="BILINEAR").to_ndarray()
                for picture in pictures
            ]
        )


def requests(duration: float) -> list[np.ndarray]:
    """Times of overviews and of windows, the same in every run."""
    rng = np.random.default_rng(3)
    asked = [overview_times(duration, k) for k in (8, 16, 64)]
    for start in rng.uniform(0, max(0.0, duration - 0.5), 20):
        end = min(duration, start + rng.uniform(0.3, 2.0))
        asked.append(window_times(start, end, fps=FPS, max_frames=16))
    return asked


def compare(row: Row, written: Written, workers: Sequence[int]) -> Result:
    """Read a file in every way and count what is wrong."""
    path, starts = written
    result = Result()
    truth = linear(path)
    turned = "turned" in row.about or "mirrored" in row.about
    if turned:  # both turn rows into columns
        truth = truth.swapaxes(1, 2)
        truth = truth[:, :, ::-1] if "turned" in row.about else truth
    size = SIZE[::-1] if turned else SIZE
    for count in workers:
        store = FrameStore(workers=count)
        try:
            for times in requests(store.info(str(path)).duration):
                frames = store.frames(str(path), times, size)
                shown = np.maximum(0, np.searchsorted(starts, times + 1e-6, side="right") - 1)
                late = np.abs(frames.timestamps - starts[shown]) > 2e-3
                differs = (frames.pixels != truth[shown]).any(axis=(1, 2, 3))
                result.compared += len(times)
                result.wrong += int((late | differs).sum())
                result.slow += frames.slow_count
        except VideoError as error:
            result.refused = error.reason
        finally:
            store.close()
    return result


def table(workers: Sequence[int], chosen: Sequence[Row]) -> list[str]:
    """A line a row, and the sums."""
    lines = ["| container | encoder | file | compared | wrong | slow |", f"|{'---|' * 6}"]
    counts = {"read": 0, "refused": 0, "compared": 0, "wrong": 0}
    with tempfile.TemporaryDirectory() as folder:
        for number, row in counted("files", enumerate(chosen)):
            path = Path(folder) / f"{number}.{row.container}"
            with contextlib.redirect_stdout(io.StringIO()):
                written = row.write(path)
            result = compare(row, written, workers)
            head = f"| {row.container} | {row.codec} | {row.about} |"
            if result.refused:
                counts["refused"] += 1
                lines.append(f"{head} refused: {result.refused} | | |")
            else:
                counts["read"] += 1
                lines.append(f"{head} {result.compared:,} | {result.wrong} | {result.slow} |")
            counts["compared"] += result.compared
            counts["wrong"] += result.wrong
    total = f"{len(chosen)} files: {counts['read']} read, {counts['refused']} refused; "
    lines += ["", f"{total}{counts['compared']:,} frames compared, {counts['wrong']} wrong."]
    return lines


def main() -> None:
    """Write the files, compare, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="every sixth file, one thread")
    parser.add_argument("--output", type=Path, help="also write the table here")
    args = parser.parse_args()
    av.logging.set_level(av.logging.PANIC)
    ffmpeg = ".".join(map(str, av.library_versions["libavcodec"]))
    command = f"python benchmarks/video_matrix.py {' '.join(sys.argv[1:])}".rstrip()
    chosen = list(rows())[:: 6 if args.quick else 1]
    text = [f"`{command}`, av {av.__version__}, libavcodec {ffmpeg}", ""]
    text += table(WORKERS[:1] if args.quick else WORKERS, chosen)
    print("\n".join(text))
    if args.output is not None:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text("\n".join(text) + "\n")


if __name__ == "__main__":
    main()
