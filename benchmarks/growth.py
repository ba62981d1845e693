"""How the update's time grows with the group, the prompt and the frames, beside its arithmetic.

One optimizer step of `Learner.optimize` on ParaVT-Mini for one group: along each axis the other two
stay. Written are processor seconds (median of the repeats), the multiplications that the packed
computation needs, and the slope of both on logarithmic axes (least squares): a slope above the
arithmetic's says that something grows that should not.

    python benchmarks/growth.py --quick
    python benchmarks/growth.py --output benchmarks/results/growth.txt
"""

from __future__ import annotations

import argparse
import os
import shlex
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import torch

from agents.algorithm.config import PARAGRPOConfig
from agents.base import Trajectory
from agents.model.vlm import VisionLanguageModel
from train.config.learner import LearnerConfig, OptimizerConfig, PackingConfig
from train.learner.learner import Learner
from train.learner.meter import Meter
from train.packing.samples import Sample

COMPLETION, SIDE = 64, 64
GROUPS, PROMPTS, FRAMES = (2, 4, 8, 16, 32), (300, 1000, 4000, 16_000), (16, 64, 256, 512)
G, P = 8, 300
ALLOWED = 0.1
"""How much steeper than the arithmetic the time may be."""


def make_samples(vlm: VisionLanguageModel, group: int, prompt: int, frames: int) -> list[Sample]:
    """A group of random tokens; `prompt` counts its text, frames come before it."""
    rng = np.random.default_rng(0)
    images = tuple(rng.integers(0, 256, (frames, SIDE, SIDE, 3), dtype=np.uint8))
    shown = [vlm.image_pad_id] * vlm.image_token_count(SIDE, SIDE)
    marked = [vlm.vision_start_id, *shown, vlm.vision_end_id]
    prompt_ids = np.array(marked * frames + rng.integers(10, 250, prompt).tolist())
    return [
        Sample(
            Trajectory(
                prompt_ids=prompt_ids,
                branch_ids=rng.integers(10, 250, COMPLETION),
                loss_mask=np.ones(COMPLETION, dtype=bool),
                logprobs=rng.normal(-5.5, 0.1, COMPLETION).astype(np.float32),
                roles=np.zeros(COMPLETION, dtype=np.int8),
                prompt_images=images,
            ),
            np.full(COMPLETION, advantage, dtype=np.float32),
        )
        for advantage in rng.normal(size=group)
    ]


def arithmetic(vlm: VisionLanguageModel, group: int, prompt: int, frames: int) -> float:
    """Multiplications of a forward and a backward pass (twice as many) of the packed group."""
    config = vlm.model.config
    text, tower = config.text_config, config.vision_config
    width = text.num_attention_heads * text.head_dim
    keys = text.num_key_value_heads * text.head_dim
    layer = 2 * text.hidden_size * (width + keys) + 3 * text.hidden_size * text.intermediate_size
    prompt += frames * (vlm.image_token_count(SIDE, SIDE) + 2)
    trained = group * COMPLETION
    pairs = prompt**2 / 2 + trained * prompt + trained * COMPLETION / 2
    decoder = text.num_hidden_layers * ((prompt + trained) * layer + 2 * pairs * width)
    head = trained * text.hidden_size * text.vocab_size
    patches = (SIDE // vlm.patch) ** 2
    block = 4 * tower.hidden_size**2 + 2 * tower.hidden_size * tower.intermediate_size
    vision = frames * patches * tower.depth * (block + 2 * patches * tower.hidden_size)
    return 3.0 * (decoder + head + vision)


def seconds(learner: Learner, samples: list[Sample], repeats: int) -> float:
    """Median processor seconds of an optimizer step, after one that is not counted."""
    spent = []
    for _ in range(repeats + 1):
        began = time.process_time()
        learner.optimize(samples, Meter())
        spent.append(time.process_time() - began)
    return statistics.median(spent[1:])


def slope(sizes: list[float], costs: list[float]) -> float:
    """Of the line through the points on logarithmic axes.

    >>> round(slope([1, 2, 4], [3, 12, 48]), 6)
    2.0
    """
    return float(np.polyfit(np.log(sizes), np.log(costs), 1)[0])


def main() -> None:
    """Measure and print the three axes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="two small sizes of each axis")
    parser.add_argument("--repeats", type=int, default=5, help="timed steps of each size")
    parser.add_argument("--output", type=Path, help="also write the table here")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    vlm = VisionLanguageModel.load("paravt_mini")
    config = LearnerConfig(
        PARAGRPOConfig(kl_coefficient=0.0, loss="clipped"),
        OptimizerConfig(learning_rate=1e-6),
        PackingConfig(micro_batch_tokens=10**9),
        temperature=0.7,
    )
    learner = Learner(vlm, config)
    few = 2 if args.quick else None
    axes = {
        "G": [(group, (group, P, 0)) for group in GROUPS[:few]],
        "P": [(prompt, (G, prompt, 0)) for prompt in PROMPTS[:few]],
        "frames": [(frames, (G, P, frames)) for frames in FRAMES[:few]],
    }
    lines: list[str] = []

    def say(text: str) -> None:
        lines.append(text)
        print(text, flush=True)
        if args.output:
            args.output.write_text("\n".join(lines) + "\n", encoding="utf-8")

    say("$ python " + shlex.join([f"benchmarks/{Path(__file__).name}", *sys.argv[1:]]))
    say(
        f"{os.cpu_count()} cores, one thread, load {os.getloadavg()[0]:.1f}; G = {G} of "
        f"{COMPLETION} tokens, P = {P} tokens of text, no frames, but for the axis; median of "
        f"{args.repeats}"
    )
    for name, cells in axes.items():
        sizes, costs, counts = [], [], []
        for size, cell in cells:
            sizes.append(float(size))
            costs.append(seconds(learner, make_samples(vlm, *cell), args.repeats))
            counts.append(arithmetic(vlm, *cell))
            say(f"{name:6} {size:6d} {costs[-1]:9.3f} s {counts[-1] / 1e9:9.2f} G multiplications")
        spent, theory = slope(sizes, costs), slope(sizes, counts)
        verdict = "met" if spent <= theory + ALLOWED else "missed"
        say(f"{name:6} slope of the time {spent:.2f}, of the arithmetic {theory:.2f}: {verdict}")


if __name__ == "__main__":
    main()
