"""The cold start: supervised fine-tuning on oracle-written traces or published conversations.

Stages follow one another (`stages` of the recipe), each a mixture of whole conversations,
sub-agent readings and descriptions of single frames. At first words stand in place of the
overview's frames: to see which frame is asked for and to copy its times is learned on text, far
faster. What they imitate is made in `train/sft/demonstrations.py`, a stage is trained in
`train/sft/stage.py`. A stage may instead take what a data set publishes
(`train/sft/conversations.py`). Command: ``paravt sft sft_mini``. Tests: `pytest tests/sft`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from agents.model.mini import build_mini
from agents.model.vlm import VisionLanguageModel
from paravt_env.vector import LongVideoVectorEnv
from train.common.console import Work
from train.common.errors import ConfigError
from train.config import recipe
from train.config.checks import check_trained_dtype
from train.config.sft import SFTConfig
from train.distributed.exclusive import exclusive
from train.distributed.processes import Processes, join, leave
from train.distributed.watchdog import Watchdog
from train.learner import lora
from train.sft.code_traces import about_pictures, code_corpus
from train.sft.conversations import RECORD, PublishedConversations, make_env
from train.sft.demonstrations import single_frames, trace_trajectories
from train.sft.progress import Progress, admitted
from train.sft.stage import train_stage
from train.sft.streams import Shuffled, Stream
from train.sft.wording import corpus


def check(config: SFTConfig, processes: Processes) -> None:
    """Refuse what cannot be run, before anything is loaded."""
    check_trained_dtype(config.agent.dtype)
    if processes.world.size == 1:
        return
    if config.parallel.layout != "colocated":
        raise ConfigError(
            "parallel.layout=disaggregated: `paravt sft` has nothing to play; leave it out"
        )
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
        ConfigError: Settings that cannot run, a folder that holds something else, or no published
            conversation that could be used.
    """
    torch.set_num_threads(config.run.threads)
    processes = join(config.parallel, config.agent.device)
    try:
        with Watchdog(processes):
            check(config, processes)
            with exclusive(folder_of(config), processes):
                return _run(config, processes, say if processes.leads else lambda line: None)
    finally:
        leave()


def folder_of(config: SFTConfig) -> Path:
    """Where the checkpoint is written."""
    return Path(config.output or config.run.path)


def _run(config: SFTConfig, processes: Processes, say: Callable[[str], None]) -> Path:
    rng = np.random.default_rng(config.run.seed)
    folder = folder_of(config)
    progress = Progress(config, folder, rng, processes, admitted(config, folder, processes))
    folder.mkdir(parents=True, exist_ok=True)
    if processes.leads:
        recipe.save(replace(config, run=replace(config.run, allow_changes=False)), folder)
    shipped: PublishedConversations | None = None

    def log(record: dict[str, Any]) -> None:
        if shipped is not None and shipped.left_out:
            record = record | {"left_out": shipped.counts()}
        progress.records.append(record)
        say(json.dumps(record))

    published = any(stage.published for stage in config.stages)
    env = make_env(config) if published else config.env.make(config.evaluation.num_envs)
    try:
        vlm = _policy(config, folder, env, processes, progress.source)
        if published:
            shipped = PublishedConversations(vlm, config, env, folder, processes)
        described = any(stage.frames for stage in config.stages)
        frames = single_frames(vlm, config, env, rng) if described else []
        steps = [stage.steps for stage in config.stages]
        work = Work("sft: step", sum(steps), sum(steps[: progress.stage]))
        for number, stage in list(enumerate(config.stages))[progress.stage :]:
            seed = config.run.seed * len(config.stages) + number
            traces = trace_trajectories(vlm, config, env, stage, seed, say)
            kinds = (
                ([t for t in traces if t.kind == "main"], stage.conversations),
                ([t for t in traces if t.kind == "subagent"], stage.readings),
                (frames, stage.frames),
            )
            streams: list[tuple[Stream, int]] = [
                (Shuffled(kind, rng), count) for kind, count in kinds if kind and count
            ]
            if shipped is not None and stage.published:
                streams.append((shipped.stream(rng), stage.published))
            sources = [stream for stream, _ in streams]
            again = progress.restore if progress.go_to(sources) else None
            if again is not None:
                say(f"resuming in stage {stage.name!r}")
            save = partial(progress.save, vlm, number, streams=sources)
            leader = work if processes.leads else None
            tell = partial(_tell, leader, sum(steps[:number]), stage.name)
            train_stage(vlm, config, streams, stage, log, processes, save, again, tell)
        progress.end(vlm)
    finally:
        env.close()
    if shipped is not None and shipped.left_out:
        say(f"left out, by reason: {shipped.counts()}; each by name in {folder / RECORD}")
    say(
        f"{folder} written\nnext:\n"
        f"  paravt eval --agent.checkpoint={folder} --run.name={folder.name}   # measure it\n"
        f"  paravt train --agent.checkpoint={folder}   # reinforcement learning from here"
    )
    return folder


def _tell(work: Work | None, before: int, stage: str, step: int) -> None:
    """Show a step of a stage, in the process that speaks."""
    if work is not None:
        work.show(before + step, f"stage {stage}")


def _policy(
    config: SFTConfig,
    folder: Path,
    env: LongVideoVectorEnv,
    processes: Processes,
    saved: Path | None,
) -> VisionLanguageModel:
    """The checkpoint to start from, or a fresh ParaVT-Mini whose tokenizer knows the task set.

    Of a resumed run, the policy that was saved; adapters are added to what they began with.
    """
    source = config.agent.checkpoint
    if saved is not None and not config.lora.rank:
        source = str(saved)
    elif not source:
        if processes.leads:
            tasks = env.simulation.tasks
            texts = (code_corpus if about_pictures(tasks) else corpus)(tasks)
            build_mini(folder, texts, config.mini, config.run.seed)
        processes.barrier()
        source = str(folder)
    device = processes.local_device(config.agent.device)
    vlm = VisionLanguageModel.load(source, config.agent.dtype, device)
    return lora.add(vlm, config.lora, config.run.seed) if config.lora.rank else vlm
