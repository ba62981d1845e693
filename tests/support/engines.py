"""What the tests of engines share: a small policy, prompts, and the learner's own numbers."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from support.builders import make_task, write_manifest

from agents.algorithm.config import PARAGRPOConfig
from agents.base import Trajectory, image_size
from agents.config import AgentConfig, VLLMConfig
from agents.model.mini import MiniConfig
from agents.model.vlm import VisionLanguageModel
from agents.text.context import TokenContext
from paravt_env.protocol.tags import Role
from train.config.env import EnvConfig
from train.config.learner import OptimizerConfig
from train.config.run import RunConfig, TrainConfig

SHAPE = MiniConfig(64, 2, 2, 128, 64, 2, 2, 128, vocabulary=400, numbers=64)
SMALL = VLLMConfig(
    max_model_len=1024, max_sequences=64, block_size=32, kv_cache_gib=0.125, max_images=64
)


def settings(folder: Path, **changes: object) -> AgentConfig:
    """An agent's settings over that checkpoint."""
    fields = {
        "checkpoint": str(folder),
        "engine": "vllm",
        "vllm": SMALL,
        "prompt_style": "compact",
        "temperature": 0.7,
        "max_new_tokens": 24,
        "answer_tokens": 8,
        "subagent_tokens": 6,
    }
    return AgentConfig(**(fields | changes))  # type: ignore[arg-type]


def frames(count: int, seed: int = 0) -> np.ndarray:
    """uint8 (count, 64, 64, 3) noise."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 255, (count, 64, 64, 3), dtype=np.uint8)


def conversation(vlm: VisionLanguageModel, images: np.ndarray, text: str) -> TokenContext:
    """A prompt of frames with their numbers and a question."""
    context = TokenContext(vlm)
    for i, image in enumerate(images):
        context.append_text(f"{i} ", Role.prompt)
        context.append_image(image, Role.prompt)
    context.append_text(text, Role.prompt)
    context.close_prompt()
    return context


def logprobs(
    vlm: VisionLanguageModel, context: TokenContext, ids: list[int], temperature: float
) -> np.ndarray:
    """The learner's log-probabilities of a completion, by one plain forward pass."""
    tokens = np.array([*context.ids, *ids])
    grids = [vlm.image_grid(*image_size(image)) for image in context.images]
    positions = torch.from_numpy(vlm.rope_positions(tokens, grids)[0])[:, None]
    with torch.no_grad():
        features = torch.cat(vlm.encode_images(context.images)) if context.images else None
        hidden = vlm.forward(torch.from_numpy(tokens)[None], positions, None, features)
        logits = vlm.logits(hidden)[0].float()
    logits[:, list(vlm.forbidden_ids)] = -torch.inf
    chosen = torch.log_softmax(logits / (temperature or 1.0), -1)[len(context.ids) - 1 : -1]
    return chosen.gather(1, torch.tensor(ids)[:, None])[:, 0].numpy()


def disagreement(
    vlm: VisionLanguageModel, trajectories: list[Trajectory], temperature: float
) -> float:
    """Largest distance between recorded log-probabilities and the learner's of the same tokens."""
    worst = 0.0
    for one in trajectories:
        context = TokenContext(vlm)
        context.ids = one.prompt_ids.tolist()
        context.images = [*one.prompt_images, *one.branch_images]
        expected = logprobs(vlm, context, one.branch_ids.tolist(), temperature)
        apart = np.abs(expected - one.logprobs)[one.loss_mask]
        worst = max(worst, float(apart.max(initial=0.0)))
    return worst


def training(agent: AgentConfig, clip: str, folder: Path, steps: int, **run: object) -> TrainConfig:
    """Settings of a run of that agent on one clip, which is linked into the run's folder."""
    os.link(clip, folder / Path(clip).name)
    return TrainConfig(
        env=EnvConfig(
            tasks=write_manifest(folder / "tasks.jsonl", [make_task(clip)]),
            frame_size=(64, 64), max_turns=1, max_crops=2, frames_per_crop=2, frame_budget=2,
        ),
        agent=agent,
        algorithm=PARAGRPOConfig(groups=2, group_size=4, loss="tis", kl_coefficient=0.0),
        optimizer=OptimizerConfig(learning_rate=1e-3),
        run=RunConfig(folder=str(folder), steps=steps, wandb="disabled", checkpoint_every=0, **run),  # type: ignore[arg-type]
    )  # fmt: skip
