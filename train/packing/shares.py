"""Who computes what: trees are divided over processes by their tokens, in rounds kept in step.

Between the trees of an optimizer step and their packing (`train/packing/pack.py`). Every process
knows all trees, so each makes the same plan and takes its own part. Sharded weights are gathered by
all processes together, so all of them run as many forward passes, with the vision tower or without.

Command: `pytest tests/distributed/test_parallel.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from train.packing.pack import Geometry, PackedBatch, padding_id
from train.packing.samples import Tree, micro_batches


def share(trees: Sequence[Tree], processes: int) -> list[list[Tree]]:
    """Divide trees over processes by their tokens: the longest first, each to the least loaded.

    The longest-processing-time rule: no process has more than 4/3 of the best division's load (R.
    Graham, 1969). Every process computes the same division from the same trees.
    """
    shares: list[list[Tree]] = [[] for _ in range(processes)]
    loads = np.zeros(processes, dtype=np.int64)
    for tree in sorted(trees, key=lambda tree: -tree.tokens):
        process = int(loads.argmin())
        shares[process].append(tree)
        loads[process] += tree.tokens
    return shares


@dataclass(frozen=True)
class Round:
    """The micro-batch of one process in one round; None where the others have more than it."""

    trees: list[Tree] | None
    vision: bool
    """Whether any process shows images in this round: then all of them run the vision tower."""


def rounds(trees: Sequence[Tree], budget: int, rank: int, processes: int) -> list[Round]:
    """The micro-batches of process `rank`, as many for every process: they compute in step.

    Args:
        trees: All trees of the optimizer step, the same on every process.
        budget: Padded tokens of a micro-batch.
        rank: This process.
        processes: How many share the trees.
    """
    batches = [micro_batches(part, budget) for part in share(trees, processes)]
    plan = []
    for number in range(max(map(len, batches), default=0)):
        now = [own[number] if number < len(own) else None for own in batches]
        shown = any(map(_shows_images, (tree for batch in now for tree in batch or ())))
        plan.append(Round(now[rank], shown))
    return plan


def _shows_images(tree: Tree) -> bool:
    trajectories = [sample.trajectory for sample in tree.samples]
    return any(t.prompt_images or t.branch_images for t in trajectories)


def idle(geometry: Geometry, multiple: int = 1) -> PackedBatch:
    """A batch of nothing, for a process that only has to keep the others company."""
    width = -(-2 // multiple) * multiple
    none = np.zeros(0, dtype=np.float32)
    where = np.zeros(0, dtype=np.int64)
    return PackedBatch(
        ids=np.full((1, width), padding_id(geometry), dtype=np.int64),
        positions=np.tile(np.arange(width), (3, 1, 1)),
        segments=np.array([[0, *[1] * (width - 1)]], dtype=np.int32),
        prompts=(1,),
        branches=((width - 1,),),
        images=(),
        image_order=(),
        source=where,
        target=where,
        advantages=none,
        behaviour=none,
        proximal=none,
        reference=none,
        weights=none,
        sample=where,
    )
