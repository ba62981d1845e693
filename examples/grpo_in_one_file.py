"""PARA-GRPO in one file: ParaVT-Mini learns to look, step by step, and nothing is hidden.

The journey of the data from top to bottom, out of the library's pure functions: questions and
frames, a turn of all rows, crops, answers, rewards, advantages, the clipped loss, the optimizer. It
takes the very steps of `paravt train paragrpo_mini` (a test compares the losses), only slower.

Left out, and where it is: a shared prompt computed once (`train/packing`), several processes
(`train/distributed`), selection and stale rollouts (`train/rollout`, `train/workers`), checkpoints
and logs (`train/loop`), a reference policy (`train/learner`).

Run it with `python examples/grpo_in_one_file.py --steps 3 --groups 2 --size 4`.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch

from agents.algorithm.config import PARAGRPOConfig
from agents.algorithm.credit import Batch, credit
from agents.algorithm.losses import LOSSES, LossInputs
from agents.base import Trajectory
from agents.config import AgentConfig, Limits
from agents.model.agent import TransformersAgent
from agents.model.vlm import VisionLanguageModel
from paravt_env.vector import LongVideoVectorEnv
from train.rollout.play import play
from train.rollout.starts import Starts

AGENT = AgentConfig(
    checkpoint="paravt_mini",  # a Qwen3-VL of 2 M parameters, after its cold start
    prompt_style="compact",
    temperature=0.7,
    max_new_tokens=160,
    answer_tokens=64,
    subagent_tokens=16,
    forced_prefix="<think>\n",  # exploration anchoring: every turn starts with the structure
)
FRAME_BUDGET = {"kind": "choice", "values": [4, 8, 16]}  # gating: K is drawn for every group
LEARNING_RATE, WARMUP_STEPS, MAX_GRAD_NORM = 6e-5, 5, 1.0


def logprobs_of(vlm: VisionLanguageModel, one: Trajectory) -> torch.Tensor:
    """Log-probabilities (T,) of the tokens that the policy sampled, by one forward pass."""
    ids = torch.from_numpy(np.concatenate([one.prompt_ids, one.branch_ids]))[None]
    images = [*one.prompt_images, *one.branch_images]
    seen = {}
    if images:
        seen["pixel_values"] = torch.cat([vlm.patches(image[None]) for image in images])
        seen["image_grid_thw"] = torch.tensor([vlm.image_grid(*i.shape[:2]) for i in images])
        seen["mm_token_type_ids"] = (ids == vlm.image_pad_id).int()
    logits = vlm.model(input_ids=ids, **seen).logits[0] / AGENT.temperature
    logits[:, list(vlm.forbidden_ids)] = -torch.inf  # vision tokens are shown, never sampled
    sampled = len(one.prompt_ids) + torch.from_numpy(np.flatnonzero(one.loss_mask))
    return logits.log_softmax(-1)[sampled - 1, ids[0, sampled]]


def backward(vlm: VisionLanguageModel, batch: Batch, method: PARAGRPOConfig) -> float:
    """Add the gradient of the batch's loss, the mean over its sampled tokens; returns the loss."""
    tokens = sum(int(one.loss_mask.sum()) for one in batch.trajectories)
    total = 0.0
    for one, advantages in zip(batch.trajectories, batch.advantages, strict=True):
        if not advantages.any():
            continue  # a group of equal rewards teaches nothing
        behaviour = torch.from_numpy(one.logprobs[one.loss_mask])
        logprobs = logprobs_of(vlm, one)
        outputs = LOSSES[method.loss](
            LossInputs(
                logprobs=logprobs,
                proximal=logprobs.detach(),  # one update a batch: the policy has not moved yet
                behaviour=behaviour,
                advantages=torch.from_numpy(advantages[one.loss_mask]),
                sequence=torch.zeros(len(behaviour), dtype=torch.int64),
                clip_low=method.clip_low,
                clip_high=method.clip_high,
            )
        )
        loss = outputs.loss.sum() / tokens
        loss.backward()
        total += loss.item()
    return total


def run(steps: int, groups: int, size: int, seed: int = 0, **tasks: object) -> list[float]:
    """Train; returns the loss of each step.

    Args:
        steps: Updates.
        groups: Questions of one update.
        size: Rollouts of each question, which share its video and its frame budget K.
        seed: Of the questions, the frame budgets and the sampling.
        tasks: Of the synthetic world, such as `videos=48`.
    """
    torch.manual_seed(seed)
    method = PARAGRPOConfig(
        groups=groups, group_size=size, credit="token", loss="clipped", kl_coefficient=0.0
    )
    env = LongVideoVectorEnv(
        groups * size,
        tasks="synthetic",
        tasks_kwargs=tasks,
        frame_size=(64, 64),
        frames_per_crop=8,
        frame_budget=FRAME_BUDGET,
        reward="paravt",
    )
    vlm = VisionLanguageModel.load(AGENT.checkpoint)
    agent = TransformersAgent(vlm, AGENT, Limits.of(env.simulation.settings), seed)
    starts = Starts(env.simulation.tasks.ids, seed, size)
    weights = list(vlm.model.parameters())
    optimizer = torch.optim.AdamW(weights, lr=LEARNING_RATE, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / (WARMUP_STEPS + 1))
    )
    losses = []
    for step in range(steps):
        rollouts = play(env, agent, starts.take(groups))
        played = [rollouts[i : i + size] for i in range(0, len(rollouts), size)]
        batch = credit(played, method, env.simulation.preset.weights).batch

        optimizer.zero_grad()
        losses.append(backward(vlm, batch, method))
        torch.nn.utils.clip_grad_norm_(weights, MAX_GRAD_NORM)
        optimizer.step()
        schedule.step()
        agent.weights_changed(step + 1)

        accuracy = sum(one.correct for one in rollouts) / len(rollouts)
        calls = sum(one.calls for one in rollouts) / len(rollouts)
        print(f"step {step}: loss {losses[-1]:+.4f}, accuracy {accuracy:.2f}, calls {calls:.2f}")
    env.close()
    return losses


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    for name, default in (("steps", 52), ("groups", 8), ("size", 8), ("videos", 48)):
        parser.add_argument(f"--{name}", type=int, default=default)
    run(**vars(parser.parse_args()))
