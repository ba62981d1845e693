"""Packing: trees become one batch of token rows, the shared prompt once and its branches behind it.

From `Tree`s to the arrays of one forward pass, by index arithmetic alone (numpy, no model). `pack`
lays out a micro-batch, `PackedBatch.slice` is what one of several processes computes of it. One row
is one tree:

    prompt | branch 0 | branch 1 | ... | padding

Every branch attends to the prompt and, causally, to itself; its positions continue from the
prompt's. Its first token is predicted by the prompt's last one, so all branches read the same
hidden state there. Gradients are those of the separate sequences at a fraction of the work (cf.
Prefix Grouper, arXiv 2506.05433).

Shapes: `_BS` rows of the batch by tokens, `_T` trained tokens. Command: `pytest
tests/packing/test_packing.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from agents.base import image_size
from train.packing.samples import ImageKeys, Sample, Tree

PADDING = -1
"""Segment of padding tokens; the prompt is segment 0, branch i is segment i + 1."""


class Geometry(Protocol):
    """What packing asks of a model (`agents.model.vlm.VisionLanguageModel` has it)."""

    visual_ids: tuple[int, ...]
    """Tokens in whose place features stand: of an image, of a temporal patch of a video."""

    def image_grid(self, height: int, width: int) -> Any:
        """Patches of an image."""

    def image_token_count(self, height: int, width: int) -> int:
        """Tokens of an image."""

    def rope_positions(self, ids: np.ndarray, grids: Any, start: int = 0) -> tuple[np.ndarray, int]:
        """Positions (3, n) of tokens and the next position."""


@dataclass(frozen=True)
class Slice:
    """The columns of a batch that one of several processes computes; `s` of them."""

    ids: np.ndarray
    """(B, s)."""
    positions: np.ndarray
    """(3, B, s)."""
    image_tokens: np.ndarray
    """Which image tokens of the whole batch, counted in reading order, are in the slice."""
    trained: np.ndarray
    """Which of the T trained tokens are predicted here."""
    source: np.ndarray
    """Index into the flattened (B * s) slice of the token that predicts each of them."""


@dataclass(frozen=True)
class PackedBatch:
    """One forward pass. Row b holds tree b; everything per trained token is in row-major order."""

    ids: np.ndarray
    """(B, S) int64."""
    positions: np.ndarray
    """(3, B, S) int64, M-RoPE; 0 on padding."""
    segments: np.ndarray
    """(B, S) int32: 0 prompt, i + 1 branch i, -1 padding."""
    prompts: tuple[int, ...]
    """Prompt tokens of each row."""
    branches: tuple[tuple[int, ...], ...]
    """Tokens of each branch of each row."""
    images: tuple[np.ndarray, ...]
    """Distinct images and temporal patches of the batch."""
    image_order: tuple[int, ...]
    """For each image of the rows, in reading order, its index in `images`."""
    source: np.ndarray
    """(T,) index into the flattened (B * S) rows of the token that predicts each trained token."""
    target: np.ndarray
    """(T,) the trained token ids."""
    advantages: np.ndarray
    """(T,) float32."""
    behaviour: np.ndarray
    """(T,) float32 log-probabilities recorded at sampling."""
    proximal: np.ndarray
    """(T,) float32 log-probabilities of pi_prox; NaN where it is the policy itself."""
    reference: np.ndarray
    """(T,) float32 log-probabilities of the reference policy; NaN where they are not known yet."""
    weights: np.ndarray
    """(T,) float32 weight of each token in the loss."""
    sample: np.ndarray
    """(T,) which of the samples that the trees were grown from a token belongs to."""

    @property
    def tokens(self) -> int:
        """Tokens that are not padding."""
        return int((self.segments != PADDING).sum())

    def slice(self, rank: int, size: int, visual_ids: int | Sequence[int]) -> Slice:
        """The columns of process `rank` of `size`; S is a multiple of `size` (`pack`)."""
        rows, columns = self.ids.shape
        width = columns // size
        if width * size != columns:
            raise ValueError(f"{columns} columns cannot be cut into {size} equal slices")
        own = slice(rank * width, (rank + 1) * width)
        image_BS = np.isin(self.ids, visual_ids)
        order_BS = image_BS.cumsum().reshape(rows, columns) - 1
        row_T, column_T = np.divmod(self.source, columns)
        trained = np.flatnonzero((column_T >= own.start) & (column_T < own.stop))
        return Slice(
            self.ids[:, own],
            self.positions[:, :, own],
            order_BS[:, own][image_BS[:, own]],
            trained,
            (row_T * width + column_T - own.start)[trained],
        )

    @property
    def repeated_tokens(self) -> int:
        """Tokens that the separate sequences would take."""
        return sum(
            len(branches) * prompt + sum(branches)
            for prompt, branches in zip(self.prompts, self.branches, strict=True)
        )


def padding_id(geometry: Geometry) -> int:
    """The smallest id that no feature stands for."""
    return next(i for i in range(len(geometry.visual_ids) + 1) if i not in geometry.visual_ids)


def _images_within(
    ids: np.ndarray, images: Sequence[np.ndarray], geometry: Geometry
) -> tuple[np.ndarray, ...]:
    """The leading images whose tokens are all in `ids`."""
    left, used = int(np.isin(ids, geometry.visual_ids).sum()), 0
    while left > 0 and used < len(images):
        left -= geometry.image_token_count(*image_size(images[used]))
        used += 1
    if left:
        raise ValueError(f"{len(images)} images do not fill the image tokens of the sequence")
    return tuple(images[:used])


def pack(trees: Sequence[Tree], geometry: Geometry, multiple: int = 1) -> PackedBatch:
    """Lay out trees as rows, right-padded to the longest and on to a multiple of `multiple`.

    Raises:
        ValueError: Image tokens and images disagree.
    """
    longest = max(tree.tokens for tree in trees)
    shape = len(trees), -(-longest // multiple) * multiple
    ids_BS = np.full(shape, padding_id(geometry), dtype=np.int64)
    positions_3BS = np.zeros((3, *shape), dtype=np.int64)
    segments_BS = np.full(shape, PADDING, dtype=np.int32)
    images: list[np.ndarray] = []
    known: dict[bytes, int] = {}
    image_order: list[int] = []
    keys = ImageKeys()
    columns: list[list[np.ndarray]] = []

    def place(
        row: int, at: int, ids: np.ndarray, own: tuple[np.ndarray, ...], segment: int, position: int
    ) -> int:
        span = slice(at, at + len(ids))
        grids = [geometry.image_grid(*image_size(image)) for image in own]
        ids_BS[row, span] = ids
        segments_BS[row, span] = segment
        positions_3BS[:, row, span], following = geometry.rope_positions(ids, grids, position)
        for image in own:
            index = known.setdefault(keys(image), len(images))
            if index == len(images):
                images.append(image)
            image_order.append(index)
        return following

    for row, tree in enumerate(trees):
        first = tree.samples[0].trajectory
        prompt = tree.prompt
        following = place(row, 0, first.prompt_ids, first.prompt_images, 0, 0)
        at = prompt
        for i, (sample, index) in enumerate(zip(tree.samples, tree.index, strict=True)):
            ids = sample.trajectory.branch_ids[: sample.length]
            own = _images_within(ids, sample.trajectory.branch_images, geometry)
            place(row, at, ids, own, i + 1, following)
            trained = np.flatnonzero(sample.trajectory.loss_mask[: sample.length])
            predicts = np.where(trained > 0, at + trained - 1, prompt - 1)
            columns.append(
                [
                    row * shape[1] + predicts,
                    ids[trained],
                    *_per_token(sample, trained),
                    np.full(len(trained), index),
                ]
            )
            at += sample.length

    source, target, advantages, behaviour, proximal, reference, weights, owner = (
        np.concatenate(parts) for parts in zip(*columns, strict=True)
    )
    return PackedBatch(
        ids=ids_BS,
        positions=positions_3BS,
        segments=segments_BS,
        prompts=tuple(tree.prompt for tree in trees),
        branches=tuple(tuple(sample.length for sample in tree.samples) for tree in trees),
        images=tuple(images),
        image_order=tuple(image_order),
        source=source,
        target=target,
        advantages=advantages,
        behaviour=behaviour,
        proximal=proximal,
        reference=reference,
        weights=weights,
        sample=owner,
    )


def _per_token(sample: Sample, trained: np.ndarray) -> list[np.ndarray]:
    """Advantage, three log-probabilities (behaviour, proximal, reference), weight."""
    unknown = np.full(len(trained), np.nan)
    columns = [
        sample.advantages[trained],
        sample.trajectory.logprobs[trained],
        unknown if sample.proximal is None else sample.proximal[trained],
        unknown if sample.reference is None else sample.reference[trained],
        np.full(len(trained), sample.weight),
    ]
    return [column.astype(np.float32) for column in columns]


def tree_mask(segments: np.ndarray) -> np.ndarray:
    """Who may look where, (B, 1, S, S) bool: backwards, at the prompt and at the own branch.

    >>> tree_mask(np.array([[0, 1, 2, -1]]))[0, 0].astype(int).tolist()
    [[1, 0, 0, 0], [1, 1, 0, 0], [1, 0, 1, 0], [1, 0, 0, 1]]
    """
    query, key = segments[:, None, :, None], segments[:, None, None, :]
    causal = np.tril(np.ones((segments.shape[1],) * 2, dtype=bool))
    return ((key == 0) | (key == query)) & causal
