"""The cold start: supervised fine-tuning on oracle-written traces, after simpler lessons.

Lessons come first: single frames (which scene, which side of noon, which symbols), then several by
their times, in words before in pictures; then the mixture of whole conversations and sub-agent
readings, with the vision tower as the lessons left it. Traces are collected through the real
environment by a :class:`TraceAgent` and trained by the same packed learner as reinforcement
learning. Command: ``paravt sft sft_mini``.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from agents.base import Limits, Trajectory, image_key
from agents.context import TokenContext
from agents.mini import build_mini
from agents.paragrpo import PARAGRPOConfig
from agents.vlm import VisionLanguageModel
from paravt_env.protocol.prompts import (
    PROMPTS,
    FrameRef,
    PromptStyle,
    overview_parts,
    subagent_parts,
)
from paravt_env.protocol.tags import Role
from paravt_env.tasksets.synthetic import oracle
from paravt_env.vector import LongVideoVectorEnv
from paravt_env.video.store import FrameStore
from train import recipe
from train.config import LessonConfig, SFTConfig
from train.learner import Learner
from train.meter import Meter
from train.rollout import Start, play
from train.traces import TraceAgent, corpus, listed, side_of
from train.trajectory import Sample

LIST_QUESTION, PICK_QUESTION = "?", "which?"


def describe_frame(cue: oracle.Cue) -> str:
    """What a single frame shows, in the words of the warm-up: scene, side of the sun, symbols.

    >>> describe_frame(oracle.Cue(12.0, 3, "red", 0.2, ()))
    'red left none'
    """
    if not cue.symbols:
        what = "none"
    else:
        symbol, corner = cue.symbols[0]
        what = f"{symbol} {corner}" if len(cue.symbols) == 1 else f"{len(cue.symbols)} {symbol}"
    return f"{cue.colour} {side_of(cue)} {what}"


@dataclass(frozen=True)
class Album:
    """Single frames of one video in time order, with what each of them shows."""

    video: dict[str, float]
    """Duration in seconds, frames a second, width and height in pixels."""
    cues: tuple[oracle.Cue, ...]
    pixels: np.ndarray
    """uint8 (N, H, W, 3)."""


def make_albums(
    config: SFTConfig, env: LongVideoVectorEnv, rng: np.random.Generator
) -> list[Album]:
    """Decode at most `frames_per_video` frames of a video: half of events, half of any moment."""
    tasks = env.simulation.tasks
    first = {tasks[i].video: tasks[i] for i in range(len(tasks))}
    store = FrameStore(workers=config.env.video_workers)
    half = config.frames_per_video // 2
    albums = []
    for task in first.values():
        events = [event for scene in oracle.scenes_of(task) for event in scene.events]
        chosen = rng.integers(len(events), size=half)
        inside = [rng.uniform(events[i].start, events[i].end) for i in chosen]
        times = np.sort([*inside, *rng.uniform(0, task.metadata["duration"], size=half)])
        times = times[np.diff(times, prepend=-np.inf) >= 2.0]  # apart when read as whole seconds
        frames = store.frames(task.video, times, config.env.frame_size)
        cues = oracle.visible_cues(task, frames.timestamps.tolist())
        albums.append(Album(asdict(store.info(task.video)), cues, frames.pixels.copy()))
    store.close()
    return albums


def lesson(
    vlm: VisionLanguageModel,
    style: PromptStyle,
    album: Album,
    shown: Sequence[int],
    named: Sequence[bool] = (),
    order: Sequence[str] = (),
) -> Trajectory:
    """A reading of some frames of an album.

    Args:
        vlm: Tokenizer and image geometry.
        style: How frames are put before the model.
        album: Frames of one video.
        shown: Which of them, in time order. A single one is described; several are listed, each
            by its time.
        named: For each of several frames, whether words stand in its place.
        order: Scenes in whose order the frame nearest each one's noon is listed; empty lists all
            frames in their own order.
    """
    cues = [album.cues[i] for i in shown]
    times = np.array([cue.time for cue in cues])
    if len(cues) == 1:
        text = describe_frame(cues[0])
        parts = subagent_parts(style, LIST_QUESTION, (times[0], times[0]), times)
    else:
        noon = noon_frames(cues)
        chosen = [noon[colour] for colour in order] or cues
        text = "; ".join(listed(style, cue) for cue in chosen)
        question = PICK_QUESTION if order else LIST_QUESTION
        seen = {"window": np.zeros(len(cues)), "timestamps": times, "question": question}
        parts = overview_parts(style, seen | {"video": album.video})
    words = {i: f" {cues[i].colour} {side_of(cues[i])}\n" for i, word in enumerate(named) if word}
    parts = [words.get(p.index, p) if isinstance(p, FrameRef) else p for p in parts]
    context = TokenContext(vlm, kind="subagent")
    context.ask(parts, album.pixels[list(shown)])
    ids = vlm.tokenizer(text, add_special_tokens=False)["input_ids"]
    ids.append(vlm.tokenizer.eos_token_id)
    context.append(ids, int(Role.text), [0.0] * len(ids))
    return context.freeze()


def noon_frames(cues: Sequence[oracle.Cue]) -> dict[str, oracle.Cue]:
    """The frame nearest its scene's noon, by the scene's colour."""
    return {cue.colour: cue for cue in sorted(cues, key=lambda cue: -abs(cue.phase - 0.5))}


def lessons(
    vlm: VisionLanguageModel,
    config: SFTConfig,
    albums: Sequence[Album],
    rng: np.random.Generator,
    kind: LessonConfig,
) -> Iterator[Trajectory]:
    """Readings of one kind for ever, up to `kind.frames` frames each."""
    style = PROMPTS[config.agent.prompt_style]
    while True:
        album = albums[int(rng.integers(len(albums)))]
        count = int(rng.integers(min(2, kind.frames), kind.frames + 1))
        count = min(count, len(album.cues))
        shown = np.sort(rng.choice(len(album.cues), count, replace=False)).tolist()
        if count == 1:
            yield lesson(vlm, style, album, shown)
            continue
        named = (rng.random(count) < kind.words).tolist()
        colours = list(dict.fromkeys(album.cues[i].colour for i in shown))
        picks = rng.random() < kind.picks
        order = [colours[i] for i in rng.permutation(len(colours))] if picks else []
        yield lesson(vlm, style, album, shown, named, order)


def trace_trajectories(
    vlm: VisionLanguageModel,
    config: SFTConfig,
    env: LongVideoVectorEnv,
    say: Callable[[str], None] = print,
) -> list[Trajectory]:
    """Play `config.rollouts` episodes with a :class:`TraceAgent` and keep their trajectories."""
    agent = TraceAgent(
        vlm, config.agent, Limits.of(config.env), env.task_of, config.traces, config.run.seed
    )
    images: dict[bytes, np.ndarray] = {}
    kept: list[Trajectory] = []
    for start in range(0, config.rollouts, env.num_envs):
        seeds = (config.run.seed * 1_000_003 + start + row for row in range(env.num_envs))
        for rollout in play(env, agent, [Start(seed=seed) for seed in seeds]):
            kept += [_with_own_images(t, images) for t in rollout.trajectories]
        if (start // env.num_envs) % 20 == 0:
            say(f"traces: {start + env.num_envs}/{config.rollouts} rollouts")
    return kept


def _with_own_images(trajectory: Trajectory, known: dict[bytes, np.ndarray]) -> Trajectory:
    """The trajectory with each distinct image stored once, not as a view of a whole observation."""

    def own(images: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
        return tuple(known.setdefault(image_key(image), image.copy()) for image in images)

    return replace(
        trajectory,
        prompt_images=own(trajectory.prompt_images),
        branch_images=own(trajectory.branch_images),
    )


def shuffled(items: Sequence[Trajectory], rng: np.random.Generator) -> Iterator[Trajectory]:
    """Items for ever, every epoch in a new order."""
    while True:
        for i in rng.permutation(len(items)):
            yield items[i]


def fit(
    vlm: VisionLanguageModel,
    config: SFTConfig,
    streams: Sequence[tuple[Iterator[Trajectory], int]],
    steps: int,
    stage: str,
    log: Callable[[dict[str, Any]], None],
    freeze_vision: bool = True,
) -> None:
    """Train on batches drawn from streams; cosine learning rate with a warm-up.

    Args:
        vlm: The policy; its weights change.
        config: Learning rates and clipping.
        streams: Trajectories and how many of them each batch takes.
        steps: Optimizer steps.
        stage: Name in the log.
        log: Receives one record every `config.log_every` steps.
        freeze_vision: Leave the vision tower as it is.
    """
    if not steps:
        return
    learner = Learner(
        vlm,
        PARAGRPOConfig(
            loss="likelihood",
            aggregation="token_mean",
            kl_coefficient=0.0,
            learning_rate=config.learning_rate,
            weight_decay=config.weight_decay,
            max_grad_norm=config.grad_clip,
            micro_batch_tokens=config.micro_batch_tokens,
            freeze_vision=freeze_vision,
        ),
        temperature=1.0,
    )
    rising = max(1, round(config.warmup_fraction * steps))
    learner.scheduler = torch.optim.lr_scheduler.LambdaLR(
        learner.optimizer,
        lambda step: min(
            (step + 1) / rising, 0.5 * (1 + math.cos(math.pi * min(1.0, step / steps)))
        ),
    )
    vlm.model.train()
    since, meter = time.perf_counter(), Meter()
    for step in range(1, steps + 1):
        drawn = [next(stream) for stream, count in streams for _ in range(count)]
        samples = [Sample(t, np.ones(len(t.branch_ids), np.float32)) for t in drawn]
        learner.optimize(samples, meter)
        if step % config.log_every == 0 or step == steps:
            metrics = meter.metrics()
            record = {"stage": stage, "step": step, "loss": round(metrics["loss"], 4)}
            log(record | {"seconds": round(time.perf_counter() - since, 1)})
            meter = Meter()
    vlm.model.eval()


def _policy(config: SFTConfig, folder: Path, env: LongVideoVectorEnv) -> VisionLanguageModel:
    """The checkpoint to start from, or a fresh ParaVT-Mini whose tokenizer knows the task set."""
    source = config.agent.checkpoint
    if not source:
        build_mini(folder, corpus(env.simulation.tasks), config.mini, config.run.seed)
        source = str(folder)
    return VisionLanguageModel.load(source, config.agent.dtype, config.agent.device)


def run(config: SFTConfig, say: Callable[[str], None] = print) -> Path:
    """Make a cold-start checkpoint: build or load, warm up, imitate traces, save.

    Returns:
        The folder of the checkpoint. Beside the weights: the resolved `config.yaml` and the losses
        (`sft.jsonl`).
    """
    torch.set_num_threads(config.run.threads)
    rng = np.random.default_rng(config.run.seed)
    folder = Path(config.output or config.run.path)
    folder.mkdir(parents=True, exist_ok=True)
    recipe.save(config, folder)
    records: list[dict[str, Any]] = []

    def log(record: dict[str, Any]) -> None:
        records.append(record)
        say(json.dumps(record))

    env = config.env.make(config.evaluation.num_envs)
    try:
        vlm = _policy(config, folder, env)
        albums = make_albums(config, env, rng)
        for kind in config.lessons:
            last = lessons(vlm, config, albums, rng, kind)
            fit(vlm, config, [(last, kind.batch)], kind.steps, kind.name, log, kind.freeze_vision)
        traces = trace_trajectories(vlm, config, env, say)
    finally:
        env.close()
    mains = [t for t in traces if t.kind == "main"]
    streams = [(shuffled(mains, rng), config.batch)]
    if config.rehearsal:
        streams.append((last, config.rehearsal))
    readings = [t for t in traces if t.kind == "subagent"]
    if readings and config.readings:
        streams.append((shuffled(readings, rng), config.readings))
    fit(vlm, config, streams, config.steps, "traces", log)
    vlm.save(folder)
    lines = "".join(json.dumps(record) + "\n" for record in records)
    (folder / "sft.jsonl").write_text(lines, encoding="utf-8")
    say(f"{folder} written; measure it with: paravt eval --agent.checkpoint={folder}")
    return folder
