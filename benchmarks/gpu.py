"""The learner on a GPU: packed against repeated prompts, by frames, on Qwen3-VL shapes.

Random weights of the published 2B and 8B shapes, so nothing is downloaded. For each number of
frames and a group of G completions:

- packed: `Learner.optimize`, the update that training runs (the prompt and its frames once);
- repeated: the same update of G trees of one branch, each with its own copy of prompt and frames;
- vision: forward and backward pass of the tower over the frames, once and G times.

With seconds (median), peak memory, tokens/s of the separate sequences, and the share of the card's
peak that goes into useful operations (MFU, counted by `train/lab/plan/costs.py`: nothing that is
computed twice, no gradient of frozen weights). What does not fit is said to be out of memory.
`--json` writes the rows and the constants that `paravt plan --measured` reads; both files are
written anew after each row, so a run that is ended keeps what it has.

All of it takes about `--budget` seconds. The frames of the goals (`GOALS`) come first, of every
model; these share the time by their operations, and the other frames share what is left. Before
each row its time is predicted, from the operations and the speed so far: a row of more than `LARGE`
seconds is timed once; of a group's repeated prompts as many are run as `--row-seconds` allows, and
their time is scaled to the group; what is left out for want of time, or not warmed up, says so.

    python benchmarks/gpu.py --output benchmarks/results/gpu.txt --json benchmarks/results/gpu.json
    python benchmarks/gpu.py --cpu --json cpu.json   # a small shape, for `paravt plan --check`
    python benchmarks/gpu.py --smoke                 # a tiny shape on a CPU, to see that it runs
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import platform
import shlex
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

from agents.algorithm.config import PARAGRPOConfig
from agents.base import Trajectory
from agents.model.mini import MiniConfig, build_mini
from agents.model.vlm import VisionLanguageModel
from paravt_env.common.files import atomic_path
from paravt_env.common.progress import counted
from train.config.learner import LearnerConfig, LoraConfig, OptimizerConfig, PackingConfig
from train.config.parallel import ParallelConfig
from train.distributed.processes import Processes
from train.lab.plan.constants import Constants
from train.lab.plan.costs import SHAPES, Setting, Shape, update_flops, vision_flops
from train.lab.plan.report import check, fit
from train.learner import lora
from train.learner.learner import Learner
from train.learner.meter import Meter
from train.packing.samples import Sample

LARGE = 10.0
"""Predicted seconds from which a row is timed once."""
METHODS = ("packed", "repeated", "vision once", "vision repeated")
HEAD = "model kind  method           frames   seconds  peak GiB   tokens/s    MFU"
GOALS = (512, 1024)
"""Frames that the goals name: packed 4 times as fast at 512, and 1024 on one card."""
FRAMES, GROUP, COMPLETION, SIZE = (*GOALS, 64, 256), 8, 256, (160, 288)
START, CPU_SPEED = 30.0, 3e10
"""Seconds to build a model and to compile its attention; operations of a CPU core per second."""
PEAK = {"H200": 989e12, "H100": 989e12, "A100": 312e12}
"""Dense bfloat16 operations per second, by the makers' data sheets."""
SMALL = Shape("small", 256, 4, 8, 4, 32, 768, 2000, True, 128, 4, 512, 1, positions=256)
TINY = Shape("tiny", 64, 2, 4, 2, 16, 96, 300, True, 32, 2, 48, 1, patch=8, positions=16)


def build(shape: Shape, device: str) -> VisionLanguageModel:
    """A policy of random weights: the adapter's tokenizer comes from a tiny checkpoint."""
    with tempfile.TemporaryDirectory() as folder:
        small = MiniConfig(
            hidden_size=64, layers=1, heads=4, intermediate_size=64, vision_hidden_size=32,
            vision_layers=1, vision_heads=2, vision_intermediate_size=32, patch_size=shape.patch,
            vocabulary=280,
        )  # fmt: skip
        known = VisionLanguageModel.load(build_mini(folder, ["a b"], small))
    marks = known.model.config
    half, third = shape.head // 2, shape.head // 2 // 3
    step = max(shape.vision_layers // (shape.levels + 1), 1)
    config = Qwen3VLConfig(
        text_config={
            "vocab_size": max(shape.vocabulary, len(known.tokenizer)),
            "hidden_size": shape.hidden,
            "intermediate_size": shape.intermediate,
            "num_hidden_layers": shape.layers,
            "num_attention_heads": shape.heads,
            "num_key_value_heads": shape.key_heads,
            "head_dim": shape.head,
            "max_position_embeddings": 262144,
            "tie_word_embeddings": shape.tied,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 5e6,
                "mrope_section": [half - 2 * third, third, third],
                "mrope_interleaved": True,
            },
        },
        vision_config={
            "depth": shape.vision_layers,
            "hidden_size": shape.vision_hidden,
            "num_heads": 16 if shape.vision_hidden >= 512 else 2,
            "intermediate_size": shape.vision_intermediate,
            "patch_size": shape.patch,
            "out_hidden_size": shape.hidden,
            "num_position_embeddings": shape.positions,
            "deepstack_visual_indexes": [step * (i + 1) - 1 for i in range(shape.levels)],
        },
        image_token_id=marks.image_token_id,
        video_token_id=marks.video_token_id,
        vision_start_token_id=marks.vision_start_token_id,
        vision_end_token_id=marks.vision_end_token_id,
        tie_word_embeddings=shape.tied,
    )
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            model = Qwen3VLForConditionalGeneration(config).eval()
    finally:
        torch.set_default_dtype(before)
    model.set_attn_implementation("sdpa")
    return known.around(model)


def make_samples(vlm: VisionLanguageModel, setting: Setting, repeated: bool) -> list[Sample]:
    """A group over random frames; `repeated` gives every completion a prompt of its own."""
    rng = np.random.default_rng(0)
    height, width = setting.size
    count = vlm.image_token_count(height, width)
    samples = []
    for member in range(setting.group):
        if not member or repeated:
            images = tuple(
                rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
                for _ in range(setting.frames)
            )
            shown = [vlm.vision_start_id, *[vlm.image_pad_id] * count, vlm.vision_end_id]
            prompt = [*rng.integers(10, 250, setting.text)]
            for _ in images:
                prompt += [*rng.integers(10, 250, 4), *shown]
        ids = rng.integers(10, 250, setting.completion)
        samples.append(
            Sample(
                Trajectory(
                    prompt_ids=np.array(prompt),
                    branch_ids=ids,
                    loss_mask=np.ones(len(ids), dtype=bool),
                    logprobs=rng.normal(-5.5, 0.1, len(ids)).astype(np.float32),
                    roles=np.zeros(len(ids), dtype=np.int8),
                    prompt_images=images,
                ),
                np.full(len(ids), rng.normal(), dtype=np.float32),
            )
        )
    return samples


def timed(
    work: Callable[[], None], repeats: int, cuda: bool, warm: bool = True
) -> tuple[float, float]:
    """Median seconds and peak bytes of some work, after one warm-up if `warm`.

    Bytes are those of torch on a card, those of the whole process on a CPU, 0 where unknown.
    """
    seconds = []
    for turn in range(not warm, repeats + 1):
        known = cuda or forget_peak()
        if cuda:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
        began = perf_counter()
        work()
        if cuda:
            torch.cuda.synchronize()
        if turn:
            seconds.append(perf_counter() - began)
    peak = torch.cuda.max_memory_allocated() if cuda else resident("VmHWM")
    return statistics.median(seconds), float(peak) if known else 0.0


def forget_peak() -> bool:
    """Start the peak of the process's memory from what it holds now; false where that cannot be."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except (OSError, AttributeError):  # not on Linux, or not allowed
        return False
    return True


def resident(name: str = "VmRSS") -> float:
    """Bytes of memory that the process holds, or that it held at most (`VmHWM`)."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return 1024.0 * int(status.partition(f"{name}:")[2].split()[0])


def encode(vlm: VisionLanguageModel, images: tuple[np.ndarray, ...], times: int) -> None:
    """Forward and backward pass of the tower, `times` times over the frames."""
    for _ in range(times):
        torch.cat(vlm.encode_images(images)).float().square().mean().backward()
    vlm.model.zero_grad(set_to_none=True)


def learner_for(vlm: VisionLanguageModel, rank: int) -> Learner:
    """A learner that keeps a whole group in one micro-batch and recomputes activations.

    No image feature is kept: every run encodes its frames.
    """
    if rank:
        vlm = lora.add(vlm, LoraConfig(rank=rank))
    vlm.features.limit = 0  # behind the adapters, which make another policy of it
    config = LearnerConfig(
        PARAGRPOConfig(kl_coefficient=0.0, loss="clipped"),
        OptimizerConfig(learning_rate=1e-6),
        PackingConfig(micro_batch_tokens=10**9),
        temperature=0.7,
    )
    one = Processes(config=ParallelConfig(recompute=True))
    return Learner(vlm, config, processes=one)


@dataclass
class Clock:
    """How much time is left, and how fast the card has been.

    Attributes:
        until: When a model's rows must be done, by `perf_counter`.
        row: Seconds that the run of a repeated prompt may take.
        speed: Operations per second; of the last update that was measured, before that assumed.
        repeats: Timed runs of a row that is not large.
    """

    until: float
    row: float
    speed: float = Constants().flops
    repeats: int = 2

    def members(self, seconds: float, group: int) -> int:
        """How many of a group's repeated prompts are run, of `seconds` together; at least one."""
        return min(group, max(1, int(self.row / seconds * group)))

    def left(self) -> float:
        """Seconds."""
        return self.until - perf_counter()

    def run(self, shape: Shape, setting: Setting, method: str) -> Run:
        """How a row is measured."""
        seconds = operations(shape, setting, method) / self.speed
        members = setting.group
        if method == "repeated":
            members = self.members(seconds, setting.group)
        once = seconds * members / setting.group
        large = once > LARGE
        return Run(members, 1 if large else self.repeats, not large or method == "packed", once)


@dataclass(frozen=True)
class Run:
    """How a row is measured: so many of the group, so many times after a warm-up or none."""

    members: int
    repeats: int
    warm: bool
    once: float
    """Predicted seconds of one time."""

    @property
    def seconds(self) -> float:
        """Predicted, of all."""
        return self.once * (self.repeats + self.warm)


def operations(shape: Shape, setting: Setting, method: str) -> float:
    """Operations of one run of a method, those that are computed twice too."""
    if method in ("packed", "repeated"):
        return update_flops(shape, setting)
    frames = setting.frames * (1 if method.endswith("once") else setting.group)
    return (3 + setting.recompute) * vision_flops(shape, frames, setting.size)


def cells(rank: int, args: argparse.Namespace, frames: Sequence[int]) -> list[tuple[Setting, str]]:
    """What is measured of a model, the updates first."""
    common = Setting(
        group=args.group, groups=1, completion=args.completion, size=args.size, lora=rank,
        reference=False, text=64, feature_cache_gib=0.0, plays=False,
        width=2 if args.device == "cuda" else 4,
    )  # fmt: skip
    # Repeated prompts are separate micro-batches, so their memory is that of one row.
    return [
        (replace(common, frames=count, budget=1 if method == "repeated" else 10**9), method)
        for methods in (METHODS[:2], () if rank else METHODS[2:])
        for count in frames
        for method in methods
    ]


def measure(
    shape: Shape, rank: int, args: argparse.Namespace, frames: Sequence[int], clock: Clock
) -> Iterator[dict[str, Any]]:
    """The rows of one model, full (rank 0) or with adapters; without `seconds`, `why` not."""
    cuda = args.device == "cuda"
    before = 0.0 if cuda or not forget_peak() else resident()
    vlm = build(shape, args.device)
    learner = learner_for(vlm, rank)
    for setting, method in cells(rank, args, frames):
        named = {"shape": asdict(shape), "setting": asdict(setting)}
        row = {**named, "method": method, "device": args.device, "seconds": None}
        run = clock.run(shape, setting, method)
        if run.seconds > clock.left():
            run = replace(run, repeats=1, warm=False)
        if run.seconds > clock.left():
            left = max(clock.left(), 0)
            yield row | {"why": f"left out: about {run.once:.0f} s a run, {left:.0f} s left"}
            continue
        samples = make_samples(vlm, replace(setting, group=run.members), method == "repeated")
        packing = replace(learner.config.packing, micro_batch_tokens=setting.budget)
        learner.config = replace(learner.config, packing=packing)
        work = partial(learner.optimize, samples, Meter())
        if method.startswith("vision"):
            times = 1 if method.endswith("once") else setting.group
            work = partial(encode, vlm, samples[0].trajectory.prompt_images, times)
        try:
            seconds, peak = timed(work, run.repeats, cuda, run.warm)
        except torch.OutOfMemoryError:
            learner.optimizer.zero_grad(set_to_none=True)
            yield row | {"why": "out of memory"}
            continue
        finally:
            gc.collect()
            if cuda:
                torch.cuda.empty_cache()
        seconds *= setting.group / run.members
        row |= {"seconds": seconds, "bytes": max(peak - before, 0.0), "members": run.members}
        row["cold"] = method == "packed" and not run.warm
        if not method.startswith("vision"):
            flops, useful = (update_flops(shape, setting, only) for only in (False, True))
            clock.speed = flops / seconds
            spread = setting.group * (setting.prompt(shape) + setting.completion)
            row |= {"flops": flops, "useful": useful, "tokens": spread / seconds}
        yield row


def line(row: dict[str, Any]) -> str:
    """One row of the table."""
    setting = row["setting"]
    kind = "LoRA" if setting["lora"] else "full"
    head = f"{row['shape']['name']:5} {kind:5} {row['method']:16} {setting['frames']:6d}"
    if row["seconds"] is None:
        return f"{head}   {row['why']}"
    speed = f"{row['tokens']:10.0f}" if "tokens" in row else f"{'-':>10}"
    peak = next((p for name, p in PEAK.items() if name in device_name(row["device"])), None)
    known = peak and "useful" in row
    useful = f"{row['useful'] / row['seconds'] / peak:6.1%}" if known else "     -"
    few = row["members"] < setting["group"]
    note = f"   scaled from {row['members']} of {setting['group']} prompts" if few else ""
    note += "   once, not warmed up" if row["cold"] else ""
    size = f"{row['bytes'] / 2**30:9.2f}" if row["bytes"] else f"{'-':>9}"
    return f"{head} {row['seconds']:9.3f} {size} {speed} {useful}{note}"


def device_name(device: str) -> str:
    """The card, or the CPU."""
    return torch.cuda.get_device_name() if device == "cuda" else f"CPU ({platform.machine()})"


def summary(rows: list[dict[str, Any]]) -> list[str]:
    """The gain of packing for each model and number of frames."""
    found = {}
    for row in rows:
        setting = row["setting"]
        key = row["shape"]["name"], setting["lora"], setting["frames"], row["method"]
        found[key] = row["seconds"]
    return [
        f"{name} {'LoRA' if rank else 'full'}, {frames} frames: packed is "
        f"{found[name, rank, frames, 'repeated'] / seconds:.2f}x faster"
        for (name, rank, frames, method), seconds in found.items()
        if method == "packed" and seconds and found.get((name, rank, frames, "repeated"))
    ]


def write(rows: list[dict[str, Any]], head: list[str], args: argparse.Namespace) -> list[str]:
    """Write both files as they are so far.

    Returns:
        What follows the table: gains, and the plan against what was measured.
    """
    updates = [row for row in rows if "flops" in row]
    constants = fit(updates, device_name(args.device))
    title = "paravt plan against these runs, each predicted by constants from the others:"
    checked = [title, *check(updates)] if len(updates) > 1 else []
    end = [*summary(rows), *checked]
    texts = {
        args.output: "\n".join([*head, *map(line, rows), *end]),
        args.json: json.dumps({"constants": asdict(constants), "rows": updates}, indent=1),
    }
    for path, text in texts.items():
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_path(path) as whole:
                whole.write_text(text + "\n", encoding="utf-8")
    return end


def fits(shape: Shape, rank: int, cuda: bool) -> bool:
    """Whether weights, gradients and moments are in the card: 18 bytes a parameter in full."""
    return not cuda or bool(rank) or 18.0 * shape.parameters <= torch.cuda.mem_get_info()[0]


def stages(
    models: Sequence[tuple[Shape, int]], args: argparse.Namespace, clock: Clock
) -> list[tuple[Shape, int, list[int], float]]:
    """In this order: model, rank, frames and predicted seconds; the goals of all models first."""
    goals = [count for count in args.frames if count in GOALS]
    others = [count for count in args.frames if count not in GOALS]
    return [
        (shape, rank, frames, START + sum(clock.run(shape, *cell).seconds
                                          for cell in cells(rank, args, frames)))
        for frames in (goals, others)
        if frames
        for shape, rank in models
    ]  # fmt: skip


def load_libraries() -> None:
    """One tiny update of each kind, so that no row counts the memory of what torch loads late."""
    tiny = Setting(frames=1, group=2, completion=4, size=(32, 48), text=8)
    for rank in (0, 16):
        vlm = build(TINY, "cpu")
        learner_for(vlm, rank).optimize(make_samples(vlm, tiny, False), Meter())


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print the tables."""
    began = perf_counter()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--smoke", action="store_true", help="a tiny shape on the CPU, seconds")
    parser.add_argument("--cpu", action="store_true", help="a small shape on the CPU, minutes")
    parser.add_argument("--models", nargs="+", default=["2b", "8b"], choices=sorted(SHAPES))
    parser.add_argument("--frames", type=int, nargs="+", default=FRAMES)
    parser.add_argument("--group", type=int, default=GROUP)
    parser.add_argument("--completion", type=int, default=COMPLETION)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--budget", type=float, default=420.0, help="seconds of the whole run")
    parser.add_argument("--row-seconds", type=float, default=15.0, help="of repeated prompts")
    parser.add_argument("--output", type=Path, help="also write the table here")
    parser.add_argument("--json", type=Path, help="also write rows and measured constants here")
    args = parser.parse_args(argv)
    args.size = SIZE
    if not (args.smoke or args.cpu) and not torch.cuda.is_available():
        parser.error("there is no CUDA GPU here; --cpu and --smoke run small shapes on the CPU")
    args.device = "cpu" if args.smoke or args.cpu else "cuda"
    shapes = [SHAPES[name] for name in args.models]
    if args.smoke:
        shapes, args.size, args.frames = [TINY], (32, 48), [2, 4]
        args.group, args.completion = 4, 8
    elif args.cpu:
        shapes, args.size, args.frames = [SMALL], (64, 96), [16, 32, 64]
        args.completion = 64
    torch.manual_seed(0)
    if args.device == "cpu":
        torch.set_num_threads(1)
        load_libraries()
    head = [
        f"$ python benchmarks/gpu.py {shlex.join(sys.argv[1:] if argv is None else argv)}",
        f"{device_name(args.device)}, torch {torch.__version__}; "
        f"G = {args.group}, C = {args.completion}, "
        f"frames of {args.size[0]} x {args.size[1]}",
    ]
    models = [(shape, rank) for shape in shapes for rank in (0, 16)]
    cuda = args.device == "cuda"
    for shape, rank in models:
        if not fits(shape, rank, cuda):
            head.append(f"{shape.name} full: 18 bytes a parameter do not fit this card")
    models = [one for one in models if fits(*one, cuda)]
    head.append(HEAD)
    print("\n".join(head), flush=True)
    rows: list[dict[str, Any]] = []
    end = []
    speed = Constants().flops if cuda else CPU_SPEED
    parts = stages(models, args, Clock(0.0, args.row_seconds, speed, args.repeats))
    for place, (shape, rank, frames, seconds) in counted("cells", enumerate(parts)):
        share = seconds / sum(one for *_, shown, one in parts[place:] if shown == frames)
        now = perf_counter()
        until = now + (began + args.budget - now) * share
        clock = Clock(until, args.row_seconds, speed, args.repeats)
        for row in measure(shape, rank, args, frames, clock):
            rows.append(row)
            print(line(row), flush=True)
            end = write(rows, head, args)
        gc.collect()
    print("\n".join(end))


if __name__ == "__main__":
    main()
