"""How long frames take, and which frames they are: ParaVT against the readers in use today.

The requests of a rollout are timed on H.264 files (640 x 360, 24 frames a second, B-frames) with a
key frame every 250 frames (g250) and every 48 (g48): the **overview**, 64 frames of an hour; one
**crop**, 16 frames of 20 s; a **turn** of five crops. Every reader delivers RGB of 168 x 280.

- *cold*: the file is not in the page cache; *warm*: it is, and nothing is decoded yet.
- *group*: what another rollout of the same group pays for the overview and the turn. ParaVT decodes
  nothing for it, so this compares sharing with its absence, not decoders.
- *CPU*: processor time of the warm overview, over *the floor*: what libavcodec alone needs, on one
  core, for the packets that must be decoded (up to each wanted frame, without those that nothing
  refers to). The floor reads, seeks, converts and scales nothing.
- *seconds off*: the greatest distance between the time asked for and the time at which the frame
  delivered is on screen, on four short films whose frames carry their index; the first, of constant
  rate, is the control. Snapping moves frames on purpose, by a tenth of their distance at most.

A reader that does not work is listed with the reason. Rounds are interleaved, each starts with the
next reader; the tables show medians. Times depend on the machine: compare within a run.

    pip install qwen-vl-utils==0.0.14 decord torchcodec opencv-python-headless torchvision
    python benchmarks/frames.py --output benchmarks/results/frames.txt
    python benchmarks/frames.py --quick
    python benchmarks/frames.py --files FOLDER --output benchmarks/results/frames_files.txt

`--files` times ten encodings that people have instead (`frames_files.py`); FOLDER keeps them.

torchcodec also needs FFmpeg's shared libraries on the loader's path.
"""

from __future__ import annotations

import argparse
import base64
import gc
import hashlib
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from importlib import metadata
from pathlib import Path

import av
import numpy as np
from films import Film, make_film, make_truths
from frames_files import measure_files
from readers import BASELINE, QUICK, READERS, SCALED, SNAPPED, Session, Window
from support.videos import read_index

from paravt_env.common.progress import counted

CROP_SECONDS, CROP_FRAMES, CHECKED = 20.0, 16, 16
WINDOWS: tuple[Window, ...] = ((0.0, 60.0), (21.0, 31.0), (3.0, 23.0), (38.0, 58.0))
"""Of a film of a minute: where the truth is checked."""
PEERS = ("av", "torch", "torchvision", "torchcodec", "decord", "qwen-vl-utils")
PEERS += ("opencv-python-headless",)
NONE = float("nan")


@dataclass(frozen=True)
class Load:
    """What is asked for."""

    path: str
    duration: float
    overview: int
    crop: Window
    turn: tuple[Window, ...]


@dataclass(frozen=True)
class Timing:
    """Seconds of one round, or their medians."""

    cold: float
    warm: float
    crop: float
    turn: float
    group: float
    cpu: float


# --- time ---------------------------------------------------------------------------------------


def play(start: Callable[[], Session], load: Load, probe: str) -> Timing:
    """One round of one reader."""
    whole = (0.0, load.duration)

    def session() -> Session:
        made = start()
        made.frames(probe, (0.0, 30.0), 2)  # libraries and processes are up
        return made

    def overview() -> None:
        assert reader.frames(load.path, whole, load.overview).shape[1:] == (*SCALED, 3)

    def turn() -> None:
        reader.several(load.path, load.turn, CROP_FRAMES)

    reader = session()
    cold = _seconds(overview)[0] if _forget(load.path) else NONE
    reader.close()
    Path(load.path).read_bytes()  # into the page cache
    reader = session()
    warm, cpu = _seconds(overview)
    crop, _ = _seconds(lambda: reader.frames(load.path, load.crop, CROP_FRAMES))
    five, _ = _seconds(turn)
    group = _seconds(overview)[0] + _seconds(turn)[0] if reader.shares else warm + five
    reader.close()
    return Timing(cold, warm, crop, five, group, cpu)


def _seconds(work: Callable[[], object]) -> tuple[float, float]:
    """Wall time and processor time (of this process)."""
    gc.collect()
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def _forget(path: str) -> bool:
    """Drop a file from the page cache; False where the system cannot."""
    if not hasattr(os, "posix_fadvise"):
        return False
    with open(path, "rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return True


def measure(readers: dict[str, Callable[[], Session]], load: Load, probe: str, rounds: int) -> dict:
    """Median timings by reader; the floor's processor time and packets under "floor"."""
    seen: dict[str, list[Timing]] = {name: [] for name in readers}
    names, floors = list(readers), []
    packets = needed_packets(load)
    for i in counted("rounds", range(rounds)):
        k = i % len(names)
        for name in names[k:] + names[:k]:
            seen[name].append(play(readers[name], load, probe))
        floors.append(decode_alone(load.path, packets))
        print(f"{Path(load.path).name}: round {i + 1} of {rounds}", file=sys.stderr)
    medians = {
        name: Timing(*(statistics.median(getattr(t, f.name) for t in ts) for f in fields(Timing)))
        for name, ts in seen.items()
    }
    return medians | {"floor": (statistics.median(floors), sum(map(len, packets)))}


# --- the floor ----------------------------------------------------------------------------------


def needed_packets(load: Load) -> list[list[tuple[bytes, bool]]]:
    """For each key frame that a warm overview depends on: packets, and whether each is wanted."""
    wanted_times = (np.arange(load.overview) + 0.5) * load.duration / load.overview
    groups: list[list[tuple[int, bytes]]] = []
    with av.open(load.path) as container:
        stream = container.streams.video[0]
        base = float(stream.time_base)
        for packet in container.demux(stream):
            if packet.pts is None:
                continue
            if packet.is_keyframe:
                groups.append([])
            groups[-1].append((packet.pts, bytes(packet)))
    firsts = np.array([min(pts for pts, _ in group) for group in groups]) * base
    wanted: dict[int, set[int]] = {}
    for moment in wanted_times:
        i = int(np.searchsorted(firsts, moment + 1e-6, side="right")) - 1
        pts = max(pts for pts, _ in groups[i] if pts * base <= moment + 1e-6)
        wanted.setdefault(i, set()).add(pts)
    needed = []
    for i, shown in wanted.items():
        last = max(k for k, (pts, _) in enumerate(groups[i]) if pts in shown)
        needed.append([(data, pts in shown) for pts, data in groups[i][: last + 1]])
    return needed


def decode_alone(path: str, groups: list[list[tuple[bytes, bool]]]) -> float:
    """Processor seconds of libavcodec on those packets: one thread, nothing else."""
    with av.open(path) as container:
        codec = container.streams.video[0].codec_context
        codec.thread_count = 1
        spent = 0.0
        for group in groups:
            packets = [(av.Packet(data), want) for data, want in group]
            began = time.process_time()
            for packet, want in packets:
                codec.skip_frame = "DEFAULT" if want else "NONREF"
                codec.decode(packet)
            codec.decode(None)
            spent += time.process_time() - began
            codec.flush_buffers()
    return spent


# --- the truth ----------------------------------------------------------------------------------


def seconds_off(start: Callable[[], Session], film: Film, windows: Sequence[Window]) -> str:
    """The worst of some windows; why not, if the reader fails."""
    worst = 0.0
    reader = start()
    try:
        for window in windows:
            frames = reader.frames(str(film.path), window, CHECKED)
            indices = np.array([read_index(pixels) for pixels in frames])
            worst = max(worst, film.seconds_off(indices, reader.times(window, CHECKED)))
    except Exception as error:
        return "refuses" if "use backend=" in str(error) else f"fails ({type(error).__name__})"
    finally:
        reader.close()
    return f"{worst:.2f}"


def sort_out(
    names: Sequence[str], probe: str
) -> tuple[dict[str, Callable[[], Session]], dict[str, str]]:
    """The readers that work on a plain film, and why the others do not."""
    works: dict[str, Callable[[], Session]] = {}
    absent: dict[str, str] = {}
    for name in names:
        try:
            reader = READERS[name]()
            assert len(reader.frames(probe, (0.0, 30.0), 2)) == 2
            reader.close()
            works[name] = READERS[name]
        except Exception as error:
            lines = str(error).strip().splitlines() or [""]
            absent[name] = f"{type(error).__name__}: {lines[0][:110]}"
    return works, absent


# --- the tables ---------------------------------------------------------------------------------


def time_table(load: Load, medians: dict[str, Timing], floor: tuple[float, int]) -> list[str]:
    """Seconds; in brackets, how many times as long as ParaVT exact."""
    ours = medians[BASELINE]
    heads = ("cold", "warm", "crop", f"turn of {len(load.turn)}", "group", "CPU", "CPU/floor")
    lines = [f"{'reader':28}" + "".join(f"{head:>17}" for head in heads)]
    for name, t in medians.items():
        cells = [_cell(getattr(t, f), getattr(ours, f)) for f in ("cold", "warm", "crop", "turn")]
        cells += [f"{t.group:.3f} s"]
        own = "processes" not in name  # what workers use is not this process's time
        cells += [f"{t.cpu:.2f} s", f"{t.cpu / floor[0]:.2f}"] if own else ["-", "-"]
        lines.append(f"{name:28}" + "".join(f"{cell:>17}" for cell in cells))
    rate = floor[1] / floor[0]
    lines.append(
        f"floor: {floor[1]} packets at {rate:.0f} a second: {floor[0]:.2f} s of one core, "
        f"{floor[0] / 2:.2f} s of two"
    )
    return lines


def _cell(seconds: float, ours: float) -> str:
    if np.isnan(seconds):
        return "-"
    ratio = seconds / ours
    return f"{seconds:.3f} s {f'({ratio:.1f}x)' if ratio < 20 else f'({ratio:.0f}x)':>7}"


def goals(results: dict[int, dict]) -> list[str]:
    """What is aimed at, against the fastest qwen-vl-utils back end, and what was measured."""
    lines = []
    for gop, medians in results.items():
        peers = [t for name, t in medians.items() if name.startswith("qwen-vl-utils")]
        if not peers:
            return ["goals: no qwen-vl-utils back end works here: nothing to compare with"]
        ours, snap, floor = medians[BASELINE], medians[SNAPPED], medians["floor"][0]
        best = {f.name: min(getattr(t, f.name) for t in peers) for f in fields(Timing)}
        aims = [
            ("overview, exact", best["warm"] / ours.warm, 2.5 if gop == 250 else 3.0),
            ("overview, snap", best["warm"] / snap.warm, 10.0),
            ("crop", best["crop"] / ours.crop, 3.0),
            ("turn of crops", best["turn"] / ours.turn, 2.3),
            ("another rollout of the group", best["group"] / ours.group, 50.0),
        ]
        for what, ratio, aim in aims:
            verdict = "met" if ratio >= aim else "missed"
            lines.append(f"g{gop:<4} {what:30} {ratio:8.1f}x  aim {aim:g}x or more: {verdict}")
        share = ours.cpu / floor
        verdict = "met" if share <= 1.3 else "missed"
        lines.append(f"g{gop:<4} {'CPU / floor':30} {share:8.2f}   aim 1.3 or less: {verdict}")
    return lines


def truth_table(
    readers: dict[str, Callable[[], Session]], truths: dict[str, Film], windows: Sequence[Window]
) -> list[str]:
    """Seconds off by reader and film."""
    lines = [f"{'reader':28}" + "".join(f"{kind:>24}" for kind in truths)]
    for name, start in readers.items():
        print(f"truth: {name}", file=sys.stderr)
        cells = [seconds_off(start, film, windows) for film in truths.values()]
        lines.append(f"{name:28}" + "".join(f"{cell:>24}" for cell in cells))
    return lines


def machine() -> list[str]:
    """Processor, versions, and whatever is not as its package was released."""
    info = Path("/proc/cpuinfo")
    names = info.read_text().splitlines() if info.exists() else []
    cpu = next((x.split(":")[1].strip() for x in names if "model name" in x), platform.processor())
    ffmpeg = ".".join(map(str, av.library_versions["libavcodec"]))
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    lines = [
        f"{cpu}, {os.cpu_count()} cores{load}, Python {platform.python_version()}, "
        f"PyAV's libavcodec {ffmpeg}",
        ", ".join(f"{package} {_version(package)}" for package in PEERS),
    ]
    changed = [file for package in PEERS for file in _changed(package)]
    if changed:
        lines.append(f"changed since their package was installed: {', '.join(changed)}")
    folders = [f for f in os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep) if f]
    bundled = [f.name for folder in folders for f in Path(folder).glob("libavcodec*.so.*")]
    if bundled:
        lines.append(
            f"torchcodec uses a bundled FFmpeg, by LD_LIBRARY_PATH: {', '.join(sorted(bundled))}"
        )
    return lines


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _changed(package: str) -> list[str]:
    """The Python files of a package that differ from the checksums it was installed with."""
    try:
        files = metadata.files(package) or []
    except metadata.PackageNotFoundError:
        return []
    changed = []
    for file in files:
        path = Path(str(file.locate()))
        if file.hash is None or file.suffix != ".py" or not path.exists():
            continue
        digest = hashlib.new(file.hash.mode, path.read_bytes()).digest()
        if base64.urlsafe_b64encode(digest).rstrip(b"=").decode() != file.hash.value:
            changed.append(str(file))
    return changed


def main() -> None:
    """Make the files (cached), run the rounds, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="a short file: under a minute")
    parser.add_argument("--rounds", type=int, default=5, help="rounds a file (default 5)")
    parser.add_argument("--output", type=Path, help="also write the tables here")
    parser.add_argument("--files", type=Path, help="time ten encodings, kept in this folder")
    cache = Path(os.environ.get("PARAVT_CACHE", Path(tempfile.gettempdir()) / "paravt"))
    parser.add_argument("--cache", type=Path, default=cache, help="folder of the video files")
    args = parser.parse_args()
    if args.rounds < 1:
        parser.error("--rounds must be at least 1")
    if args.files is not None:
        command = f"$ python benchmarks/frames.py --files FOLDER --rounds {args.rounds}"
        report([command, *machine(), "", *measure_files(args.files, args.rounds)], args.output)
        return
    minutes, overview, windows, gops = (5, 4, 2, (250,)) if args.quick else (60, 64, 5, (250, 48))
    checked = WINDOWS[:2] if args.quick else WINDOWS
    folder = args.cache / "benchmarks"
    duration = minutes * 60.0
    starts = [(i + 0.5) * duration / windows - 7.3 for i in range(windows)]
    turn = tuple((s, s + CROP_SECONDS) for s in starts)
    crop = (turn[0][1] + 3.0, turn[0][1] + 3.0 + CROP_SECONDS)
    text = [f"$ python benchmarks/frames.py {' '.join(sys.argv[1:])}".rstrip(), *machine(), ""]
    results = {}
    with tempfile.TemporaryDirectory() as scratch:
        truths = make_truths(Path(scratch))
        probe = str(truths["constant rate"].path)
        readers, absent = sort_out(QUICK if args.quick else list(READERS), probe)
        for gop in gops:
            film = make_film(minutes, gop, folder)
            load = Load(str(film), duration, overview, crop, turn)
            medians = measure(readers, load, probe, args.rounds)
            results[gop] = dict(medians)
            text += [
                f"g{gop}: {overview} frames of {minutes} min; crops of {CROP_FRAMES} frames in "
                f"{CROP_SECONDS:g} s; median of {args.rounds} interleaved rounds; in brackets: "
                f"times ParaVT's, on 2 threads",
                *time_table(load, medians, medians.pop("floor")),
                "",
            ]
        text += ["seconds off, at most", *truth_table(readers, truths, checked), ""]
    text += goals(results) if not args.quick else ["the aims are those of the full run"]
    text += [f"does not work here: {name}: {why}" for name, why in absent.items()]
    report(text, args.output)


def report(text: Sequence[str], output: Path | None) -> None:
    """Print the tables, and write them where asked."""
    print("\n".join(text))
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text("\n".join(text) + "\n")


if __name__ == "__main__":
    main()
