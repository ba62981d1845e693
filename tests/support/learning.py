"""Random batches for a tiny policy, and what the plain model makes of them, to test the learner."""

from dataclasses import fields

import numpy as np
import torch

from agents.algorithm.config import PARAGRPOConfig
from agents.algorithm.credit import Batch
from agents.base import Trajectory, image_size
from agents.model.mini import MiniConfig
from agents.model.vlm import VisionLanguageModel
from train.config.learner import LearnerConfig, OptimizerConfig, PackingConfig

TEMPERATURE = 0.7
SHAPE = MiniConfig(
    hidden_size=64, layers=3, heads=4, intermediate_size=96, vision_hidden_size=32, vision_layers=2,
    vision_heads=2, vision_intermediate_size=48, patch_size=8, vocabulary=300,
)  # fmt: skip
ONE_TURN = [[[5], [1], [9], [3]], [[4], [6]]]
MANY_TURNS = [[[5, 3], [2], [4, 1, 6], [7, 2]], [[3, 3], [8]]]


def config(**settings):
    """A learner's settings; each goes to the group that has it, and others may be given whole."""
    given = {
        "kl_coefficient": 0.0,
        "loss": "clipped",
        "learning_rate": 1e-3,
        "max_grad_norm": 1e9,
        "temperature": TEMPERATURE,
        **settings,
    }
    groups = {"algorithm": PARAGRPOConfig, "optimizer": OptimizerConfig, "packing": PackingConfig}
    for group, kind in groups.items():
        own = {field.name for field in fields(kind)} & given.keys()
        given[group] = kind(**{name: given.pop(name) for name in own})
    return LearnerConfig(**given)


def picture(rng, height=32, width=48, pairs=False):
    """An image, or a temporal patch of two frames."""
    shape = (2, height, width, 3) if pairs else (height, width, 3)
    return rng.integers(0, 256, shape, dtype=np.uint8)


def tokens(vlm, rng, n, images=()):
    """Random text with the images' tokens in the middle."""
    text = rng.integers(10, 250, n)
    shown = [
        [
            vlm.vision_start_id,
            *[vlm.visual_ids[image.ndim - 3]] * vlm.image_token_count(*image_size(image)),
            vlm.vision_end_id,
        ]
        for image in images
    ]
    return np.array([*text[: n // 2], *(t for one in shown for t in one), *text[n // 2 :]])


def branch(vlm, rng, turns, images=()):
    """Sampled stretches with observations between; the first observation shows the images."""
    ids, mask = [], []
    for i, n in enumerate(turns):
        if i:
            seen = tokens(vlm, rng, 4, images if i == 1 else ())
            ids, mask = [*ids, *seen], [*mask, *[False] * len(seen)]
        ids, mask = [*ids, *rng.integers(10, 250, n)], [*mask, *[True] * n]
    return np.array([*ids, 11]), np.array([*mask, False])


def trajectory(vlm, rng, prompt, prompt_images, turns, images=(), kind="main"):
    ids, mask = branch(vlm, rng, turns, images)
    return Trajectory(
        prompt_ids=prompt,
        branch_ids=ids,
        loss_mask=mask,
        logprobs=np.where(mask, rng.normal(-5.7, 0.15, len(ids)), 0).astype(np.float32),
        roles=np.zeros(len(ids), dtype=np.int8),
        prompt_images=tuple(prompt_images),
        branch_images=tuple(images),
        kind=kind,
    )


def make_batch(vlm, turns_of_group, frames=False, subagents=False, seed=0, pairs=False):
    """Groups of rollouts with two images in the prompt; `frames` puts images into the branches.

    With `pairs`, all but the first of them are temporal patches of a video.
    """
    rng = np.random.default_rng(seed)
    batch = Batch([], [], [])

    def add(one, group):
        batch.trajectories.append(one)
        batch.advantages.append(rng.normal(size=len(one.branch_ids)).astype(np.float32))
        batch.groups.append(group)

    for group, members in enumerate(turns_of_group):
        images = [picture(rng), picture(rng, 48, 32, pairs)]
        prompt = tokens(vlm, rng, 9 + 4 * group, images)
        for turns in members:
            shown = [picture(rng, pairs=pairs), images[0]] if frames and len(turns) > 1 else []
            add(trajectory(vlm, rng, prompt, images, turns, shown), group)
            if subagents:
                crop = [picture(rng, 16, 16, pairs), picture(rng, 16, 16, pairs)]
                reading = tokens(vlm, rng, 6, crop)
                add(
                    trajectory(vlm, rng, reading, crop, [int(rng.integers(1, 7))], kind="subagent"),
                    group,
                )
    return batch


def plain_logprobs(vlm, one):
    """Log-probabilities and entropies of the trained tokens, by the HF model's own forward."""
    ids = torch.from_numpy(np.concatenate([one.prompt_ids, one.branch_ids]))[None]
    inputs, kinds = {}, torch.zeros_like(ids, dtype=torch.int)
    names = ("pixel_values", "image_grid_thw"), ("pixel_values_videos", "video_grid_thw")
    for kind, (pixels, grid) in enumerate(names, 1):
        images = [i for i in (*one.prompt_images, *one.branch_images) if i.ndim == kind + 2]
        if images:
            inputs[pixels] = torch.cat([vlm.patches(image[None]) for image in images])
            inputs[grid] = torch.tensor([vlm.image_grid(*image_size(image)) for image in images])
            kinds += kind * (ids == vlm.visual_ids[kind - 1]).int()
            inputs["mm_token_type_ids"] = kinds
    logits = vlm.model(input_ids=ids, **inputs).logits[0] / TEMPERATURE
    logits[:, list(vlm.forbidden_ids)] = -torch.inf
    logprobs = logits.log_softmax(-1)
    trained = len(one.prompt_ids) + torch.from_numpy(np.flatnonzero(one.loss_mask))
    entropy = -(logprobs.exp() * logprobs.clamp(min=-1e4)).sum(-1)
    return logprobs[trained - 1, ids[0, trained]], entropy[trained - 1]


def relative_difference(one, other):
    assert one.keys() == other.keys()
    difference = sum(float((one[n] - other[n]).square().sum()) for n in one) ** 0.5
    return difference / sum(float(g.square().sum()) for g in other.values()) ** 0.5


def batch_of(folder, turns):
    return make_batch(VisionLanguageModel.load(folder), turns, frames=True, subagents=True)
