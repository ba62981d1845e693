"""Packed against repeated-prompt policy updates: time, peak memory, share of the token bound.

A group of G completions of C tokens shares a prompt of P tokens. Repeating the prompt costs G (P +
C) tokens, packing it once P + G C; their ratio is the bound. Measured on one thread, interleaved,
as the median of the repeats:

- packed: `Learner.optimize`, the update that training runs;
- repeated: the same loss over G separate rows through the plain Hugging Face model (logits of the
  completions only);
- TRL: `GRPOTrainer`'s own loss on the same model and tokens, where `trl` is installed (`pip install
  trl`), then the same gradient clipping and AdamW step;
- vision tower: forward and backward over the prompt's images, once a group and once a rollout.

    python benchmarks/update.py --quick
    python benchmarks/update.py --output benchmarks/results/update.txt
"""

from __future__ import annotations

import argparse
import ctypes
import importlib.util
import os
import platform
import shlex
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch

import paravt_env
from agents.algorithm.config import PARAGRPOConfig
from agents.base import Trajectory
from agents.model.mini import build_mini
from agents.model.vlm import VisionLanguageModel
from paravt_env.common.progress import counted
from train.config.learner import LearnerConfig, OptimizerConfig, PackingConfig
from train.learner.learner import Learner
from train.learner.meter import Meter
from train.packing.samples import Sample

PROMPTS, GROUPS, COMPLETION = (150, 600, 1300, 4000), (4, 8, 16), 64
TEMPERATURE, FRAME = 0.7, 128
Update = Callable[[], None]


def bound(prompt: int, group: int) -> float:
    """Tokens of the repeated computation over tokens of the packed one.

    >>> round(bound(1300, 8), 2)
    6.02
    """
    return group * (prompt + COMPLETION) / (prompt + group * COMPLETION)


def make_samples(vlm: VisionLanguageModel, prompt: int, group: int) -> list[Sample]:
    """A group of random tokens with random advantages and plausible log-probabilities."""
    rng = np.random.default_rng(0)
    prompt_ids = rng.integers(10, 250, prompt)
    logprobs = rng.normal(-5.5, 0.1, (group, COMPLETION)).astype(np.float32)
    return [
        Sample(
            Trajectory(
                prompt_ids=prompt_ids,
                branch_ids=rng.integers(10, 250, COMPLETION),
                loss_mask=np.ones(COMPLETION, dtype=bool),
                logprobs=logprobs[i],
                roles=np.zeros(COMPLETION, dtype=np.int8),
            ),
            np.full(COMPLETION, advantage, dtype=np.float32),
        )
        for i, advantage in enumerate(rng.normal(size=group))
    ]


def rows_of(samples: list[Sample]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Prompts (G, P), completions (G, C), behaviour log-probabilities (G, C), advantages (G,)."""
    return (
        torch.from_numpy(np.stack([s.trajectory.prompt_ids for s in samples])),
        torch.from_numpy(np.stack([s.trajectory.branch_ids for s in samples])),
        torch.from_numpy(np.stack([s.trajectory.logprobs for s in samples])),
        torch.tensor([float(s.advantages[0]) for s in samples]),
    )


def finish(learner: Learner) -> None:
    """Clip the gradient and take the optimizer's step."""
    torch.nn.utils.clip_grad_norm_(learner.parameters, 1.0)
    learner.optimizer.step()


def repeated_update(learner: Learner, samples: list[Sample]) -> None:
    """The clipped loss with the prompt repeated in every row."""
    prompts, completions, behaviour, advantages = rows_of(samples)
    learner.optimizer.zero_grad(set_to_none=True)
    ids = torch.cat([prompts, completions], dim=1)
    model = learner.vlm.model
    logits = model(input_ids=ids, logits_to_keep=COMPLETION + 1, use_cache=False).logits[:, :-1]
    logits = logits.float() / TEMPERATURE
    logits = logits.index_fill(-1, torch.tensor(learner.vlm.forbidden_ids), float("-inf"))
    logprobs = logits.log_softmax(-1).gather(-1, completions[..., None]).squeeze(-1)
    ratio = (logprobs - behaviour).exp()
    weighed = torch.minimum(
        ratio * advantages[:, None], ratio.clamp(0.8, 1.2) * advantages[:, None]
    )
    (-weighed.mean()).backward()
    finish(learner)


def trl_update(learner: Learner, group: int) -> tuple[str, Callable[[list[Sample]], None]] | None:
    """TRL's GRPO loss on our model, None where TRL is not installed."""
    if importlib.util.find_spec("trl") is None:
        return None
    import trl
    from datasets import Dataset

    arguments = trl.GRPOConfig(
        output_dir=tempfile.mkdtemp(),
        per_device_train_batch_size=group,
        num_generations=group,
        max_completion_length=COMPLETION,
        temperature=TEMPERATURE,
        beta=0.0,
        loss_type="bnpo",
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        report_to="none",
    )
    tokenizer = learner.vlm.tokenizer
    tokenizer.chat_template = tokenizer.chat_template or "{{ messages[0]['content'] }}"
    trainer = trl.GRPOTrainer(
        model=learner.vlm.model,
        reward_funcs=lambda completions, **_: [0.0] * len(completions),
        args=arguments,
        train_dataset=Dataset.from_list([{"prompt": "a"}] * group),
        processing_class=tokenizer,
    )
    trainer.current_gradient_accumulation_steps = 1

    def update(samples: list[Sample]) -> None:
        prompts, completions, behaviour, advantages = rows_of(samples)
        learner.optimizer.zero_grad(set_to_none=True)
        inputs = {
            "prompt_ids": prompts,
            "prompt_mask": torch.ones_like(prompts),
            "completion_ids": completions,
            "completion_mask": torch.ones_like(completions),
            "old_per_token_logps": behaviour,
            "advantages": advantages,
            "num_items_in_batch": completions.numel(),
        }
        trainer.compute_loss(trainer.model, inputs).backward()
        finish(learner)

    return trl.__version__, update


def encode(vlm: VisionLanguageModel, images: list[np.ndarray]) -> None:
    """Forward and backward of the vision tower."""
    torch.cat(vlm.encode_images(images)).square().mean().backward()
    vlm.model.zero_grad(set_to_none=True)


def interleaved(updates: Mapping[str, Update], repeats: int) -> dict[str, float]:
    """Median seconds of each, taken in turns after one warm-up round."""
    seconds: dict[str, list[float]] = {name: [] for name in updates}
    for round_ in range(repeats + 1):
        for name, update in updates.items():
            began = perf_counter()
            update()
            if round_:
                seconds[name].append(perf_counter() - began)
    return {name: statistics.median(values) for name, values in seconds.items()}


def peak_memory(update: Update) -> float:
    """MiB that one update adds to the process, measured in a forked child (Linux)."""
    ctypes.CDLL(None).malloc_trim(0)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            before = _status("VmRSS")
            update()
            os.write(writer, str((_status("VmHWM") - before) / 1024).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as stream:
        text = stream.read()
    os.waitpid(child, 0)
    if not text:
        raise RuntimeError("the update did not finish: is there enough memory?")
    return float(text)


def _status(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    raise RuntimeError(f"/proc/self/status has no {name}")


def measure(
    vlm: VisionLanguageModel, prompt: int, group: int, repeats: int, memory: bool
) -> dict[str, Any]:
    """Seconds and MiB of every method in one cell."""
    config = LearnerConfig(
        PARAGRPOConfig(kl_coefficient=0.0, loss="clipped"),
        OptimizerConfig(learning_rate=1e-6),
        PackingConfig(micro_batch_tokens=10**9),
        temperature=TEMPERATURE,
    )
    learner = Learner(vlm, config)
    samples = make_samples(vlm, prompt, group)
    updates: dict[str, Update] = {
        "packed": lambda: learner.optimize(samples, Meter()),
        "repeated": lambda: repeated_update(learner, samples),
    }
    trl = trl_update(learner, group)
    if trl is not None:
        updates["trl"] = lambda: trl[1](samples)
    count = max(1, prompt // (vlm.image_token_count(FRAME, FRAME) + 4))
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (FRAME, FRAME, 3), dtype=np.uint8) for _ in range(count)]
    towers: dict[str, Update] = {
        "vision once": lambda: encode(vlm, images),
        "vision repeated": lambda: encode(vlm, images * group),
    }
    cell: dict[str, Any] = {"images": count}
    if memory:
        for name in ("packed", "repeated"):
            cell[f"{name} MiB"] = peak_memory(updates[name])
    return cell | interleaved(updates, repeats) | interleaved(towers, repeats)


def line(prompt: int, group: int, cell: Mapping[str, Any]) -> str:
    """One row of the table."""
    gain = cell["repeated"] / cell["packed"]
    limit = bound(prompt, group)
    trl = f"{cell['trl'] / cell['packed']:5.1f}x" if "trl" in cell else "     -"
    memory = (
        f"{cell['packed MiB']:7.0f} {cell['repeated MiB']:8.0f} "
        f"{cell['repeated MiB'] / max(cell['packed MiB'], 1):5.1f}x"
        if "packed MiB" in cell
        else f"{'-':>7} {'-':>8} {'-':>6}"
    )
    towers = cell["vision repeated"] / cell["vision once"]
    return (
        f"{prompt:5d} {group:3d} {cell['packed'] * 1e3:10.1f} {cell['repeated'] * 1e3:10.1f} "
        f"{gain:6.2f}x {limit:6.2f}x {gain / limit:6.0%} {trl} {memory} "
        f"{cell['images']:6d} {cell['vision once'] * 1e3:8.1f} "
        f"{cell['vision repeated'] * 1e3:9.1f} "
        f"{towers:5.1f}x"
    )


HEADER = (
    f"{'P':>5} {'G':>3} {'packed ms':>10} {'repeat ms':>10} {'ratio':>7} {'bound':>7} {'share':>6} "
    f"{'TRL':>6} {'MiB':>7} {'repeated':>8} {'ratio':>6} {'images':>6} {'once ms':>8} "
    f"{'repeat ms':>9} {'ratio':>6}"
)


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="two small cells, under a minute")
    parser.add_argument("--repeats", type=int, default=5, help="timed rounds of each cell")
    parser.add_argument("--prompts", type=int, nargs="+", default=PROMPTS)
    parser.add_argument("--groups", type=int, nargs="+", default=GROUPS)
    parser.add_argument("--output", type=Path, help="also write the table here")
    args = parser.parse_args()
    if args.quick:
        args.prompts, args.groups, args.repeats = (150, 600), (8,), 5
    torch.set_num_threads(1)
    torch.manual_seed(0)
    sources = sorted(Path(paravt_env.__file__).parent.rglob("*.py"))
    texts = [path.read_text(encoding="utf-8") for path in sources]
    with tempfile.TemporaryDirectory() as folder:
        vlm = VisionLanguageModel.load(build_mini(folder, texts))
    parameters = sum(p.numel() for p in vlm.model.parameters()) / 1e6
    trl = importlib.util.find_spec("trl")
    version = "not installed" if trl is None else __import__("trl").__version__
    lines = [
        "$ python " + shlex.join([f"benchmarks/{Path(__file__).name}", *sys.argv[1:]]),
        f"{platform.machine()}, {os.cpu_count()} cores, 1 thread, {platform.system()}, torch "
        f"{torch.__version__}, TRL {version}; Qwen3-VL of {parameters:.1f} M parameters, "
        f"vocabulary {len(vlm.tokenizer)}, float32, C = {COMPLETION}, median of {args.repeats}",
        HEADER,
    ]
    print("\n".join(lines), flush=True)
    todo = [(prompt, group) for prompt in args.prompts for group in args.groups]
    for prompt, group in counted("cells", todo):
        cell = measure(vlm, prompt, group, args.repeats, memory=sys.platform == "linux")
        lines.append(line(prompt, group, cell))
        print(lines[-1], flush=True)
    if args.output:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
