"""Samples for tests of packing, made of literal tokens."""

import numpy as np

from agents.base import Trajectory
from train.packing.samples import Sample


def sample(prompt, branch, trained, images=(), branch_images=(), **fields):
    n = len(branch)
    trajectory = Trajectory(
        prompt_ids=np.array(prompt),
        branch_ids=np.array(branch),
        loss_mask=np.array(trained, dtype=bool),
        logprobs=-np.array(branch, dtype=np.float32),
        roles=np.zeros(n, dtype=np.int8),
        prompt_images=tuple(images),
        branch_images=tuple(branch_images),
    )
    return Sample(trajectory, np.array(branch, dtype=np.float32) / 10, **fields)
