"""Rollouts: transformers against vLLM, synchronous against asynchronous.

Interleaved, the median of the repeats and their range; torch computes on one thread a call unless
a column says two:

- engines: tokens per second of drawing n completions for each of several prompts with frames: by
  transformers' own `generate` (without log-probabilities, which training needs) and by the two
  samplers that training uses. Caches are emptied before each round, as after an update.
  `equal`: all completions are equally long, the best case of a fixed batch; `mixed`: lengths are
  log-uniform up to four times that, as rollouts are: most are short, a few are long. `generate`
  has one limit for all rows, so it draws to the longest; only what was asked for is counted;
- loops: seconds of a training step (play a batch, update on it) with crops that take a set time,
  as the answer of a slow storage does (a delay that does not grow with the number of crops), and
  the share of the step in which the engine stands idle. `lanes` plays the batch in several lanes,
  `ahead` also plays the next batch during the update; both may keep two cores busy, so the
  synchronous loop is measured with two threads too. Every round begins with a step that is not
  timed, and nothing plays on after it.

    python benchmarks/rollout.py --quick
    python benchmarks/rollout.py --output benchmarks/results/rollout.txt

Without the vllm extra (`docs/engines.md`) what needs it is left out, and the table says so.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
import shlex
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
import torch
import transformers
from transformers import AutoModelForImageTextToText
from transformers.utils.logging import disable_progress_bar

import paravt_env
from agents.algorithm.config import PARAGRPOConfig
from agents.algorithm.credit import Batch
from agents.config import AgentConfig, VLLMConfig
from agents.model.mini import MiniConfig, build_mini
from agents.model.sampling import TransformersSampler
from agents.model.vlm import VisionLanguageModel
from agents.text.context import TokenContext
from paravt_env.common.progress import counted
from paravt_env.protocol import render_completion
from paravt_env.protocol.tags import Role
from paravt_env.task import Task
from paravt_env.vector import LongVideoVectorEnv
from train.config.learner import LearnerConfig, OptimizerConfig
from train.learner.learner import Learner
from train.rollout.play import Rollout
from train.rollout.starts import Start
from train.workers.ahead import Ahead
from train.workers.lanes import Heartbeat
from train.workers.rollout_workers import RolloutWorkers, make_workers

os.environ.setdefault("OMP_NUM_THREADS", "1")  # for the engine's own threads
SIDE, TEMPERATURE = 64, 1.0
HAS_VLLM = importlib.util.find_spec("vllm") is not None


@dataclass(frozen=True)
class Sizes:
    """What is measured."""

    prompts: int = 16
    frames: int = 8
    tokens: int = 64
    group_sizes: tuple[int, ...] = (1, 8)
    crop_seconds: tuple[float, ...] = (0.0, 0.5)
    steps: int = 5
    turn_tokens: int = 32
    repeats: int = 5


QUICK = Sizes(prompts=4, tokens=24, group_sizes=(8,), crop_seconds=(0.5,), steps=2, turn_tokens=12)


def prompts(vlm: VisionLanguageModel, sizes: Sizes, seed: int) -> list[TokenContext]:
    """Different questions over different frames."""
    rng = np.random.default_rng(seed)
    contexts = []
    for i in range(sizes.prompts):
        context = TokenContext(vlm)
        for image in rng.integers(0, 255, (sizes.frames, SIDE, SIDE, 3), dtype=np.uint8):
            context.append_text(f"{i} ", Role.prompt)
            context.append_image(image, Role.prompt)
        context.append_text("where does the red circle blink, and when?", Role.prompt)
        context.close_prompt()
        contexts.append(context)
    return contexts


class Measured(NamedTuple):
    """Median of several rounds, and their range."""

    median: float
    least: float
    most: float

    def __format__(self, form: str) -> str:
        return f"{self.median:{form}} ({self.least:{form}}-{self.most:{form}})"


def interleaved(ways: Mapping[str, Callable[[int], float]], repeats: int) -> dict[str, Measured]:
    """What each way gives, taken in turns after a warm-up round."""
    values: dict[str, list[float]] = {name: [] for name in ways}
    for round_ in range(repeats + 1):
        for name, way in ways.items():
            value = way(round_)
            if round_:
                values[name].append(value)
    return {n: Measured(statistics.median(v), min(v), max(v)) for n, v in values.items()}


def lengths(rows: int, sizes: Sizes, mixed: bool, seed: int) -> list[int]:
    """Tokens of each completion."""
    if not mixed:
        return [sizes.tokens] * rows
    rng = np.random.default_rng(seed)
    return np.exp(rng.uniform(np.log(4), np.log(4 * sizes.tokens), rows)).astype(int).tolist()


def generate(model: Any, vlm: VisionLanguageModel, contexts: Any, n: int, limit: int) -> None:
    """`n` completions of `limit` tokens for each context, as a user of transformers would draw."""
    longest = max(len(context.ids) for context in contexts)
    pad = vlm.tokenizer.pad_token_id
    ids = torch.tensor([[pad] * (longest - len(c.ids)) + list(c.ids) for c in contexts])
    images = [image for context in contexts for image in context.images]
    model.generate(
        input_ids=ids,
        attention_mask=(ids != pad).long(),
        mm_token_type_ids=(ids == vlm.image_pad_id).int(),
        pixel_values=vlm.patches(np.stack(images)),
        image_grid_thw=torch.tensor([vlm.image_grid(*image.shape[:2]) for image in images]),
        do_sample=True,
        temperature=TEMPERATURE,
        top_k=0,
        num_return_sequences=n,
        min_new_tokens=limit,
        max_new_tokens=limit,
        suppress_tokens=list(vlm.forbidden_ids),
        pad_token_id=pad,
    )


def engines(
    vlm: VisionLanguageModel, engine: Any, n: int, sizes: Sizes, mixed: bool
) -> dict[str, Measured]:
    """Tokens per second of each engine at n completions a prompt."""
    model = AutoModelForImageTextToText.from_pretrained(vlm.model.name_or_path).eval()

    def by_generate(seed: int) -> float:
        contexts = prompts(vlm, sizes, seed)
        limits = lengths(n * len(contexts), sizes, mixed, seed)
        torch.manual_seed(seed)
        began = perf_counter()
        generate(model, vlm, contexts, n, max(limits))
        return sum(limits) / (perf_counter() - began)

    def transformers(seed: int) -> float:
        rows = [c for c in prompts(vlm, sizes, seed) for _ in range(n)]
        copies = [_copy(context) for context in rows]
        vlm.features.clear()
        sampler = TransformersSampler(vlm, seed)
        began = perf_counter()
        limits = lengths(len(copies), sizes, mixed, seed)
        drawn, _ = sampler.resume(None, copies, limits, TEMPERATURE)
        return sum(len(one.ids) for one in drawn) / (perf_counter() - began)

    def vllm(seed: int) -> float:
        from agents.vllm.agent import EngineSampler

        rows = [c for c in prompts(vlm, sizes, seed) for _ in range(n)]
        engine.reset_caches()
        sampler = EngineSampler(engine, seed)
        began = perf_counter()
        drawn = sampler.sample(rows, lengths(len(rows), sizes, mixed, seed), TEMPERATURE)
        return sum(len(one.ids) for one in drawn) / (perf_counter() - began)

    ways: dict[str, Callable[[int], float]] = {
        "generate": by_generate,
        "transformers": transformers,
    }
    if engine is not None:
        ways["vllm"] = vllm
    return interleaved(ways, sizes.repeats)


def _copy(context: TokenContext) -> TokenContext:
    copy = TokenContext(context.vlm)
    copy.ids, copy.images = list(context.ids), list(context.images)
    copy.image_starts = list(context.image_starts)
    return copy


class OneVideo:
    """A task set over one video."""

    name = "benchmark"

    def __init__(self, video: str) -> None:
        self.task = Task("task", video, "Which colour is it?", "mcq", ("red", "blue"), "A")
        self.ids = ("task",)

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> Task:
        return self.task

    def by_id(self, task_id: str) -> Task:
        """The only task."""
        return self.task


class SlowCrops(LongVideoVectorEnv):
    """A step with crops takes this much longer, as if they came from slow storage."""

    seconds = 0.0

    def step(self, actions: Any) -> Any:
        """Wait, then step."""
        if np.any(actions["crop_mask"]):
            time.sleep(self.seconds)
        return super().step(actions)


def write_clip(path: Path) -> str:
    """A minute of moving noise."""
    import av

    rng = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("mpeg4", rate=4)
        stream.width = stream.height = SIDE
        for pixels in rng.integers(0, 255, (240, SIDE, SIDE, 3), dtype=np.uint8):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    return str(path)


def always_calls(agent: Any) -> None:
    """Make an agent call twice in its first turn, whatever it drew, after drawing it."""
    draw = agent.draw
    text = render_completion("Look.", [(2.0, 6.0), (20.0, 24.0)], "").removeprefix("<think>\n")
    ids = agent.vlm.tokenizer(text)["input_ids"]

    def drawing(turns: Any) -> Any:
        drawn = draw(turns)
        return [
            type(one)(ids, [-5.0] * len(ids)) if agent._rows[turn.row].action is None else one
            for turn, one in zip(turns, drawn, strict=True)
        ]

    agent.draw = drawing


class Loop:
    """A training loop over workers: what a step takes, and what of it the engine stands idle."""

    def __init__(
        self, workers: RolloutWorkers, learner: Learner, ahead: bool, threads: int
    ) -> None:
        self.workers, self.learner, self.step = workers, learner, 0
        self.threads, self.ahead = threads, ahead
        self.idle: list[float] = []
        for agent in workers.agents:
            always_calls(agent)

    def _play(self) -> list[Rollout]:
        starts = [Start("task", 4, seed) for seed in range(4) for _ in range(4)]
        return self.workers.play(starts, 4)

    def run(self, steps: int) -> float:
        """Seconds of a step, over several, after one that is not timed."""
        torch.set_num_threads(self.threads)
        ahead = None
        if self.ahead:
            self.workers.heartbeat = Heartbeat()  # the one before has stopped
            ahead = Ahead(
                self._play,
                self.workers.weights_changed,
                1,
                version=self.step,
                heartbeat=self.workers.heartbeat,
            )
        try:
            self._update(ahead)
            began, busy = perf_counter(), self.busy()
            for _ in range(steps):
                self._update(ahead)
            seconds = perf_counter() - began
            self.idle.append(1 - (self.busy() - busy) / seconds)
            return seconds / steps
        finally:
            if ahead is not None:
                ahead.close()
                self.workers.weights_changed(self.step)
            torch.set_num_threads(1)

    def _update(self, ahead: Ahead[list[Rollout]] | None) -> None:
        """One step."""
        rollouts = self._play() if ahead is None else ahead.take(self.step).batch
        played = [t for one in rollouts for t in one.trajectories]
        rng = np.random.default_rng(self.step)
        advantages = [rng.normal(size=len(t.branch_ids)).astype(np.float32) for t in played]
        self.learner.update(Batch(played, advantages, [0] * len(played)))
        self.step += 1
        if ahead is None:
            self.workers.weights_changed(self.step)

    def busy(self) -> float:
        """Seconds that the engine has drawn tokens so far."""
        totals, stages = self.workers.counters(), ("engine", "encode", "prefill", "decode")
        return sum(totals.get(f"time/{stage}", 0.0) for stage in stages)


LOOPS = {"synchronous": (1, 1), "two threads": (1, 2), "lanes": (4, 1), "ahead": (4, 1)}
"""Lanes and threads of each loop."""


def loops(folder: Path, clip: str, engine: str, crop: float, sizes: Sizes) -> dict[str, Any]:
    """Seconds of a step and idle share of the engine, for each of `LOOPS`."""
    SlowCrops.seconds = crop
    config = _config(folder, engine, sizes.turn_tokens)
    made: dict[str, Loop] = {}
    with ExitStack() as resources:
        for name, (lanes, threads) in LOOPS.items():
            vlm = VisionLanguageModel.load(folder)
            envs = [
                SlowCrops(
                    16 // lanes, tasks=OneVideo(clip), frame_size=(SIDE, SIDE), max_turns=1,
                    max_crops=2, frames_per_crop=4, frame_budget=4,
                )
                for _ in range(lanes)
            ]  # fmt: skip
            for env in envs:
                resources.callback(env.close)
            workers = make_workers(config, vlm, envs, seed=0, apart=name == "ahead")
            resources.callback(workers.close)
            settings = LearnerConfig(
                PARAGRPOConfig(groups=4, group_size=4, kl_coefficient=0.0),
                OptimizerConfig(learning_rate=1e-6),
                temperature=TEMPERATURE,
                staleness=int(name == "ahead"),
            )
            learner = Learner(vlm, settings)
            made[name] = Loop(workers, learner, name == "ahead", threads)
        ways = {name: lambda _, loop=loop: loop.run(sizes.steps) for name, loop in made.items()}
        seconds = interleaved(ways, sizes.repeats)
    idle = {name: statistics.median(loop.idle[1:]) for name, loop in made.items()}
    return {"seconds": seconds, "idle": idle}


def _config(folder: Path, engine: Any, tokens: int = 32) -> AgentConfig:
    return AgentConfig(
        checkpoint=str(folder), prompt_style="compact", temperature=TEMPERATURE, engine=engine,
        max_new_tokens=tokens, answer_tokens=8, subagent_tokens=8,
        vllm=VLLMConfig(max_model_len=2048, max_sequences=128, kv_cache_gib=0.5, max_images=64),
    )  # fmt: skip


def main() -> None:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="small cells, under a minute")
    parser.add_argument("--repeats", type=int, default=5, help="timed rounds of each cell")
    parser.add_argument(
        "--engine",
        default="transformers",
        choices=("transformers", "vllm"),
        help="what the loops play with",
    )
    parser.add_argument("--output", type=Path, help="also write the tables here")
    args = parser.parse_args()
    sizes = replace(QUICK if args.quick else Sizes(), repeats=args.repeats)
    disable_progress_bar()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    lines: list[str] = []

    def say(text: str) -> None:
        lines.append(text)
        print(text, flush=True)

    with tempfile.TemporaryDirectory() as name:
        sources = sorted(Path(paravt_env.__file__).parent.rglob("*.py"))
        texts = [path.read_text(encoding="utf-8") for path in sources]
        folder = build_mini(Path(name) / "mini", texts, MiniConfig())
        vlm = VisionLanguageModel.load(folder)
        clip = write_clip(Path(name) / "clip.mp4")
        parameters = sum(p.numel() for p in vlm.model.parameters()) / 1e6
        say("$ python " + shlex.join([f"benchmarks/{Path(__file__).name}", *sys.argv[1:]]))
        say(
            f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}, "
            f"transformers {transformers.__version__}, Qwen3-VL of {parameters:.1f} M parameters, "
            f"float32, median (range) of {sizes.repeats}"
        )
        engine = None
        if HAS_VLLM:
            import vllm

            from agents.vllm.agent import start_engine

            say(f"vLLM {vllm.__version__}")
            engine = start_engine(_config(folder, "vllm"), vlm)
        else:
            say("vLLM is not installed: its column is empty")
        say(
            f"\nengines: {sizes.prompts} prompts of {sizes.frames} frames, {sizes.tokens} tokens; "
            "tokens per second, and times `generate`\n"
            f"{'n':>3} {'lengths':>8} {'generate':>19} {'transformers':>28} {'vLLM':>28} "
            f"{'vLLM / transformers':>20}"
        )
        todo = [(n, mixed) for n in sizes.group_sizes for mixed in (False, True)]
        for n, mixed in counted("engines", todo):
            speed = engines(vlm, engine, n, sizes, mixed)
            peer = speed.pop("generate")
            cells = [f"{f'{x:.0f} {x.median / peer.median:5.2f}x':>28}" for x in speed.values()]
            if "vllm" in speed:
                cells.append(f"{speed['vllm'].median / speed['transformers'].median:19.2f}x")
            name = "mixed" if mixed else "equal"
            say(f"{n:3d} {name:>8} {f'{peer:.0f}':>19} {' '.join(cells)}")
        if engine is not None:
            engine.close()
        say(
            f"\nloops ({args.engine}): 4 groups of 4, two crops each; seconds of a step, and idle "
            "share of the engine\n"
            f"{'crop s':>6}"
            + "".join(f"{name:>27}" for name in LOOPS)
            + "   best synchronous / ahead"
        )
        for crop in counted("loops", sizes.crop_seconds):
            cell = loops(folder, clip, args.engine, crop, sizes)
            idle = cell["idle"]
            columns = "".join(
                f"{f'{seconds:.2f}, {idle[name]:.0%}':>27}"
                for name, seconds in cell["seconds"].items()
            )
            best = min(cell["seconds"][name].median for name in ("synchronous", "two threads"))
            say(f"{crop:6.1f}{columns} {best / cell['seconds']['ahead'].median:10.2f}x")
    if args.output:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
