"""The learner on a GPU: packed against repeated prompts, by frames, on Qwen3-VL shapes.

Random weights of the published 2B and 8B shapes, so nothing is downloaded. For each number of
frames and a group of G completions:

- packed: `Learner.optimize`, the update that training runs (the prompt and its frames once);
- repeated: the same update of G trees of one branch, each with its own copy of prompt and frames;
- vision: forward and backward pass of the tower over the frames, once and G times.

With seconds (median), peak memory, tokens/s of the separate sequences, and the share of the card's
peak that goes into useful operations (MFU, counted by `train/costs.py`). What does not fit is said
to be out of memory. `--json` writes the rows and the constants that `paravt plan --measured` reads;
both files are written anew after each row, so a run that is ended keeps what it has.

All of it takes about `--budget` seconds, shared by the models by their size. Before each row its
time is predicted, from the operations and the speed so far: a row of more than `LARGE` seconds is
timed once; of a group's repeated prompts as many are run as `--row-seconds` allows, and their time
is scaled to the group; what is left out for want of time says so.

    python benchmarks/gpu.py --output benchmarks/results/gpu.txt --json benchmarks/results/gpu.json
    python benchmarks/gpu.py --smoke        # tiny shapes on a CPU, to see that it runs
"""

from __future__ import annotations

import argparse
import gc
import json
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

from agents.base import Trajectory
from agents.mini import MiniConfig, build_mini
from agents.paragrpo import PARAGRPOConfig
from agents.vlm import VisionLanguageModel
from paravt_env.cache import atomic_path
from train import lora
from train.config import LoraConfig, ParallelConfig
from train.costs import SHAPES, Setting, Shape, group_flops, passes, vision_flops
from train.learner import Learner
from train.meter import Meter
from train.parallel import Parallel
from train.plan import Constants, check
from train.trajectory import Sample

LARGE = 10.0
"""Predicted seconds from which a row is timed once."""
METHODS = ("packed", "repeated", "vision once", "vision repeated")
HEAD = "model kind  method           frames   seconds  peak GiB   tokens/s    MFU"
FRAMES, GROUP, COMPLETION, SIZE = (64, 256, 512, 1024), 8, 256, (160, 288)
PEAK = {"H200": 989e12, "H100": 989e12, "A100": 312e12}
"""Dense bfloat16 operations per second, by the makers' data sheets."""
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
    return VisionLanguageModel(model, known.tokenizer, known.image_processor)


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
    """Median seconds and peak bytes (0 on a CPU) of some work, after one warm-up if `warm`."""
    seconds = []
    for turn in range(not warm, repeats + 1):
        if cuda:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
        began = perf_counter()
        work()
        if cuda:
            torch.cuda.synchronize()
        if turn:
            seconds.append(perf_counter() - began)
    return statistics.median(seconds), float(torch.cuda.max_memory_allocated() if cuda else 0)


def encode(vlm: VisionLanguageModel, images: tuple[np.ndarray, ...], times: int) -> None:
    """Forward and backward pass of the tower, `times` times over the frames."""
    for _ in range(times):
        torch.cat(vlm.encode_images(images)).float().square().mean().backward()
    vlm.model.zero_grad(set_to_none=True)


def learner_for(vlm: VisionLanguageModel, rank: int) -> Learner:
    """A learner that keeps a whole group in one micro-batch and recomputes activations.

    No image feature is kept: every run encodes its frames.
    """
    vlm.features.limit = 0
    if rank:
        vlm = lora.add(vlm, LoraConfig(rank=rank))
    config = PARAGRPOConfig(
        kl_coefficient=0.0, loss="clipped", learning_rate=1e-6, micro_batch_tokens=10**9
    )
    one = Parallel(config=ParallelConfig(recompute=True))
    return Learner(vlm, config, 0.7, parallel=one)


@dataclass
class Clock:
    """How much time is left, and how fast the card has been.

    Attributes:
        until: When a model's rows must be done, by `perf_counter`.
        row: Seconds that the run of a repeated prompt may take.
        speed: Operations per second; of the last update that was measured, before that assumed.
    """

    until: float
    row: float
    speed: float = Constants().flops

    def members(self, seconds: float, group: int) -> int:
        """How many of a group's repeated prompts are run, of `seconds` together; at least one."""
        return min(group, max(1, int(self.row / seconds * group)))

    def left(self) -> float:
        """Seconds."""
        return self.until - perf_counter()


def operations(shape: Shape, setting: Setting, method: str) -> float:
    """Operations of one run of a method."""
    if method in ("packed", "repeated"):
        return passes(setting) * group_flops(shape, setting, method == "packed")
    frames = setting.frames * (1 if method.endswith("once") else setting.group)
    return passes(setting) * vision_flops(shape, frames, setting.size)


def measure(
    shape: Shape, rank: int, device: str, args: argparse.Namespace, clock: Clock
) -> Iterator[dict[str, Any]]:
    """The rows of one model, full (rank 0) or with adapters; without `seconds`, `why` not."""
    vlm = build(shape, device)
    learner = learner_for(vlm, rank)
    for frames in args.frames:
        setting = Setting(
            frames=frames, group=args.group, groups=1, completion=args.completion, size=args.size,
            lora=rank, reference=False, text=64,
        )  # fmt: skip
        for method in METHODS[:2] if rank else METHODS:
            named = {"shape": asdict(shape), "setting": asdict(setting)}
            row = {**named, "method": method, "device": device, "seconds": None}
            flops = operations(shape, setting, method)
            members = setting.group
            if method == "repeated":
                members = clock.members(flops / clock.speed, setting.group)
            once = flops / clock.speed * members / setting.group
            repeats = 1 if once > LARGE else args.repeats
            warm = once <= LARGE or method == "packed"
            if once * (repeats + warm) > clock.left():
                left = max(clock.left(), 0)
                yield row | {"why": f"left out: about {once:.0f} s a run, {left:.0f} s left"}
                continue
            shown = replace(setting, group=members)
            samples = make_samples(vlm, shown, method == "repeated")
            # Repeated prompts are separate micro-batches, so their memory is that of one row.
            learner.config = replace(
                learner.config, micro_batch_tokens=1 if method == "repeated" else 10**9
            )
            work = partial(learner.optimize, samples, Meter())
            if method.startswith("vision"):
                times = 1 if method.endswith("once") else setting.group
                work = partial(encode, vlm, samples[0].trajectory.prompt_images, times)
            try:
                seconds, peak = timed(work, repeats, device == "cuda", warm)
            except torch.OutOfMemoryError:
                learner.optimizer.zero_grad(set_to_none=True)
                yield row | {"why": "out of memory"}
                continue
            finally:
                gc.collect()
                if device == "cuda":
                    torch.cuda.empty_cache()
            seconds *= setting.group / members
            row |= {"seconds": seconds, "bytes": peak, "members": members}
            if not method.startswith("vision"):
                clock.speed = flops / seconds
                spread = setting.group * (setting.prompt(shape) + setting.completion)
                row |= {"flops": flops, "tokens": spread / seconds}
            yield row


def line(row: dict[str, Any]) -> str:
    """One row of the table."""
    setting = row["setting"]
    kind = "LoRA" if setting["lora"] else "full"
    head = f"{row['shape']['name']:5} {kind:5} {row['method']:16} {setting['frames']:6d}"
    if row["seconds"] is None:
        return f"{head}   {row['why']}"
    speed = f"{row['tokens']:10.0f}" if "tokens" in row else f"{'-':>10}"
    peak = next((p for name, p in PEAK.items() if name in device_name()), None)
    useful = f"{row['flops'] / row['seconds'] / peak:6.1%}" if peak and "flops" in row else "     -"
    few = row["members"] < setting["group"]
    note = f"   scaled from {row['members']} of {setting['group']} prompts" if few else ""
    return f"{head} {row['seconds']:9.3f} {row['bytes'] / 2**30:9.1f} {speed} {useful}{note}"


def device_name() -> str:
    """The card, or the CPU."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"


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
    constants, checked = Constants(), []
    if updates:
        speed = statistics.median(row["flops"] / row["seconds"] for row in updates)
        constants = replace(constants, flops=speed, source=device_name())
        checked = ["paravt plan against these runs:", *check(updates, constants)]
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


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print the tables."""
    began = perf_counter()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--smoke", action="store_true", help="a tiny shape on the CPU, seconds")
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
    if not args.smoke and not torch.cuda.is_available():
        parser.error("there is no CUDA GPU here; --smoke runs a tiny shape on the CPU")
    device = "cpu" if args.smoke else "cuda"
    shapes = [SHAPES[name] for name in args.models]
    if args.smoke:
        torch.set_num_threads(1)
        shapes, args.size, args.frames = [TINY], (32, 48), [2, 4]
        args.group, args.completion = 4, 8
    torch.manual_seed(0)
    head = [
        f"$ python benchmarks/gpu.py {shlex.join(sys.argv[1:] if argv is None else argv)}",
        f"{device_name()}, torch {torch.__version__}; G = {args.group}, C = {args.completion}, "
        f"frames of {args.size[0]} x {args.size[1]}",
    ]
    models = [(shape, rank) for shape in shapes for rank in (0, 16)]
    for shape, rank in models:
        if not fits(shape, rank, device == "cuda"):
            head.append(f"{shape.name} full: 18 bytes a parameter do not fit this card")
    models = [one for one in models if fits(*one, device == "cuda")]
    head.append(HEAD)
    print("\n".join(head), flush=True)
    rows: list[dict[str, Any]] = []
    end = []
    for place, (shape, rank) in enumerate(models):
        share = shape.parameters / sum(other.parameters for other, _ in models[place:])
        now = perf_counter()
        clock = Clock(now + (began + args.budget - now) * share, args.row_seconds)
        for row in measure(shape, rank, device, args, clock):
            rows.append(row)
            print(line(row), flush=True)
            end = write(rows, head, args)
        gc.collect()
    print("\n".join(end))


if __name__ == "__main__":
    main()
