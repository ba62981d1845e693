"""The whole step, today's build against an earlier one and against TRL, side by side.

An earlier commit is unpacked into a temporary folder; each row is a process of its own over one
build or the other, in turns. Written are processor seconds (wall-clock seconds behind them), as
medians over the repeats, and their ratio: other jobs on the machine disturb a ratio least.

- `sampler`: draw 8 completions for each of 16 prompts of 8 frames, log-uniform in length;
- `update`: the gradient of the micro-batches of real rollouts (`paragrpo_mini`, three steps);
- `train`: `paravt train paragrpo_mini` for three steps over few videos: rollouts and updates;
- `eval`: the shipped cold start on test questions at K = 4, 8, 16;
- `videos`: making synthetic videos;
- `grpo`: text prompts, G = 8, rollouts with transformers, reward, update: this build against TRL's
  `GRPOTrainer` on the same checkpoint (`--trl` names the Python of an environment that has it).

    python benchmarks/step.py --quick
    python benchmarks/step.py --trl VENV/bin/python --output benchmarks/results/step.txt
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import resource
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

EARLIER = "79fad6b"
ROOT = Path(__file__).resolve().parent.parent
ROWS = {"sampler": 0.5, "update": 0.6, "train": 0.55, "eval": 0.6, "videos": 0.4, "grpo": 1 / 3}
"""What is measured, and the most that a ratio should be."""
G, PROMPTS, PROMPT, COMPLETION, TEMPERATURE = 8, 4, 300, 64, 0.7
MINI = "paravt_mini"

Work = Callable[[], None]
"""What is timed; what it needs is made before."""


def modules() -> tuple[Any, Any, Any]:
    """Policy, sampler and context of the build on the path.

    The earlier places first: an editable installation would add today's modules to any build.
    """
    try:
        from agents import context, sampling, vlm  # type: ignore[attr-defined]
    except ImportError:
        from agents.model import sampling, vlm  # type: ignore[no-redef]
        from agents.text import context  # type: ignore[no-redef]
    return vlm.VisionLanguageModel, sampling.TransformersSampler, context.TokenContext


def learner_of(vlm: Any) -> tuple[Any, Any, Any]:
    """A learner of the demo's settings, the class of its samples, and a meter."""
    arguments: tuple[Any, ...]
    try:
        from train.config import TrainConfig  # type: ignore[attr-defined]
        from train.learner import Learner  # type: ignore[attr-defined]
        from train.meter import Meter  # type: ignore[import-not-found]
        from train.recipe import load  # type: ignore[import-not-found]
        from train.trajectory import Sample  # type: ignore[import-not-found]

        arguments = load(TrainConfig, "paragrpo_mini", {}).algorithm, TEMPERATURE
    except ImportError:
        from train.config.learner import LearnerConfig
        from train.config.recipe import load
        from train.config.run import TrainConfig
        from train.learner.learner import Learner
        from train.learner.meter import Meter
        from train.packing.samples import Sample

        method = load(TrainConfig, "paragrpo_mini", {}).algorithm
        arguments = (LearnerConfig(algorithm=method, temperature=TEMPERATURE),)
    learner = Learner(vlm, *arguments)
    return learner, Sample, Meter


def sampler(quick: bool) -> Work:
    """Rows of unequal length, as rollouts are; nothing ends a row early."""
    import numpy as np

    from paravt_env.protocol.tags import Role

    policy, draws, context_of = modules()
    vlm, rng = policy.load(MINI), np.random.default_rng(0)
    contexts = []
    for i in range(4 if quick else 16):
        frames = rng.integers(0, 255, (8, 64, 64, 3), dtype=np.uint8)
        for _ in range(8):
            context = context_of(vlm)
            for frame in frames:
                context.append_text(f"{i} ", Role.prompt)
                context.append_image(frame, Role.prompt)
            context.append_text("where does the red circle blink, and when?", Role.prompt)
            contexts.append(context)
    limits = np.exp(rng.uniform(np.log(4), np.log(256), len(contexts))).astype(int).tolist()
    sampling = draws(vlm, 0)
    sampling.stop_ids = frozenset()
    return lambda: sampling.resume(None, contexts, limits, 1.0)


def update(quick: bool) -> Work:
    """Gradients of recorded samples, three optimizer steps."""
    from agents.base import Trajectory

    vlm = modules()[0].load(MINI)
    learner, sample_of, meter = learner_of(vlm)
    steps = pickle.loads(Path(os.environ["STEP_SAMPLES"]).read_bytes())
    known = {field.name for field in fields(Trajectory)}  # later builds record more

    def trajectory(one: dict[str, Any]) -> Trajectory:
        return Trajectory(**{name: value for name, value in one.items() if name in known})

    made = [[sample_of(trajectory(one), a) for one, a in step] for step in steps]

    def work() -> None:
        for samples in made[: 1 if quick else None]:
            learner.optimizer.zero_grad(set_to_none=True)
            learner.accumulate(samples, meter())

    return work


def record(quick: bool) -> Work:
    """Train, and keep what the learner is given; not a row, but what `update` needs."""
    from train.learner.learner import Learner

    accumulate, kept = Learner.accumulate, []

    def recorded(self: Any, samples: Any, meter: Any) -> None:
        kept.append([(vars(one.trajectory), one.advantages) for one in samples])
        Path(os.environ["STEP_SAMPLES"]).write_bytes(pickle.dumps(kept))
        accumulate(self, samples, meter)

    Learner.accumulate = recorded  # type: ignore[method-assign]
    return train(quick)


def _command(videos: int, *words: str) -> Work:
    from train.cli import main as paravt

    modules()[0].load(MINI)  # imports take seconds, and are not what is compared
    folder = tempfile.mkdtemp()
    settings = [
        *("--env.tasks_kwargs", f"{{videos: {videos}}}"),
        *("--run.folder", folder),
        *("--run.wandb", "disabled"),
    ]

    def work() -> None:
        if paravt([*words, *settings]):
            raise SystemExit(f"paravt {shlex.join(words)} failed")

    return work


def _made(split: str, videos: int, root: str | None = None) -> None:
    try:
        from paravt_env.tasksets.synthetic import SyntheticTasks  # type: ignore[import-not-found]
    except ImportError:
        from paravt_env.tasksets.made.synthetic import SyntheticTasks
    SyntheticTasks(split, videos=videos, progress=False, **({"root": root} if root else {}))


def train(quick: bool) -> Work:
    """Steps of the demo's training."""
    _made("train", 4)
    steps = "1" if quick else "3"
    return _command(4, "train", "paragrpo_mini", "--run.steps", steps, "--run.eval_every", "0")


def evaluate(quick: bool) -> Work:
    """Test questions, each at three frame budgets."""
    _made("test", 12)
    some = ["--evaluation.tasks", "8"] if quick else []
    return _command(12, "eval", "paragrpo_mini", "--agent.checkpoint", MINI, *some)


def videos(quick: bool) -> Work:
    """Videos of 13 to 20 minutes."""
    root = tempfile.mkdtemp()
    return lambda: _made("val", 1 if quick else 4, root)


def prompts_of(tokenizer: Any) -> list[str]:
    """Texts of `PROMPT` tokens, each another one."""
    word = tokenizer(" the scene", add_special_tokens=False)["input_ids"]
    ids = (word * PROMPT)[: PROMPT - 4]
    return [f"{i} {tokenizer.decode(ids)}" for i in range(PROMPTS)]


def variety(said: Sequence[Any]) -> float:
    """The reward: the share of different characters or tokens."""
    return len(set(said)) / max(len(said), 1)


def grpo(quick: bool) -> Work:
    """Rollouts, reward and an optimizer step by this build; the first one is not timed."""
    import numpy as np

    from paravt_env.protocol.tags import Role

    policy, draws, context_of = modules()
    vlm = policy.load(MINI)
    learner, sample_of, meter = learner_of(vlm)
    sampling, texts = draws(vlm, 0), prompts_of(vlm.tokenizer)

    def step() -> None:
        contexts = []
        for text in texts:
            for _ in range(G):
                context = context_of(vlm)
                context.append_control(text, Role.prompt)
                context.close_prompt()
                contexts.append(context)
        drawn, _ = sampling.resume(None, contexts, [COMPLETION] * len(contexts), TEMPERATURE)
        for context, one in zip(contexts, drawn, strict=True):
            context.append(one.ids, int(Role.text), one.logprobs)
        rewards = np.array([variety(one.ids) for one in drawn]).reshape(PROMPTS, G)
        spread = rewards - rewards.mean(1, keepdims=True)
        gains = (spread / (rewards.std(1, keepdims=True) + 1e-4)).reshape(-1)
        frozen = [context.freeze() for context in contexts]
        learner.optimize(
            [
                sample_of(one, np.full(len(one.branch_ids), gain, dtype=np.float32))
                for one, gain in zip(frozen, gains, strict=True)
            ],
            meter(),
        )
        sampling.clear()

    return _after_a_first(step, 1 if quick else 3)


def _after_a_first(step: Work, steps: int) -> Work:
    step()

    def work() -> None:
        for _ in range(steps):
            step()

    return work


def grpo_trl(quick: bool) -> Work:
    """The same by TRL's trainer, its own loop; the first step is not timed."""
    import trl
    from datasets import Dataset
    from transformers import AutoModelForImageTextToText, AutoTokenizer, TrainerCallback

    folder = ROOT / "agents" / "checkpoints" / MINI
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = tokenizer.chat_template or "{{ messages[0]['content'] }}"
    steps = 1 if quick else 3
    began: list[Any] = []

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *given: Any, **named: Any) -> None:
            began.append(clock())

    trainer = trl.GRPOTrainer(
        model=AutoModelForImageTextToText.from_pretrained(folder),
        reward_funcs=lambda completions, **_: [variety(one) for one in completions],
        args=trl.GRPOConfig(
            output_dir=tempfile.mkdtemp(), per_device_train_batch_size=PROMPTS * G,
            num_generations=G, max_completion_length=COMPLETION, temperature=TEMPERATURE,
            beta=0.0, learning_rate=6e-5, max_steps=steps + 1, use_cpu=True, bf16=False,
            gradient_checkpointing=False, report_to="none", save_strategy="no",
        ),
        train_dataset=Dataset.from_list([{"prompt": p} for p in prompts_of(tokenizer)] * 8),
        processing_class=tokenizer,
        callbacks=[Clock()],
    )  # fmt: skip

    def work() -> None:
        trainer.train()
        EXACT.update({k: began[-1][k] - began[0][k] for k in ("cpu", "wall")})

    return work


EXACT: dict[str, float] = {}
"""What a worker measured itself, in place of the time around it."""
WORKERS: dict[str, Callable[[bool], Work]] = {
    "sampler": sampler, "update": update, "train": train, "eval": evaluate, "videos": videos,
    "grpo": grpo, "grpo_trl": grpo_trl, "record": record,
}  # fmt: skip


def clock() -> dict[str, float]:
    """Processor and wall-clock seconds of this process so far."""
    return {"cpu": time.process_time(), "wall": time.perf_counter()}


def worker(what: str, quick: bool) -> None:
    """Measure one row in this process; the last line says it as JSON."""
    try:
        import torch

        torch.set_num_threads(1)
    except ImportError:
        pass
    work = WORKERS[what](quick)
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    before = clock()
    work()
    spent = {name: value - before[name] for name, value in clock().items()} | EXACT
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print("\n" + json.dumps(spent | {"mib": (peak - resident) / 2**20}))


def measured(python: str, build: Path, what: str, quick: bool, folder: Path) -> dict[str, float]:
    """One row over one build.

    Raises:
        RuntimeError: The process failed; the end of what it said.
    """
    told = subprocess.run(
        [python, __file__, "--worker", what, *(["--quick"] if quick else [])],
        env=os.environ
        | {
            "PYTHONPATH": str(build),
            "OMP_NUM_THREADS": "1",
            "PARAVT_CACHE": str(folder / f"cache-{build.name}"),
            "STEP_SAMPLES": str(folder / "samples"),
        },
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    if told.returncode:
        raise RuntimeError(f"{what} over {build.name}: {(told.stdout + told.stderr)[-2000:]}")
    return json.loads(told.stdout.strip().splitlines()[-1])


def compared(
    row: str, sides: Sequence[tuple[str, Path, str]], repeats: int, quick: bool, folder: Path
) -> str:
    """A line of the table: the first side's numbers, the second side's, their ratio."""
    if row == "update":
        measured(sides[1][0], sides[1][1], "record", quick, folder)
    found: list[list[dict[str, float]]] = [[], []]
    for _ in range(repeats):
        for side, (python, build, what) in enumerate(sides):
            found[side].append(measured(python, build, what, quick, folder))
    first, second = (
        {name: statistics.median(one[name] for one in side) for name in side[0]} for side in found
    )
    ratios = [b["cpu"] / a["cpu"] for a, b in zip(*found, strict=True)]
    ratio = statistics.median(ratios)
    return (
        f"{row:8} {first['cpu']:8.2f} ({first['wall']:.2f}){second['cpu']:8.2f} "
        f"({second['wall']:.2f})   {ratio:.2f} ({min(ratios):.2f}-{max(ratios):.2f})"
        f"   {ROWS[row]:.2f} {'met' if ratio <= ROWS[row] else 'missed':6}"
        f"   {second['mib'] / max(first['mib'], 1e-9):.2f}"
    )


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="small rows")
    parser.add_argument("--repeats", type=int, default=5, help="rounds of each row")
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--earlier", default=EARLIER, help="commit to compare with")
    parser.add_argument("--trl", help="Python of an environment with trl and this one's packages")
    parser.add_argument("--output", type=Path, help="also write the table here")
    parser.add_argument("--worker", choices=list(WORKERS), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        worker(args.worker, args.quick)
        return
    from paravt_env.common.progress import counted  # not in the earlier builds of the workers

    lines: list[str] = []

    def say(text: str) -> None:
        lines.append(text)
        print(text, flush=True)
        if args.output:
            args.output.write_text("\n".join(lines) + "\n", encoding="utf-8")

    shown = [f"benchmarks/{Path(__file__).name}", *sys.argv[1:]]
    if args.trl:
        shown[shown.index(args.trl)] = "VENV/bin/python"
    say("$ python " + shlex.join(shown))
    say(f"{os.cpu_count()} cores, one thread a row; medians of {args.repeats} rounds in turns")
    say(
        f"row      earlier ({args.earlier}; grpo: TRL) and this build: processor seconds (wall); "
        "ratio (range); aim; ratio of memory added"
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        earlier = folder / "earlier"
        earlier.mkdir()
        archive = ["git", "-C", str(ROOT), "archive", args.earlier]
        packed = subprocess.run(archive, capture_output=True, check=True).stdout
        subprocess.run(["tar", "x", "-C", str(earlier)], input=packed, check=True)
        for row in counted("rows", args.rows):
            sides = [(sys.executable, earlier, row), (sys.executable, ROOT, row)]
            if row == "grpo" and not args.trl:
                say("grpo     not measured: --trl names no Python")
                continue
            if row == "grpo":
                sides[0] = (args.trl, ROOT, "grpo_trl")
            try:
                say(compared(row, sides, args.repeats, args.quick, folder))
            except RuntimeError as error:
                say(f"{row:8} not measured: {str(error).splitlines()[-1]}")


if __name__ == "__main__":
    main()
