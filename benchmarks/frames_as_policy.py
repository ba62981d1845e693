"""What a small policy reads of frames as images and as video: is a pair a temporal patch enough?

The same policy is taught twice, with the same pairs of frames, seeds and steps, once with
`agent.frames_as=image` and once with `video`. It starts from the language model of ParaVT-Mini and
a vision tower of random weights, so that neither form is known to it. It is shown two frames of a
synthetic video, as two pictures with `<t seconds>` before each, or as one temporal patch with the
mean of their times, and says what either shows: scene, side of the sun, symbols with their corner.
A longer overview is more of such patches, each encoded by itself. Only how far the two frames are
apart differs: 1 s, where they are nearly the same, up to 50 s, where they are two moments, often of
two scenes.

Measured greedily on videos of another split: the share of frames whose scene, whose side of the sun
and whose whole description are right, and the last of the frames that show a symbol. Intervals are
95 %, over seeds and videos, both resampled; differences pair the videos.

    python benchmarks/frames_as_policy.py --quick
    python benchmarks/frames_as_policy.py --output benchmarks/results/frames_as_policy.txt
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
import torch

from agents.base import Trajectory
from agents.config import AgentConfig
from agents.model.mini import video_settings_of
from agents.model.sampling import TransformersSampler
from agents.model.vlm import VisionLanguageModel
from agents.text.context import TokenContext, text_ids
from paravt_env.common.files import write_whole
from paravt_env.common.progress import counted
from paravt_env.protocol.parts import FRAMES_AS, FramesAs, subagent_parts
from paravt_env.protocol.styles import COMPACT
from paravt_env.protocol.tags import Role
from paravt_env.task import Task, TaskSet
from paravt_env.tasksets.made.synthetic import SyntheticTasks, oracle
from paravt_env.video.store.store import FrameStore
from train.config.sft import SFTConfig, StageConfig
from train.evaluation.bootstrap import crossed, ends
from train.sft.stage import train_stage
from train.sft.streams import Shuffled
from train.sft.wording import SIDES, describe_frame

COUNT, SIZE, APART = 2, (64, 64), (1.0, 12.0, 25.0, 50.0)
STYLE = replace(COMPACT, name="stamped", frame="<{time} seconds>", whole_seconds=False)
TEST_SEED, LIMIT, CHUNK = 7, 24, 96
MEASURES = ("scene", "sun", "all", "symbols")


@dataclass(frozen=True)
class Settings:
    """What decides the numbers."""

    steps: int = 300
    pairs: int = 32
    pool: int = 6144
    videos: int = 96
    test_videos: int = 48
    test_pairs: int = 4
    learning_rate: float = 2e-3


@dataclass(frozen=True)
class Pair:
    """Frames uint8 (2, H, W, 3) of a video with their times, and what each of them shows."""

    video: str
    times: np.ndarray
    frames: np.ndarray
    said: tuple[str, ...]
    apart: float


def draw_times(task: Task, apart: float, rng: np.random.Generator) -> np.ndarray:
    """Times (2,) of frames of which often one shows a symbol."""
    length = apart * (COUNT - 1)
    room = float(task.metadata["duration"]) - length - 0.5
    events = [event for scene in oracle.scenes_of(task) for event in scene.events]
    while True:
        event = events[int(rng.integers(len(events)))]
        # next to the event: a draw from the whole would miss it where the frames are close
        low, high = max(0.0, event.start - length), min(room, event.end)
        times = rng.uniform(low, high) + apart * np.arange(COUNT)
        if high > low and any(cue.symbols for cue in oracle.visible_cues(task, times)):
            return times


def pairs_of(
    tasks: TaskSet, each: int, apart: Sequence[float], store: FrameStore, seed: int
) -> Iterator[Pair]:
    """`each` pairs of every video and distance, the same for both forms."""
    rng = np.random.default_rng(seed)
    for task in {tasks[i].video: tasks[i] for i in range(len(tasks))}.values():
        for distance in (one for one in apart for _ in range(each)):
            times = draw_times(task, distance, rng)
            said = tuple(describe_frame(cue) for cue in oracle.visible_cues(task, times))
            pixels = store.frames(task.video, times, SIZE).pixels
            yield Pair(task.metadata["video"], times, pixels, said, distance)


def prompt(vlm: VisionLanguageModel, pair: Pair, frames_as: FramesAs) -> TokenContext:
    """The frames with their times, up to where the policy begins."""
    context, window = TokenContext(vlm), (float(pair.times[0]), float(pair.times[-1]))
    parts = subagent_parts(STYLE, "?", window, pair.times, frames_as=frames_as)
    context.ask(parts, pair.frames)
    return context


def lesson(vlm: VisionLanguageModel, pair: Pair, frames_as: FramesAs) -> Trajectory:
    """The conversation that is imitated."""
    context = prompt(vlm, pair, frames_as)
    ids = [*text_ids(vlm.tokenizer, ", ".join(pair.said)), vlm.tokenizer.eos_token_id]
    context.append(ids, int(Role.text), [0.0] * len(ids))
    return context.freeze()


def fresh_policy(seed: int) -> VisionLanguageModel:
    """ParaVT-Mini with the settings of a video channel and a vision tower of random weights."""
    vlm = VisionLanguageModel.load("paravt_mini")
    vlm.video_settings = video_settings_of(vlm.patch)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        other = type(vlm.model)(vlm.model.config)
    vlm.model.model.visual.load_state_dict(other.model.visual.state_dict())
    return vlm


def judged(pair: Pair, said: Sequence[str]) -> dict[str, tuple[float, float]]:
    """Of each measure how many frames were right, and of how many."""
    both = [
        (_parts(gold.split()), _parts(one.split()))
        for gold, one in zip(pair.said, said, strict=True)
    ]
    shown = [(a, b) for a, b in both if a[2] != "none"]
    return {
        "scene": (float(sum(a[0] == b[0] for a, b in both)), float(COUNT)),
        "sun": (float(sum(a[1] == b[1] for a, b in both)), float(COUNT)),
        "all": (float(sum(a == b for a, b in both)), float(COUNT)),
        "symbols": (float(sum(a == b for a, b in shown)), float(len(shown))),
    }


def _parts(words: Sequence[str]) -> tuple[str, str, str]:
    """Scene, side of the sun, symbols; what a policy wrote otherwise has none of the last two.

    >>> _parts("light grey left star top right".split())
    ('light grey', 'left', 'star top right')
    """
    at = next((i for i, word in enumerate(words) if word in SIDES), len(words))
    return " ".join(words[:at]), " ".join(words[at : at + 1]), " ".join(words[at + 1 :])


def examine(
    vlm: VisionLanguageModel, pairs: Sequence[Pair], frames_as: FramesAs
) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """A row for each pair, and what a pair took on average."""
    sampler, rows, counted = TransformersSampler(vlm), [], dict[str, float]()
    vlm.features.clear()
    began = process_time()
    for first in range(0, len(pairs), CHUNK):
        part = pairs[first : first + CHUNK]
        contexts = [prompt(vlm, pair, frames_as) for pair in part]
        drawn, _ = sampler.resume(None, contexts, [LIMIT] * len(part), 0.0)
        for pair, context, one in zip(part, contexts, drawn, strict=True):
            text = vlm.tokenizer.decode(one.ids[:-1])
            said = [*text.split(","), *[""] * COUNT][:COUNT]
            rows.append({"video": pair.video, "apart": pair.apart} | judged(pair, said))
            counts = context.counts()
            for name in ("visual_tokens", "prompt_tokens"):
                counted[name] = counted.get(name, 0.0) + counts[name] / len(pairs)
    return rows, counted | {"answer_seconds": (process_time() - began) / len(pairs)}


def run_cell(
    settings: Settings, frames_as: FramesAs, seed: int, folder: Path, store: FrameStore
) -> dict[str, Any]:
    """Teach and examine one policy, unless its file is there."""
    path = folder / f"{frames_as}-{seed}.json"
    if path.is_file():
        kept = json.loads(path.read_text())
        if kept["settings"] != asdict(settings):
            raise SystemExit(f"{path} is of other settings: give another --folder")
        return kept
    train = SyntheticTasks("train", videos=settings.videos)
    each = max(1, settings.pool // (settings.videos * len(APART)))
    vlm = fresh_policy(seed)
    taught = [lesson(vlm, c, frames_as) for c in pairs_of(train, each, APART, store, seed)]
    # no rollouts are played: the pairs stand in for `conversations`
    stage = StageConfig(
        "pairs", settings.steps, rollouts=1, conversations=settings.pairs, freeze_vision=False
    )
    config = SFTConfig(agent=AgentConfig(frames_as=frames_as), learning_rate=settings.learning_rate)
    stream = Shuffled(taught, np.random.default_rng(seed))
    losses: list[dict[str, Any]] = []

    def log(record: dict[str, Any]) -> None:
        losses.append(record)
        print(f"{frames_as} {seed}: {json.dumps(record)}", flush=True)

    torch.manual_seed(seed)
    began = process_time()
    train_stage(vlm, config, [(stream, settings.pairs)], stage, log)
    seconds = (process_time() - began) / settings.steps
    test = SyntheticTasks("test", videos=settings.test_videos)
    exam = list(pairs_of(test, settings.test_pairs, APART, store, TEST_SEED))
    rows, counts = examine(vlm, exam, frames_as)
    found = {
        "settings": asdict(settings), "rows": rows, "losses": losses,
        "counts": counts | {"step_seconds": seconds},
    }  # fmt: skip
    write_whole(path, json.dumps(found))
    return found


def sums(cells: Sequence[dict[str, Any]], measure: str, apart: float | None) -> np.ndarray:
    """(S, V, 2): what was right and of how many, by seed and video."""
    videos = sorted({row["video"] for row in cells[0]["rows"]})
    table = np.zeros((len(cells), len(videos), 2))
    for seed, cell in enumerate(cells):
        for row in cell["rows"]:
            if apart in (None, row["apart"]):
                table[seed, videos.index(row["video"])] += row[measure]
    return table


def ratio(totals: np.ndarray) -> np.ndarray:
    """Right over all."""
    return totals[..., 0] / totals[..., 1]


def share(table: np.ndarray) -> str:
    """A share in percent with its interval."""
    low, high = ends(ratio(crossed([table])[0]))
    return f"{100 * ratio(table.sum((0, 1))):.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def gap(video: np.ndarray, image: np.ndarray) -> str:
    """Points by which video is ahead, with the interval."""
    ours, theirs = crossed([video, image])
    low, high = ends(ratio(ours) - ratio(theirs))
    mean = ratio(video.sum((0, 1))) - ratio(image.sum((0, 1)))
    return f"{100 * mean:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"


def tables(cells: dict[str, list[dict[str, Any]]]) -> list[str]:
    """What was right by distance, then what it cost."""
    lines = [
        "| frames apart | right | image, % | video, % | video - image, points |",
        "|---|---|---|---|---|",
    ]
    for apart in (*APART, None):
        where = "all" if apart is None else f"{apart:g} s"
        for measure in MEASURES:
            image, video = (sums(cells[name], measure, apart) for name in ("image", "video"))
            told = f"{share(image)} | {share(video)} | {gap(video, image)}"
            lines.append(f"| {where} | {measure} | {told} |")
    lines += ["", "| a pair of frames | image | video | share |", "|---|---|---|---|"]
    for name, said, digits in (
        ("visual_tokens", "visual tokens", 1),
        ("prompt_tokens", "prompt tokens", 1),
        ("answer_seconds", "seconds to read", 3),
        ("step_seconds", "seconds of a training step", 2),
    ):
        image, video = (
            float(np.mean([cell["counts"][name] for cell in cells[mode]]))
            for mode in ("image", "video")
        )
        told = f"{image:.{digits}f} | {video:.{digits}f} | {video / image:.2f}"
        lines.append(f"| {said} | {told} |")
    return lines


def main() -> None:
    """Teach what is missing, then print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="one seed, few steps and videos")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=Settings.steps)
    parser.add_argument("--folder", type=Path, default=Path("runs/frames_as_policy"))
    parser.add_argument("--output", type=Path, help="also write the tables here")
    args = parser.parse_args()
    settings = Settings(steps=args.steps)
    if args.quick:
        args.seeds, args.folder = args.seeds[:1], args.folder / "quick"
        settings = Settings(steps=4, pool=64, videos=8, test_videos=8, test_pairs=1)
    torch.set_num_threads(1)
    args.folder.mkdir(parents=True, exist_ok=True)
    store = FrameStore(workers=1)
    cells: dict[str, list[dict[str, Any]]] = {name: [] for name in FRAMES_AS}
    todo = [(seed, name) for seed in args.seeds for name in FRAMES_AS]
    for seed, name in counted("policies", todo):
        cells[name].append(run_cell(settings, name, seed, args.folder, store))
    store.close()
    told = ", ".join(f"{name} {value}" for name, value in asdict(settings).items())
    lines = [
        "$ python " + shlex.join([f"benchmarks/{Path(__file__).name}", *sys.argv[1:]]),
        f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}, torch "
        f"{torch.__version__}; {told}; seeds {', '.join(map(str, args.seeds))}; one thread's own "
        "seconds",
        "",
        *tables(cells),
    ]
    text = "\n".join(lines) + "\n"
    print(text, end="")
    if args.output:
        args.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
