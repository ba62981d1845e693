"""The learner: a credited batch of trajectories in, one policy update out.

Last stretch of the journey before the weights change. Trajectories with a common prompt are packed
as trees (`train/packing.py`), the vision tower runs once for the distinct images of a micro-batch,
logits exist only where a token is trained. Micro-batches add up to one optimizer step, so their
size changes memory and speed, not the result.

The log-probabilities are those of the distribution that was sampled: logits divided by the sampling
temperature, vision tokens excluded. So on policy the ratio is 1 up to rounding.

Shapes: `_T` trained tokens of a micro-batch. Command: `pytest tests/test_learner.py`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch.utils.checkpoint import checkpoint

from agents.losses import AGGREGATIONS, LOSSES, LossInputs, k3
from agents.paragrpo import Batch, PARAGRPOConfig
from agents.vlm import VisionLanguageModel
from train.meter import Meter
from train.packing import PackedBatch, pack
from train.trajectory import Sample, grow_trees, micro_batches
from train.tree_attention import choose, tree_attention


class Learner:
    """Owns the optimizer and updates the weights of `vlm` in place.

    Args:
        vlm: The policy.
        config: Settings of the algorithm.
        temperature: The one that rollouts are sampled with.
        reference: Frozen policy of the k3 term; needed if and only if `config.kl_coefficient` > 0.
        seed: Of the order of the mini-batches.
    """

    def __init__(
        self,
        vlm: VisionLanguageModel,
        config: PARAGRPOConfig,
        temperature: float,
        reference: VisionLanguageModel | None = None,
        seed: int = 0,
    ) -> None:
        if temperature <= 0:
            raise ValueError(
                f"rollouts sampled at temperature {temperature} are greedy and cannot be trained on"
            )
        if (config.kl_coefficient > 0) != (reference is not None):
            raise ValueError("a reference policy goes with a positive kl_coefficient")
        self.vlm, self.config, self.temperature = vlm, config, temperature
        self.reference = reference
        if reference is not None:
            reference.model.requires_grad_(False)
        self.mode = choose(config.attention, vlm.device)
        self.rng = np.random.default_rng(seed)
        vlm.model.requires_grad_(True)
        if config.freeze_vision:
            vlm.model.model.visual.requires_grad_(False)
        self.parameters = [p for p in vlm.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(
            self.parameters,
            lr=config.learning_rate,
            betas=config.adam_betas,
            weight_decay=config.weight_decay,
        )
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda step: min(1.0, (step + 1) / (config.warmup_steps + 1))
        )

    def update(self, batch: Batch) -> dict[str, float]:
        """Take `epochs * minibatches` optimizer steps on one batch.

        Args:
            batch: Trajectories with per-token advantages and the group of each.

        Returns:
            Metrics, averaged over trained tokens where they are per token.

        Raises:
            FloatingPointError: The gradient is not finite; the weights are left as they were.
        """
        samples = [
            Sample(trajectory, advantages)
            for trajectory, advantages in zip(batch.trajectories, batch.advantages, strict=True)
        ]
        groups = np.asarray(batch.groups)
        trained = np.array([bool(sample.length) for sample in samples], dtype=bool)
        meter = Meter()
        if not trained.any():
            return meter.metrics() | {"optimizer_steps": 0.0}
        if self.config.updates_per_batch > 1:
            with meter.timed("proximal"):
                samples = self._with_proximal(samples)
        steps = 0
        for _ in range(self.config.epochs):
            order = self.rng.permutation(np.unique(groups))
            for part in np.array_split(order, self.config.minibatches):
                members = np.flatnonzero(np.isin(groups, part) & trained)
                if len(members):
                    self.optimize([samples[i] for i in members], meter)
                    steps += 1
        return meter.metrics() | {"optimizer_steps": float(steps)}

    def optimize(self, samples: Sequence[Sample], meter: Meter) -> None:
        """One optimizer step on `samples`."""
        self.optimizer.zero_grad(set_to_none=True)
        self.accumulate(samples, meter)
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.config.max_grad_norm).item()
        if not math.isfinite(norm):
            self.optimizer.zero_grad(set_to_none=True)
            raise FloatingPointError(f"the gradient norm is {norm}; nothing was updated")
        meter.values["grad_norm"].append(norm)
        meter.values["learning_rate"].append(float(self.scheduler.get_last_lr()[0]))
        self.optimizer.step()
        self.scheduler.step()

    def accumulate(self, samples: Sequence[Sample], meter: Meter) -> None:
        """Add the gradient of the loss of `samples` to the parameters.

        Samples without any advantage have no gradient and are not computed (unless the k3 term
        needs them); they count in the averages all the same.
        """
        config = self.config
        lengths = np.array([int(s.trajectory.loss_mask.sum()) for s in samples], dtype=np.int64)
        weights = AGGREGATIONS[config.aggregation](lengths, config.length_limit)
        weighted = [replace(s, weight=float(w)) for s, w in zip(samples, weights, strict=True)]
        live = [s for s in weighted if config.kl_coefficient > 0 or s.advantages.any()]
        meter.totals["samples"] += len(samples)
        meter.totals["samples_without_advantage"] += len(samples) - len(live)
        total = 0.0
        for packed in self._packed(live):
            with self._attending(self.vlm, packed) as attention:
                with meter.timed("forward"):
                    logprobs_T, entropy_T = self.logprobs(self.vlm, packed, attention, meter)
                    loss = self._loss(packed, logprobs_T, entropy_T, meter)
                with meter.timed("backward"):
                    loss.backward()
            total += loss.item()
            meter.totals["micro_batches"] += 1
            meter.totals["packed_tokens"] += packed.tokens
            meter.totals["padded_tokens"] += packed.ids.size
            meter.totals["repeated_tokens"] += packed.repeated_tokens
        meter.values["loss"].append(total)

    def _loss(
        self,
        packed: PackedBatch,
        logprobs_T: torch.Tensor,
        entropy_T: torch.Tensor,
        meter: Meter,
    ) -> torch.Tensor:
        """The weighted sum over the micro-batch's trained tokens, and its metrics."""
        config = self.config
        behaviour_T, advantages_T, weights_T, proximal_T = (
            torch.from_numpy(column).to(logprobs_T.device)
            for column in (packed.behaviour, packed.advantages, packed.weights, packed.proximal)
        )
        if config.updates_per_batch == 1:
            # The policy has not moved yet, so pi_prox is the policy itself; "clipped" has no weight
            # for the sampler's mismatch and takes its ratio from what the sampler recorded.
            proximal_T = logprobs_T.detach() if config.loss == "decoupled" else behaviour_T
        outputs = LOSSES[config.loss](
            LossInputs(
                logprobs_T,
                proximal_T,
                behaviour_T,
                advantages_T,
                config.clip_low,
                config.clip_high,
                config.behaviour_cap,
            )
        )
        loss_T = outputs.loss
        difference_T = (logprobs_T - behaviour_T).detach()
        metrics = outputs.metrics | {
            "entropy": entropy_T,
            "behaviour_kl": -difference_T,
            "behaviour_mismatch": difference_T.abs(),
        }
        meter.maximum("behaviour_mismatch_max", difference_T.abs())
        if self.reference is not None:
            with torch.no_grad(), self._attending(self.reference, packed) as attention:
                reference_T, _ = self.logprobs(self.reference, packed, attention, meter)
            divergence_T = k3(logprobs_T, reference_T)
            metrics["kl"] = divergence_T.detach()
            loss_T = loss_T + config.kl_coefficient * divergence_T
        meter.per_token(metrics)
        return (loss_T * weights_T).sum()

    def logprobs(
        self,
        vlm: VisionLanguageModel,
        packed: PackedBatch,
        attention: dict[str, Any],
        meter: Meter,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-probability (T,) of each trained token in float32, and the entropy (T,) at its place.

        Raises:
            ValueError: A trained token is a vision token: no policy can have sampled it.
        """
        if np.isin(packed.target, vlm.forbidden_ids).any():
            raise ValueError("a trained token is a vision token, which cannot be sampled")
        device = vlm.device
        features = None
        if packed.images:
            with meter.timed("vision"):
                encoded = vlm.encode_images(packed.images)
            meter.totals["frames_encoded"] += len(packed.images)
            features = torch.cat([encoded[i] for i in packed.image_order])
        hidden = vlm.forward(
            torch.from_numpy(packed.ids).to(device),
            torch.from_numpy(packed.positions).to(device),
            features=features,
            **attention,
        )
        hidden = hidden.flatten(0, 1)[torch.from_numpy(packed.source).to(device)]
        target = torch.from_numpy(packed.target).to(device)
        forbidden = torch.tensor(vlm.forbidden_ids, device=device)

        def score(hidden_T: torch.Tensor, target_T: torch.Tensor) -> tuple[torch.Tensor, ...]:
            logits = vlm.logits(hidden_T).float() / self.temperature
            logits = logits.index_fill(-1, forbidden, torch.finfo(torch.float32).min)
            logprobs = logits.log_softmax(-1)
            entropy = -(logprobs.detach().exp() * logprobs.detach()).sum(-1)
            return logprobs.gather(-1, target_T[:, None]).squeeze(-1), entropy

        chunks = list(
            zip(
                hidden.split(self.config.logit_chunk),
                target.split(self.config.logit_chunk),
                strict=True,
            )
        )
        if len(chunks) == 1 or not torch.is_grad_enabled():
            parts = [score(*chunk) for chunk in chunks]
        else:
            parts = [checkpoint(score, *chunk, use_reentrant=False) for chunk in chunks]
        return torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])

    def _with_proximal(self, samples: Sequence[Sample]) -> list[Sample]:
        """Samples with the log-probabilities of the policy as it is now."""
        proximal = [np.zeros(len(s.trajectory.branch_ids), dtype=np.float32) for s in samples]
        with torch.no_grad():
            for packed in self._packed(samples):
                with self._attending(self.vlm, packed) as attention:
                    values, _ = self.logprobs(self.vlm, packed, attention, Meter())
                values_T = values.cpu().numpy()
                for i in np.unique(packed.sample):
                    trained = np.flatnonzero(samples[i].trajectory.loss_mask)
                    proximal[i][trained] = values_T[packed.sample == i]
        return [replace(s, proximal=p) for s, p in zip(samples, proximal, strict=True)]

    def _packed(self, samples: Sequence[Sample]) -> Iterator[PackedBatch]:
        trees = grow_trees(samples, self.config.micro_batch_tokens)
        for trees_of_batch in micro_batches(trees, self.config.micro_batch_tokens):
            yield pack(trees_of_batch, self.vlm)

    def _attending(self, vlm: VisionLanguageModel, packed: PackedBatch) -> Any:
        return tree_attention(vlm.language_model, packed, self.mode, vlm.device)
