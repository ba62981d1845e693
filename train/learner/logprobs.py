"""The log-probability of every trained token of a packed batch, in one forward pass.

The middle of the learner. `TokenLogprobs` is a module, so that FSDP can shard it and gather its
weights around the pass; with sequence parallelism each process computes its slice and all of them
learn all log-probabilities. Logits exist only where a token is trained.

Shapes: `_T` trained tokens, `N` image tokens. Command: `pytest tests/learner/test_learner.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.utils.checkpoint import checkpoint

from agents.base import image_size
from agents.model.vlm import VisionLanguageModel
from train.distributed.processes import Group
from train.distributed.sequence_parallel import gather_alike, gather_to_use
from train.learner.attention import Mode, tree_attention
from train.learner.meter import Meter
from train.packing.pack import PackedBatch

Encode = Callable[[Sequence[np.ndarray]], list[torch.Tensor]]


class TokenLogprobs(torch.nn.Module):
    """A policy's log-probabilities.

    The log-probabilities are those of the distribution that was sampled: logits divided by the
    sampling temperature, vision tokens excluded.

    Args:
        vlm: The policy.
        temperature: The one that rollouts are sampled with.
        logit_chunk: Tokens whose vocabulary logits exist at the same time.
        mode: How packed trees attend.
        sequence: The processes that share a packed sequence.
        encode: What turns frames into features; None is the policy's own vision tower.
    """

    def __init__(
        self,
        vlm: VisionLanguageModel,
        temperature: float,
        logit_chunk: int,
        mode: Mode,
        sequence: Group | None = None,
        encode: Encode | None = None,
    ) -> None:
        super().__init__()
        self.model = vlm.model
        self.vlm, self.temperature, self.logit_chunk = vlm, temperature, logit_chunk
        self.mode = mode
        self.sequence = sequence or Group()
        self.encode = encode

    @contextmanager
    def attending(self, packed: PackedBatch, device: torch.device) -> Iterator[dict[str, Any]]:
        """Make the decoder attend by tree; keep it open through the backward pass."""
        model = self.vlm.language_model
        with tree_attention(model, packed, self.mode, device, self.sequence) as attention:
            yield attention

    def forward(
        self,
        packed: PackedBatch,
        attention: dict[str, Any],
        vision: bool | None = None,
        meter: Meter | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-probability (T,) of each trained token, at least float32, and the entropy there.

        Args:
            packed: The batch.
            attention: What `attending` yields.
            vision: Whether the vision tower runs, with a blank frame if need be; None where the
                batch has images.
            meter: Counts frames and seconds of the vision tower.
        """
        vlm, group = self.vlm, self.sequence
        device = vlm.device
        own = packed.slice(group.rank, group.size, vlm.visual_ids)
        runs = bool(packed.images) if vision is None else vision
        features = self._features(packed, meter or Meter()) if runs else None
        here = features
        if features is not None and group.size > 1:
            here = features[torch.from_numpy(own.image_tokens).to(device)]
        hidden = vlm.forward(
            torch.from_numpy(np.ascontiguousarray(own.ids)).to(device),
            torch.from_numpy(np.ascontiguousarray(own.positions)).to(device),
            features=here,
            **attention,
        )
        if features is not None and not len(own.image_tokens):
            # Nothing is shown here, but the tower's backward pass needs every process.
            hidden = hidden + 0 * features.sum().to(hidden.dtype)
        hidden_T = hidden.flatten(0, 1)[torch.from_numpy(own.source).to(device)]
        target_T = torch.from_numpy(packed.target[own.trained]).to(device)
        logprobs_T, entropy_T = self._scores(hidden_T, target_T)
        if group.size == 1:
            return logprobs_T, entropy_T
        parts = [packed.slice(r, group.size, vlm.visual_ids).trained for r in range(group.size)]
        counts = [len(part) for part in parts]
        order = torch.from_numpy(np.argsort(np.concatenate(parts))).to(device)
        both = torch.stack([logprobs_T, entropy_T], dim=1)
        gathered = gather_alike(both, counts, group)[order]
        return gathered[:, 0], gathered[:, 1].detach()

    def _features(self, packed: PackedBatch, meter: Meter) -> torch.Tensor:
        """Features (N, D * (1 + levels)) of the batch's image tokens in reading order."""
        vlm, group, images = self.vlm, self.sequence, packed.images
        own = list(images[group.split(len(images))])
        unit = vlm.patch * vlm.merge
        with meter.timed("vision"):
            encode = self.encode or vlm.encode_images
            rows = torch.cat(encode(own or [np.zeros((unit, unit, 3), dtype=np.uint8)]))
        meter.totals["frames_encoded"] += len(own)
        tokens = np.array([vlm.image_token_count(*image_size(i)) for i in images], dtype=np.int64)
        counts = [int(tokens[group.split(len(images), r)].sum()) for r in range(group.size)]
        rows = gather_to_use(rows if own else rows[:0], counts, group)
        if packed.image_order == tuple(range(len(images))):
            return rows
        starts = tokens.cumsum() - tokens
        index = [np.arange(starts[i], starts[i] + tokens[i]) for i in packed.image_order]
        return rows[torch.from_numpy(np.concatenate(index)).to(rows.device)]

    def _scores(
        self, hidden_T: torch.Tensor, target_T: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        forbidden = torch.tensor(self.vlm.forbidden_ids, device=hidden_T.device)

        def score(hidden_T: torch.Tensor, target_T: torch.Tensor) -> tuple[torch.Tensor, ...]:
            logits_TV = self.vlm.logits(hidden_T)
            return _Picked.apply(logits_TV, target_T, forbidden, self.temperature)

        chunks = list(
            zip(hidden_T.split(self.logit_chunk), target_T.split(self.logit_chunk), strict=True)
        )
        if len(chunks) == 1 or not torch.is_grad_enabled():
            parts = [score(*chunk) for chunk in chunks]
        else:
            parts = [checkpoint(score, *chunk, use_reentrant=False) for chunk in chunks]
        return torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])


class _Picked(torch.autograd.Function):
    """log softmax(logits / temperature) at the targets, and the entropy, which has no gradient.

    The same as torch's functions one after the other, with two arrays of (T, V) instead of eight.
    Probabilities p are kept: the gradient of log p[target] is (onehot - p) / temperature.
    """

    @staticmethod
    def forward(
        ctx: Any,
        logits_TV: torch.Tensor,
        target_T: torch.Tensor,
        forbidden: torch.Tensor,
        temperature: float,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        scaled = logits_TV.to(torch.promote_types(logits_TV.dtype, torch.float32)) / temperature
        scaled.index_fill_(-1, forbidden, -torch.inf)
        scaled -= scaled.amax(-1, keepdim=True)
        probabilities = scaled.exp()
        total = probabilities.sum(-1, keepdim=True)
        probabilities /= total
        logprobs_T = (scaled.gather(-1, target_T[:, None]) - total.log()).squeeze(-1)
        scaled.index_fill_(-1, forbidden, 0.0)  # 0 * -inf is not a number
        entropy_T = total.log().squeeze(-1) - scaled.mul_(probabilities).sum(-1)
        ctx.save_for_backward(probabilities, target_T)
        ctx.temperature, ctx.dtype = temperature, logits_TV.dtype
        ctx.mark_non_differentiable(entropy_T)
        return logprobs_T, entropy_T

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        probabilities, target_T = ctx.saved_tensors
        each = (grads[0] / ctx.temperature)[:, None]
        grad_TV = probabilities * -each
        grad_TV.scatter_add_(-1, target_T[:, None], each)
        return grad_TV.to(ctx.dtype), None, None, None
