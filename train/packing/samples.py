"""Samples and trees: credited trajectories, and which of them share a prompt.

Stands between the advantages and the packed batch. A tree is one prompt (tokens and images) with a
branch for every sample that continues it: the rollouts of a group, or readings of the same crop.
Trees are cut to a token bound and put into micro-batches of similar length, so that little is
padded. Nothing here needs torch.

Command: `pytest tests/packing/test_packing.py`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from agents.base import Trajectory, image_key


@dataclass(frozen=True)
class Sample:
    """A trajectory with what the loss needs to know of each token.

    Attributes:
        trajectory: The tokens, the behaviour log-probabilities and the loss mask.
        advantages: (C,) float32.
        weight: What each trained token counts in the loss of its optimizer step.
        proximal: (C,) float32 log-probabilities of pi_prox; None where it is the policy itself.
        reference: (C,) float32 log-probabilities of the reference policy; None where they are not
            known yet.
    """

    trajectory: Trajectory
    advantages: np.ndarray
    weight: float = 1.0
    proximal: np.ndarray | None = None
    reference: np.ndarray | None = None

    def __post_init__(self) -> None:
        """Refuse arrays that do not belong together."""
        branch = (len(self.trajectory.branch_ids),)
        for name in ("loss_mask", "logprobs", "roles"):
            if getattr(self.trajectory, name).shape != branch:
                shape = getattr(self.trajectory, name).shape
                raise ValueError(f"{name} has shape {shape}, the branch {branch}")
        if self.advantages.shape != branch:
            raise ValueError(f"advantages have shape {self.advantages.shape}, the branch {branch}")
        if not len(self.trajectory.prompt_ids):
            raise ValueError("a trajectory needs a prompt: nothing predicts its first token")

    @property
    def length(self) -> int:
        """Branch tokens up to the last trained one: what follows cannot change the loss."""
        trained = np.flatnonzero(self.trajectory.loss_mask)
        return int(trained[-1]) + 1 if len(trained) else 0


@dataclass(frozen=True)
class Tree:
    """Samples with one prompt in common; `index` is the place each of them came from."""

    samples: tuple[Sample, ...]
    index: tuple[int, ...]

    @property
    def prompt(self) -> int:
        """Tokens of the prompt."""
        return len(self.samples[0].trajectory.prompt_ids)

    @property
    def tokens(self) -> int:
        """Tokens of the packed tree: the prompt once and every branch."""
        return self.prompt + sum(sample.length for sample in self.samples)


class ImageKeys:
    """`image_key` with a memory by object, as rollouts of a group hold the very same arrays."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[np.ndarray, bytes]] = {}

    def __call__(self, image: np.ndarray) -> bytes:
        """The key of `image`."""
        if id(image) not in self._known:
            self._known[id(image)] = (image, image_key(image))
        return self._known[id(image)][1]


def grow_trees(samples: Sequence[Sample], limit: int) -> list[Tree]:
    """Gather samples with equal prompts into trees of at most `limit` tokens.

    A tree that would exceed the limit is cut into several, each with the prompt and at least one
    branch. Samples without a trained token are left out.
    """
    keys = ImageKeys()
    by_prompt: dict[tuple[bytes, ...], list[int]] = {}
    for i, sample in enumerate(samples):
        if sample.length:
            images = [keys(image) for image in sample.trajectory.prompt_images]
            prompt = np.ascontiguousarray(sample.trajectory.prompt_ids, dtype=np.int64).tobytes()
            by_prompt.setdefault((prompt, *images), []).append(i)
    trees = []
    for members in by_prompt.values():
        prompt_length = len(samples[members[0]].trajectory.prompt_ids)
        part: list[int] = []
        size = prompt_length
        for i in members:
            if part and size + samples[i].length > limit:
                if len(part) == 1:
                    _warn_of_repeats(prompt_length, len(members), limit)
                trees.append(Tree(tuple(samples[j] for j in part), tuple(part)))
                part, size = [], prompt_length
            part.append(i)
            size += samples[i].length
        trees.append(Tree(tuple(samples[j] for j in part), tuple(part)))
    return trees


_warned: list[str] = []


def _warn_of_repeats(prompt: int, branches: int, limit: int) -> None:
    """Say once that a prompt is computed for each of its branches.

    Every process that trains grows the same trees, and the last one always trains: it speaks.
    """
    last = int(os.environ.get("WORLD_SIZE", "1")) - 1
    if _warned or int(os.environ.get("RANK", "0")) != last:
        return
    _warned.append(
        f"paravt: warning: packing.micro_batch_tokens={limit} has no room for two of the "
        f"{branches} branches of a prompt of {prompt} tokens, which is computed for each anew: "
        "raise it where memory allows (`paravt plan --budget`). Said once"
    )
    print(_warned[-1], file=sys.stderr, flush=True)


MOST_PADDING = 0.08
"""Share of a micro-batch's tokens that may be padding."""


def micro_batches(trees: Sequence[Tree], budget: int) -> list[list[Tree]]:
    """Divide trees into batches of at most `budget` padded tokens, the longest batch first.

    A batch also ends where one more tree would make more than `MOST_PADDING` of it padding: a
    further pass costs less. Trees of one branch are plain causal sequences and are kept apart from
    those with several, which attend by branch. A tree longer than the budget is a batch of its own.
    """
    batches: list[list[Tree]] = []
    for plain in (False, True):
        kind = [tree for tree in trees if (len(tree.samples) == 1) == plain]
        batch: list[Tree] = []
        tokens = 0
        for tree in sorted(kind, key=lambda tree: -tree.tokens):
            padded = batch[0].tokens * (len(batch) + 1) if batch else 0
            padding = padded - tokens - tree.tokens
            if batch and (padded > budget or padding > MOST_PADDING * padded):
                batches.append(batch)
                batch, tokens = [], 0
            batch.append(tree)
            tokens += tree.tokens
        if batch:
            batches.append(batch)
    return batches
