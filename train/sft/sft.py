"""The cold start: supervised fine-tuning on oracle-written traces or published conversations.

Stages follow one another (`stages` of the recipe), each a mixture of whole conversations,
sub-agent readings and descriptions of single frames. At first words stand in place of the
overview's frames: to see which frame is asked for and to copy its times is learned on text, far
faster. Traces are collected through the real environment by a :class:`TraceAgent` and
trained by the same packed learner as reinforcement learning. A stage may instead take what a data
set publishes (`train/sft/conversations.py`). Command: ``paravt sft sft_mini``.
"""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME

from agents.algorithm.config import PARAGRPOConfig
from agents.base import Trajectory, image_key
from agents.config import Limits
from agents.model.mini import build_mini
from agents.model.vlm import VisionLanguageModel
from agents.text.context import TokenContext
from paravt_env.common.files import flush
from paravt_env.protocol.parts import PromptStyle, prompt_style, subagent_parts
from paravt_env.protocol.tags import Role
from paravt_env.tasksets.made.synthetic import oracle
from paravt_env.vector import LongVideoVectorEnv
from paravt_env.video.store.store import FrameStore
from train.common.errors import ConfigError
from train.config import recipe
from train.config.sft import SFTConfig, StageConfig
from train.distributed import processes as parallel
from train.distributed.processes import ALONE, Parallel
from train.distributed.watchdog import Watch
from train.learner import lora
from train.learner.learner import Learner
from train.learner.meter import Meter
from train.packing.samples import Sample
from train.rollout.play import Start, play
from train.sft.conversations import RECORD, PublishedConversations, make_env
from train.sft.traces import TraceAgent, corpus, describe_frame

FRAME_QUESTION = "?"


def single_frames(
    vlm: VisionLanguageModel, config: SFTConfig, env: LongVideoVectorEnv, rng: np.random.Generator
) -> list[Trajectory]:
    """A description of each of `frames_per_video` frames: half of events, half of any moment."""
    style = prompt_style(config.agent.prompt_style)
    tasks = env.simulation.tasks
    first = {tasks[i].video: tasks[i] for i in range(len(tasks))}
    store = FrameStore(workers=config.env.video_workers)
    half = config.frames_per_video // 2
    described = []
    for task in first.values():
        events = [event for scene in oracle.scenes_of(task) for event in scene.events]
        chosen = rng.integers(len(events), size=half)
        inside = [rng.uniform(events[i].start, events[i].end) for i in chosen]
        times = np.sort([*inside, *rng.uniform(0, task.metadata["duration"], size=half)])
        frames = store.frames(task.video, times, config.env.frame_size)
        cues = oracle.visible_cues(task, frames.timestamps.tolist())
        pixels = frames.pixels
        described += [describe(vlm, style, cue, pixels[i : i + 1]) for i, cue in enumerate(cues)]
    store.close()
    return described


def describe(
    vlm: VisionLanguageModel, style: PromptStyle, cue: oracle.Cue, pixels: np.ndarray
) -> Trajectory:
    """A sub-agent's reading of one frame, uint8 (1, H, W, 3): the scene, the sun, the symbols."""
    context = TokenContext(vlm, kind="subagent")
    window = (cue.time, cue.time)
    context.ask(subagent_parts(style, FRAME_QUESTION, window, np.array([cue.time])), pixels)
    ids = vlm.tokenizer(describe_frame(cue), add_special_tokens=False)["input_ids"]
    ids.append(vlm.tokenizer.eos_token_id)
    context.append(ids, int(Role.text), [0.0] * len(ids))
    return context.freeze()


def trace_trajectories(
    vlm: VisionLanguageModel,
    config: SFTConfig,
    env: LongVideoVectorEnv,
    stage: StageConfig,
    seed: int = 0,
    say: Callable[[str], None] = print,
) -> list[Trajectory]:
    """Play `stage.rollouts` episodes with a :class:`TraceAgent` and keep their trajectories."""
    own = {"call": stage.call, "weigh": stage.weigh}
    dials = replace(config.traces, **{k: share for k, share in own.items() if share is not None})
    agent = TraceAgent(
        vlm, config.agent, Limits.of(config.env), env.task_of, dials, stage.words, seed
    )
    images: dict[bytes, np.ndarray] = {}
    kept: list[Trajectory] = []
    for start in range(0, stage.rollouts, env.num_envs):
        seeds = (seed * 1_000_003 + start + row for row in range(env.num_envs))
        for rollout in play(env, agent, [Start(seed=seed) for seed in seeds]):
            kept += [_with_own_images(t, images) for t in rollout.trajectories]
        if (start // env.num_envs) % 20 == 0:
            say(f"{stage.name}: {start + env.num_envs}/{stage.rollouts} rollouts")
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
    stage: StageConfig,
    log: Callable[[dict[str, Any]], None],
    processes: Parallel = ALONE,
    save: Callable[[], None] = lambda: None,
) -> None:
    """Train on batches drawn from streams; cosine learning rate with a warm-up.

    Args:
        vlm: The policy; its weights change.
        config: Learning rates and clipping.
        streams: Trajectories and how many of them each batch takes.
        stage: Its name, steps and learning rate; whether the vision tower learns.
        log: Receives one record every `config.log_every` steps.
        processes: Those that share the updates; each draws the same batches.
        save: Called every `config.save_every` steps, with the policy's weights up to date.
    """
    steps = stage.steps
    if not steps:
        return
    learner = Learner(
        vlm,
        PARAGRPOConfig(
            loss="likelihood",
            aggregation="token_mean",
            kl_coefficient=0.0,
            learning_rate=stage.learning_rate or config.learning_rate,
            weight_decay=config.weight_decay,
            max_grad_norm=config.grad_clip,
            micro_batch_tokens=config.micro_batch_tokens,
            freeze_vision=stage.freeze_vision,
        ),
        temperature=1.0,
        parallel=processes,
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
        processes.progress.at(stage.name, step)
        drawn = [next(stream) for stream, count in streams for _ in range(count)]
        samples = [Sample(t, np.ones(len(t.branch_ids), np.float32)) for t in drawn]
        learner.optimize(samples, meter)
        if step % config.log_every == 0 or step == steps:
            metrics = meter.metrics()
            record = {"stage": stage.name, "step": step, "loss": round(metrics["loss"], 4)}
            log(record | {"seconds": round(time.perf_counter() - since, 1)})
            meter = Meter()
        if config.save_every and step % config.save_every == 0 and step < steps:
            learner.weights.publish()
            save()
    learner.weights.publish()
    learner.weights.retire()
    vlm.model.eval()


def _policy(
    config: SFTConfig, folder: Path, env: LongVideoVectorEnv, processes: Parallel
) -> VisionLanguageModel:
    """The checkpoint to start from, or a fresh ParaVT-Mini whose tokenizer knows the task set."""
    source = config.agent.checkpoint
    if not source:
        if processes.leads:
            build_mini(folder, corpus(env.simulation.tasks), config.mini, config.run.seed)
        processes.barrier()
        source = str(folder)
    device = processes.local_device(config.agent.device)
    vlm = VisionLanguageModel.load(source, config.agent.dtype, device)
    return lora.add(vlm, config.lora, config.run.seed) if config.lora.rank else vlm


def _replace(folder: Path, vlm: VisionLanguageModel, records: Sequence[dict[str, Any]]) -> None:
    """Write the policy and the losses into a draft, then put its files where the old ones are.

    Each has its name only when it is whole. Of a policy in several files the index that names them
    goes first and comes last, so that no mixture of two can be loaded.

    Raises:
        OSError: It could not be written (a full disk); what was there before stays.
    """
    draft = folder / ".partial"
    shutil.rmtree(draft, ignore_errors=True)
    try:
        vlm.save(draft)
        lines = "".join(json.dumps(record) + "\n" for record in records)
        (draft / "sft.jsonl").write_text(lines, encoding="utf-8")
        flush(draft)
        for path in folder.glob("model*.safetensors*"):
            if path.name == SAFE_WEIGHTS_INDEX_NAME or not (draft / path.name).exists():
                path.unlink()
        for path in sorted(draft.iterdir(), key=lambda path: path.name == SAFE_WEIGHTS_INDEX_NAME):
            path.replace(folder / path.name)
        flush(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _check(config: SFTConfig, processes: Parallel) -> None:
    """Refuse what cannot be run, before anything is loaded."""
    if processes.world.size == 1:
        return
    if config.parallel.layout != "colocated":
        raise ConfigError("parallel.layout=split: `paravt sft` has nothing to play; leave it out")
    if any(stage.rollouts or stage.frames for stage in config.stages):
        raise ConfigError(
            "several processes train on published conversations alone: run stages with rollouts "
            "or frames on one"
        )


def run(config: SFTConfig, say: Callable[[str], None] = print) -> Path:
    """Make a cold-start checkpoint: build or load, go through the stages, save.

    Returns:
        The folder of the checkpoint. Beside the weights: the resolved `config.yaml`, the losses
        (`sft.jsonl`) and the published conversations that could not be used (`left_out.jsonl`).

    Raises:
        ConfigError: Settings that cannot run, or no published conversation that could be used.
    """
    torch.set_num_threads(config.run.threads)
    processes = parallel.start(config.parallel, config.agent.device)
    try:
        with Watch(processes):
            return _run(config, processes, say if processes.leads else lambda line: None)
    finally:
        parallel.stop()


def _run(config: SFTConfig, processes: Parallel, say: Callable[[str], None]) -> Path:
    _check(config, processes)
    rng = np.random.default_rng(config.run.seed)
    folder = Path(config.output or config.run.path)
    folder.mkdir(parents=True, exist_ok=True)
    if processes.leads:
        recipe.save(config, folder)
    records: list[dict[str, Any]] = []
    shipped: PublishedConversations | None = None

    def log(record: dict[str, Any]) -> None:
        if shipped is not None and shipped.left_out:
            record = record | {"left_out": shipped.counts()}
        records.append(record)
        say(json.dumps(record))

    def save() -> None:
        if processes.leads:
            _replace(folder, vlm, records)
        processes.barrier(patient=True)

    published = any(stage.published for stage in config.stages)
    env = make_env(config) if published else config.env.make(config.evaluation.num_envs)
    try:
        vlm = _policy(config, folder, env, processes)
        if published:
            shipped = PublishedConversations(vlm, config, env, folder, processes)
        described = any(stage.frames for stage in config.stages)
        frames = single_frames(vlm, config, env, rng) if described else []
        for number, stage in enumerate(config.stages):
            seed = config.run.seed * len(config.stages) + number
            traces = trace_trajectories(vlm, config, env, stage, seed, say)
            kinds = (
                ([t for t in traces if t.kind == "main"], stage.conversations),
                ([t for t in traces if t.kind == "subagent"], stage.readings),
                (frames, stage.frames),
            )
            streams = [(shuffled(kind, rng), count) for kind, count in kinds if kind and count]
            if shipped is not None and stage.published:
                streams.append((shipped.stream(rng), stage.published))
            fit(vlm, config, streams, stage, log, processes, save)
            save()
    finally:
        env.close()
    if shipped is not None and shipped.left_out:
        say(f"left out, by reason: {shipped.counts()}; each by name in {folder / RECORD}")
    say(f"{folder} written; measure it with: paravt eval --agent.checkpoint={folder}")
    return folder
