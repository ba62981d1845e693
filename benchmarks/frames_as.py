"""Frames as video against frames as images: tokens, vision tower, prefill, update, peak memory.

The same overview of K random frames, in the prompt of the style `paravt`, shown both ways
(`agent.frames_as`). A group of G rollouts of C tokens shares the prompt. For each K:

- tokens: visual ones, and all of the prompt;
- tower: forward and backward of the vision tower over the prompt's frames;
- prefill: the decoder over the prompt, features at hand;
- update: `Learner.optimize` on the group, the vision tower included, and the memory that it adds.

Times are medians of interleaved repeats, on a CPU those of one thread. `share` is video over
images; the goals are 0.52 of the visual tokens and of the tower's time from 64 frames on, and 0.6
of the update's time at 512. `--device cuda` takes the shape of the 8B model, with random weights.

    python benchmarks/frames_as.py --quick
    python benchmarks/frames_as.py --output benchmarks/results/frames_as.txt
"""

from __future__ import annotations

import argparse
import os
import platform
import shlex
import sys
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter, process_time

import numpy as np
import torch
from gpu import build
from update import encode, peak_memory

import paravt_env
from agents.algorithm.config import PARAGRPOConfig
from agents.base import Trajectory
from agents.config import Limits
from agents.model.mini import build_mini
from agents.model.sampling import TransformersSampler
from agents.model.vlm import VisionLanguageModel
from agents.text.context import TokenContext
from agents.text.conversation import open_conversation
from paravt_env.common.progress import counted
from paravt_env.protocol.parts import FramesAs
from paravt_env.protocol.styles import PARAVT
from paravt_env.video.sampler import overview_times
from train.config.learner import LearnerConfig, OptimizerConfig, PackingConfig
from train.lab.plan.costs import SHAPES
from train.learner.learner import Learner
from train.learner.meter import Meter
from train.packing.samples import Sample

FRAMES, GROUP, COMPLETION, SECONDS = (16, 64, 256, 512), 8, 64, 3600.0
SIZES = {"cpu": (128, 128), "cuda": (160, 288)}
MEASURES = ("visual", "prompt", "tower", "prefill", "update", "MiB")
HEAD = (
    f"{'K':>4} {'as':>5} {'visual':>7} {'prompt':>7} {'tower s':>8} {'prefill s':>9} "
    f"{'update s':>9} {'peak MiB':>9}"
)


def prompt(vlm: VisionLanguageModel, frames: np.ndarray, frames_as: FramesAs) -> TokenContext:
    """The opening of an episode on an hour of video with these overview frames."""
    view = {
        "window": np.zeros(len(frames), np.int16),
        "timestamps": overview_times(SECONDS, len(frames)),
        "frames": frames,
        "video": {"duration": SECONDS, "fps": 24.0, "width": 640, "height": 360},
        "question": "Which colour does the light have?\nA. red\nB. blue",
        "subtitles": "",
        "must_answer": 0,
    }
    return open_conversation(vlm, PARAVT, Limits(), view, frames_as=frames_as)


def group(opening: TokenContext) -> list[Sample]:
    """G rollouts of C random tokens behind one prompt, with random advantages."""
    rng, start, samples = np.random.default_rng(0), opening.freeze(), []
    for advantage in rng.normal(size=GROUP):
        one = Trajectory(
            prompt_ids=start.prompt_ids,
            branch_ids=rng.integers(10, 250, COMPLETION),
            loss_mask=np.ones(COMPLETION, dtype=bool),
            logprobs=rng.normal(-5.5, 0.1, COMPLETION).astype(np.float32),
            roles=np.zeros(COMPLETION, dtype=np.int8),
            prompt_images=start.prompt_images,
        )
        samples.append(Sample(one, np.full(COMPLETION, advantage, dtype=np.float32)))
    return samples


def prefill(vlm: VisionLanguageModel, opening: TokenContext) -> None:
    """The decoder over a prompt whose features are in the cache."""
    opening.computed = opening.position = 0
    TransformersSampler(vlm).open([opening])


def device_memory(update: Callable[[], object]) -> float:
    """MiB that an update adds on the GPU."""
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    update()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def interleaved(
    works: Mapping[str, Callable[[], object]], repeats: int, cuda: bool
) -> dict[str, float]:
    """The median seconds of each, taken in turns.

    On a CPU they are the thread's own: what else the machine does meanwhile does not count.
    """
    clock = perf_counter if cuda else process_time
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(repeats):
        for name, work in works.items():
            began = clock()
            work()
            if cuda:
                torch.cuda.synchronize()
            seconds[name].append(clock() - began)
    return {name: median(values) for name, values in seconds.items()}


def measure(
    vlm: VisionLanguageModel, count: int, size: tuple[int, int], repeats: int
) -> dict[str, dict[str, float]]:
    """Tokens, seconds and MiB of `count` frames, by how they are shown."""
    config = LearnerConfig(
        PARAGRPOConfig(kl_coefficient=0.0, loss="clipped"),
        OptimizerConfig(learning_rate=1e-6),
        PackingConfig(micro_batch_tokens=10**9),
        temperature=0.7,
    )
    learner, cuda = Learner(vlm, config), vlm.device.type == "cuda"
    frames = np.random.default_rng(0).integers(0, 256, (count, *size, 3), dtype=np.uint8)
    found: dict[str, dict[str, float]] = {}
    works: dict[str, Callable[[], object]] = {}
    for frames_as in ("image", "video"):
        opening = prompt(vlm, frames, frames_as)  # type: ignore[arg-type]
        samples, images = group(opening), list(opening.images)
        update = partial(learner.optimize, samples, Meter())
        counts = opening.counts()
        found[frames_as] = {
            "visual": counts["visual_tokens"],
            "prompt": counts["prompt_tokens"],
            "MiB": device_memory(update) if cuda else peak_memory(update),
        }
        works[f"{frames_as} tower"] = partial(encode, vlm, images)
        works[f"{frames_as} update"] = update
        works[f"{frames_as} prefill"] = partial(prefill, vlm, opening)
    # Each kind by itself: an update writes to the tower, which empties the cache of features.
    for kind in ("tower", "prefill", "update"):
        pair = {name: works[f"{name} {kind}"] for name in found}
        for name, seconds in interleaved(pair, repeats, cuda).items():
            found[name][kind] = seconds
    return found


def lines_of(count: int, found: dict[str, dict[str, float]]) -> list[str]:
    """Three rows of the table: images, video, and the share of the one in the other."""

    def row(name: str, cell: dict[str, float], digits: int) -> str:
        kinds = {"visual": (7, 0), "prompt": (7, 0), "tower": (8, 3), "prefill": (9, 3)}
        kinds |= {"update": (9, 3), "MiB": (9, 0)}
        values = [f"{cell[n]:{w}.{max(d, digits)}f}" for n, (w, d) in kinds.items()]
        return " ".join([f"{count:4d} {name:>5}", *values])

    share = {name: found["video"][name] / found["image"][name] for name in MEASURES}
    return [row(name, found[name], 0) for name in ("image", "video")] + [row("share", share, 3)]


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="16 and 64 frames, once")
    parser.add_argument("--frames", type=int, nargs="+", default=FRAMES)
    parser.add_argument("--repeats", type=int, default=5, help="timed rounds of each cell")
    parser.add_argument("--device", choices=tuple(SIZES), default="cpu")
    parser.add_argument("--output", type=Path, help="also write the table here")
    args = parser.parse_args()
    if args.quick:
        args.frames, args.repeats = (16, 64), 1
    torch.set_num_threads(1)
    torch.manual_seed(0)
    if args.device == "cuda":
        vlm = build(SHAPES["8b"], "cuda")
    else:
        sources = sorted(Path(paravt_env.__file__).parent.rglob("*.py"))
        with tempfile.TemporaryDirectory() as folder:
            texts = [path.read_text(encoding="utf-8") for path in sources]
            vlm = VisionLanguageModel.load(build_mini(folder, texts))
    size = SIZES[args.device]
    parameters = sum(p.numel() for p in vlm.model.parameters()) / 1e6
    lines = [
        "$ python " + shlex.join([f"benchmarks/{Path(__file__).name}", *sys.argv[1:]]),
        f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}, torch "
        f"{torch.__version__}, {args.device}; Qwen3-VL of {parameters:.1f} M parameters, frames of "
        f"{size[0]} x {size[1]}, G = {GROUP}, C = {COMPLETION}, median of {args.repeats}",
        HEAD,
    ]
    print("\n".join(lines), flush=True)
    for count in counted("frames", args.frames):
        more = lines_of(count, measure(vlm, count, size, args.repeats))
        lines += more
        print("\n".join(more), flush=True)
    if args.output:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
