"""What a cold start imitates of the synthetic world: whole conversations, readings, single frames.

Between the environment and a stage (`train/sft/stage.py`): traces are collected through the real
environment by a :class:`TraceAgent`, frames are decoded by its reader, and both become the
trajectories that the learner takes. Tests: `pytest tests/sft/test_sft.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from agents.base import Trajectory, image_key
from agents.config import Limits
from agents.model.vlm import VisionLanguageModel
from agents.text.context import TokenContext, text_ids
from paravt_env.protocol.parts import FramesAs, subagent_parts
from paravt_env.protocol.styles import PromptStyle, prompt_style
from paravt_env.protocol.tags import Role
from paravt_env.tasksets.made.synthetic import oracle
from paravt_env.vector import LongVideoVectorEnv
from paravt_env.video.store.store import FrameStore
from train.config.sft import TRACE_DIALS, SFTConfig, StageConfig
from train.rollout.play import play
from train.rollout.starts import Start
from train.sft.code_traces import CodeTraceAgent, about_pictures, described_crops
from train.sft.traces import TraceAgent
from train.sft.video_code_traces import VideoCodeTraceAgent
from train.sft.wording import describe_frame

FRAME_QUESTION = "?"


def single_frames(
    vlm: VisionLanguageModel, config: SFTConfig, env: LongVideoVectorEnv, rng: np.random.Generator
) -> list[Trajectory]:
    """A description of each of `frames_per_video` frames: half of events, half of any moment.

    Of pictures, what the code of a trace shows of them (`code_traces.described_crops`).
    """
    style = prompt_style(config.agent.prompt_style)
    tasks = env.simulation.tasks
    if about_pictures(tasks):
        size, pictures = config.env.frame_size, env.simulation.pictures
        told = described_crops(tasks, pictures, size, config.frames_per_video, rng)
        frames_as = config.agent.frames_as
        return [reading(vlm, style, said, one[None], frames_as=frames_as) for said, one in told]
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
        described += [
            frame_reading(vlm, style, cue, pixels[i : i + 1], config.agent.frames_as)
            for i, cue in enumerate(cues)
        ]
    store.close()
    return described


def frame_reading(
    vlm: VisionLanguageModel,
    style: PromptStyle,
    cue: oracle.Cue,
    pixels: np.ndarray,
    frames_as: FramesAs = "image",
) -> Trajectory:
    """A sub-agent's reading of one frame, uint8 (1, H, W, 3): the scene, the sun, the symbols."""
    return reading(vlm, style, describe_frame(cue), pixels, cue.time, frames_as)


def reading(
    vlm: VisionLanguageModel,
    style: PromptStyle,
    said: str,
    pixels: np.ndarray,
    time: float = 0.0,
    frames_as: FramesAs = "image",
) -> Trajectory:
    """A sub-agent's reading of one frame, uint8 (1, H, W, 3), in the words that are given."""
    context = TokenContext(vlm, kind="subagent")
    parts = subagent_parts(
        style, FRAME_QUESTION, (time, time), np.array([time]), frames_as=frames_as
    )
    context.ask(parts, pixels)
    ids = text_ids(vlm.tokenizer, said)
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
    own = {name: getattr(stage, name) for name in TRACE_DIALS}
    dials = replace(config.traces, **{k: share for k, share in own.items() if share is not None})
    limits = Limits.of(config.env)
    agent: TraceAgent | CodeTraceAgent
    if limits.code and not about_pictures(env.simulation.tasks):
        frames = config.env.frames_per_crop
        agent = VideoCodeTraceAgent(vlm, config.agent, limits, env.task_of, dials, frames, seed)
    elif limits.code:
        agent = CodeTraceAgent(vlm, config.agent, limits, env.task_of, dials, seed)
    else:
        agent = TraceAgent(vlm, config.agent, limits, env.task_of, dials, stage.words, seed)
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
