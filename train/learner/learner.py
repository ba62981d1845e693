"""The learner: a credited batch of trajectories in, one policy update out.

Last stretch of the journey before the weights change. Trajectories with a common prompt are packed
as trees (`train/packing/pack.py`), the vision tower runs once for the distinct images of a
micro-batch, logits exist only where a token is trained (`train/learner/logprobs.py`). Micro-batches
add up to one optimizer step, so their size changes memory and speed, not the result; so does the
number of processes. Each of these knows the whole batch and computes its own trees
(`train/packing/shares.py`).

pi_prox of what this version of the weights drew is the policy itself, so that no ratio leaves 1
before the weights have moved, in any precision. What older weights drew is known by its version
(`train/learner/staleness.py`). A step whose gradient is not finite is skipped.

Shapes: `_T` trained tokens of a micro-batch. Command: `pytest tests/learner/test_learner.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import torch

from agents.algorithm.credit import Batch
from agents.algorithm.losses import LossInputs, aggregation_named, k1, k3, loss_named
from agents.base import Trajectory
from agents.model.vlm import VisionLanguageModel
from train.config.checks import check_trained_dtype
from train.config.learner import LearnerConfig
from train.distributed.processes import ALONE, Processes
from train.distributed.sequence_parallel import check_heads
from train.learner import lora
from train.learner.attention import choose
from train.learner.guard import FaultGuard
from train.learner.logprobs import TokenLogprobs
from train.learner.meter import Meter
from train.learner.optimizer import adamw, schedule, spared
from train.learner.staleness import staleness, staleness_metrics
from train.learner.weights import shard, weights_for, whole
from train.packing.pack import PackedBatch, pack
from train.packing.samples import Sample, grow_trees
from train.packing.shares import idle, rounds


class Learner:
    """Owns the optimizer and updates the weights of `vlm` in place.

    Args:
        vlm: The policy. Where it has adapters (`train/learner/lora.py`), only these are trained.
        config: The method, the optimizer, the packing, and what is known of the rollouts.
        reference: Frozen policy, for the divergence; needed if there is a `kl_coefficient`,
            this process trains, and the policy has no adapters: with these switched off it is its
            own reference.
        processes: Those that share the updates; each has a learner and the same batches.
    """

    def __init__(
        self,
        vlm: VisionLanguageModel,
        config: LearnerConfig,
        reference: VisionLanguageModel | None = None,
        processes: Processes = ALONE,
    ) -> None:
        check_trained_dtype(vlm.model.dtype)
        check_heads(vlm.model.config.text_config.num_key_value_heads, processes.config.sequence)
        method, optimizer = config.algorithm, config.optimizer
        self.adapted = bool(lora.layers(vlm.model))
        needed = method.kl_coefficient > 0 and not self.adapted and processes.trains
        if needed != (reference is not None):
            raise ValueError(
                "a reference policy goes with a positive kl_coefficient, without lora, and with a "
                "process that trains"
            )
        self.vlm, self.config, self.method = vlm, config, method
        self.loss, self.aggregation = loss_named(method.loss), aggregation_named(method.aggregation)
        self.processes = processes
        self.guard = FaultGuard(config.faults, config.folder if processes.leads else None)
        self.rng = np.random.default_rng(config.seed)
        for name, parameter in vlm.model.named_parameters():
            parameter.requires_grad_(".lora_" in name if self.adapted else True)
        if optimizer.freeze_vision:
            vlm.model.model.visual.requires_grad_(False)
        frozen = not any(p.requires_grad for p in vlm.model.model.visual.parameters())
        computes = TokenLogprobs(
            vlm,
            config.temperature,
            config.packing.logit_chunk,
            choose(config.packing.attention, vlm.device),
            processes.sequence,
            vlm.features.encode if frozen else None,
        )
        self.weights = weights_for(computes, processes)
        self.logprobs = self.weights.logprobs
        self.reference = self._frozen(reference, computes) if reference is not None else None
        self.parameters = list(self.weights.parameters.values())
        self.optimizer = adamw(self.weights.parameters, spared(vlm.model), optimizer)
        self.scheduler = schedule(self.optimizer, optimizer, config.steps)

    def _frozen(self, vlm: VisionLanguageModel, like: TokenLogprobs) -> TokenLogprobs:
        """The reference policy, sharded as the trained one is."""
        vlm.model.requires_grad_(False)
        group = self.processes.sequence
        frozen = TokenLogprobs(vlm, like.temperature, like.logit_chunk, like.mode, group)
        if self.processes.world.size > 1:
            shard(frozen, self.processes, vlm.model.dtype)
        return frozen

    def update(self, batch: Batch, version: int | None = None) -> dict[str, float]:
        """Take `epochs * minibatches` optimizer steps on one batch.

        Args:
            batch: Trajectories with per-token advantages and the group of each. With several
                processes the batch of all of them, the same on every process.
            version: Updates that the policy has seen; None takes the newest version that drew a
                trajectory of the batch.

        Returns:
            Metrics, averaged over trained tokens where they are per token, over all processes.

        Raises:
            StalenessError: A trajectory is older than the bound, or newer than the policy.
            TooManyFaults: The gradients of several steps in a row were not usable.
        """
        groups = np.asarray(batch.groups)
        tokens_N = np.array([int(one.loss_mask.sum()) for one in batch.trajectories], np.int64)
        staleness_N = staleness(batch.trajectories, version, self.config.staleness)
        samples = [
            Sample(one, advantages, proximal=self._recorded(one, int(age)))
            for one, advantages, age in zip(
                batch.trajectories, batch.advantages, staleness_N, strict=True
            )
        ]
        trained = tokens_N > 0
        meter = Meter()
        if not trained.any():
            return meter.metrics() | {"optimizer_steps": 0.0}
        steps, skipped = 0, self.guard.skipped
        if self.processes.trains:
            parts = self._parts(groups, trained)
            if self._kl_in_loss and self.method.epochs > 1:  # it is the same in every epoch
                samples = self._with_reference(samples)
            with meter.timed("proximal") if len(parts) > 1 else nullcontext():
                known = self._known(samples, parts)
            for members in parts:
                moved = steps > self.guard.skipped - skipped
                given = known if moved else samples
                self.optimize([given[i] for i in members], meter)
                steps += 1
        with meter.timed("publish") if self.processes.world.size > 1 else nullcontext():
            self.weights.publish()
        all_of = self.processes.gather((meter, steps, self.guard.skipped - skipped))
        meter = Meter.of_all([one for one, _, _ in all_of])
        _, steps, skipped = all_of[self.processes.leader]
        return meter.metrics() | {
            "optimizer_steps": float(steps - skipped),
            "optimizer_steps_skipped": float(skipped),
            **staleness_metrics(staleness_N, tokens_N),
        }

    def _parts(self, groups: np.ndarray, trained: np.ndarray) -> list[list[int]]:
        """The samples of each optimizer step on a batch, by their places; groups stay whole."""
        parts = []
        for _ in range(self.method.epochs):
            order = self.rng.permutation(np.unique(groups))
            for part in np.array_split(order, self.method.minibatches):
                parts.append(np.flatnonzero(np.isin(groups, part) & trained).tolist())
        return [part for part in parts if part]

    def optimize(self, samples: Sequence[Sample], meter: Meter) -> None:
        """One optimizer step on `samples`, or none where the gradient is not usable."""
        self.optimizer.zero_grad(set_to_none=True)
        self.accumulate(samples, meter)
        total = torch.nn.utils.clip_grad_norm_(self.parameters, self.config.optimizer.max_grad_norm)
        norm = whole(total).item()
        fault = self.guard.fault(norm)
        if fault:
            self.optimizer.zero_grad(set_to_none=True)
            try:
                self.guard.skip(fault, samples)
            finally:
                self.processes.total(0.0)  # the job must not end while the leader writes its files
            return
        self.guard.good()
        meter.values["grad_norm"].append(norm)
        meter.values["learning_rate"].append(float(self.scheduler.get_last_lr()[0]))
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)  # nothing of them is held through the rollouts
        self.weights.stepped()
        self.scheduler.step()

    def accumulate(self, samples: Sequence[Sample], meter: Meter) -> None:
        """Add the gradient of the loss of `samples` to the parameters.

        Samples without any advantage have no gradient and are not computed (unless the k3 term
        needs them); they count in the averages all the same.
        """
        config = self.method
        lengths = np.array([int(s.trajectory.loss_mask.sum()) for s in samples], dtype=np.int64)
        weights = self.aggregation(lengths, config.length_limit)
        weighted = [replace(s, weight=float(w)) for s, w in zip(samples, weights, strict=True)]
        live = [s for s in weighted if self._computed(s)]
        if self.processes.training.rank == 0:
            meter.totals["samples"] += len(samples)
            meter.totals["samples_without_advantage"] += len(samples) - len(live)
        total = 0.0
        # asked of all samples, so that every process runs the reference or none does
        known = self._kl_in_loss and all(s.reference is not None for s in live)
        for packed, vision in self._packed(live):
            reference_T = None
            if known:
                reference_T = torch.from_numpy(packed.reference).to(self.vlm.device)
            elif self._kl_in_loss:
                reference_T = self._reference(packed, vision)
            with self.logprobs.attending(packed, self.vlm.device) as attention:
                with meter.timed("forward"):
                    logprobs_T, entropy_T = self.logprobs(packed, attention, vision, meter)
                    counted = meter if self.processes.sequence.rank == 0 else Meter()
                    loss = self._loss(packed, logprobs_T, entropy_T, reference_T, counted)
                with meter.timed("backward"):
                    loss.backward()
            if self.processes.sequence.rank == 0:
                total += loss.item()
                _count(packed, meter)
        meter.values["loss"].append(self.processes.total(total))

    def _loss(
        self,
        packed: PackedBatch,
        logprobs_T: torch.Tensor,
        entropy_T: torch.Tensor,
        reference_T: torch.Tensor | None,
        meter: Meter,
    ) -> torch.Tensor:
        """The weighted sum over the micro-batch's trained tokens, and its metrics."""
        config = self.method
        behaviour_T, advantages_T, weights_T, proximal_T = (
            torch.from_numpy(column).to(logprobs_T.device)
            for column in (packed.behaviour, packed.advantages, packed.weights, packed.proximal)
        )
        # where nothing is given, pi_prox is the policy itself
        proximal_T = torch.where(proximal_T.isnan(), logprobs_T.detach(), proximal_T)
        outputs = self.loss(
            LossInputs(
                logprobs=logprobs_T,
                proximal=proximal_T,
                behaviour=behaviour_T,
                advantages=advantages_T,
                sequence=torch.from_numpy(packed.sample).to(logprobs_T.device),
                clip_low=config.clip_low,
                clip_high=config.clip_high,
                behaviour_cap=config.behaviour_cap,
                ratio_cap=config.ratio_cap,
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
        if reference_T is not None:
            divergence_T = k3(logprobs_T, reference_T)
            metrics["kl"] = divergence_T.detach()
            loss_T = loss_T + config.kl_coefficient * divergence_T
        meter.per_token(metrics)
        return (loss_T * weights_T).sum()

    @torch.no_grad()
    def _scores(self, of: TokenLogprobs, packed: PackedBatch, vision: bool) -> torch.Tensor:
        """Log-probabilities (T,) of the trained tokens, without a gradient."""
        with of.attending(packed, self.vlm.device) as attention:
            return of(packed, attention, vision)[0]

    def _reference(self, packed: PackedBatch, vision: bool) -> torch.Tensor:
        """Log-probabilities (T,) by the frozen copy, or by the policy without its adapters."""
        if self.reference is not None:
            return self._scores(self.reference, packed, vision)
        with lora.switched_off(self.logprobs.model):
            return self._scores(self.logprobs, packed, vision)

    def divergence(self, trajectories: Sequence[Trajectory]) -> np.ndarray:
        """Sum over each trajectory's sampled tokens of log pi_behave - log pi_ref, (N,) float64.

        For a divergence in the reward (`kl_in`): the policy's side is what the sampler recorded.
        """
        if self.method.kl_coefficient <= 0 and not self.adapted:
            raise ValueError("a divergence needs a reference policy: set kl_coefficient")
        zeros = [np.zeros(len(one.branch_ids), dtype=np.float32) for one in trajectories]
        samples = [Sample(*pair) for pair in zip(trajectories, zeros, strict=True)]
        sums_N = np.zeros(len(samples))
        if not self.processes.trains:
            return sums_N
        for packed, vision in self._packed(samples):
            reference_T = self._reference(packed, vision).cpu()
            divergence_T = k1(torch.from_numpy(packed.behaviour), reference_T)
            if self.processes.sequence.rank == 0:
                np.add.at(sums_N, packed.sample, divergence_T.numpy().astype(np.float64))
        return self.processes.sum(sums_N)

    def token_logprobs(self, trajectories: Sequence[Trajectory]) -> list[np.ndarray]:
        """Log-probabilities (C,) of each branch under the weights as they are, by a forward pass.

        Tokens that were not sampled have 0; where this process does not train, all have. All
        processes ask for the same trajectories.
        """
        zeros = [np.zeros(len(one.branch_ids), dtype=np.float32) for one in trajectories]
        if not self.processes.trains:
            return zeros
        samples = [Sample(*pair) for pair in zip(trajectories, zeros, strict=True)]
        known = self._with_proximal(samples)
        return [zero if one.proximal is None else one.proximal
                for one, zero in zip(known, zeros, strict=True)]  # fmt: skip

    def _computed(self, sample: Sample) -> bool:
        """Whether the loss of a sample has a gradient."""
        return self._kl_in_loss or bool(sample.advantages.any())

    @property
    def _kl_in_loss(self) -> bool:
        return self.method.kl_coefficient > 0 and self.method.kl_in == "loss"

    def _recorded(self, one: Trajectory, age: int) -> np.ndarray | None:
        """The recorded log-probabilities, where they are pi_prox: of what older weights drew.

        A loss without a weight of its own for them takes its ratio from the weights that drew it,
        as PPO does: then the ratio is what corrects for them.
        """
        return one.logprobs if age and not self.loss.own_proximal else None

    def _known(self, samples: Sequence[Sample], parts: Sequence[Sequence[int]]) -> list[Sample]:
        """Samples with pi_prox, the policy as it is now, for the steps that follow the first one.

        Computed part by part, packed as the steps will be: it rounds as they do.
        """
        once = parts[: self.method.minibatches] if self.method.epochs > 1 else parts[1:]
        known = list(samples)
        for part in once:
            asked = [i for i in part if samples[i].proximal is None and self._computed(samples[i])]
            computed = self._with_proximal([samples[i] for i in asked])
            for i, sample in zip(asked, computed, strict=True):
                known[i] = sample
        return known

    def _with_proximal(self, samples: Sequence[Sample]) -> list[Sample]:
        """Samples with the policy's log-probabilities, by a forward pass."""

        def policy(packed: PackedBatch, vision: bool) -> torch.Tensor:
            return self._scores(self.logprobs, packed, vision)

        scored = self._scored(samples, policy)
        return [replace(s, proximal=p) for s, p in zip(samples, scored, strict=True)]

    def _with_reference(self, samples: Sequence[Sample]) -> list[Sample]:
        """Samples with the reference's log-probabilities, by a forward pass."""
        scored = self._scored(samples, self._reference)
        return [replace(s, reference=r) for s, r in zip(samples, scored, strict=True)]

    def _scored(
        self, samples: Sequence[Sample], score: Callable[[PackedBatch, bool], torch.Tensor]
    ) -> list[np.ndarray]:
        """Log-probabilities (C,) of each sample's trained tokens, 0 elsewhere, of all processes."""
        if not samples:
            return []
        lengths = [len(s.trajectory.branch_ids) for s in samples]
        flat = np.zeros(sum(lengths), dtype=np.float32)
        of_sample = np.split(flat, np.cumsum(lengths)[:-1])
        for packed, vision in self._packed(samples):
            values_T = score(packed, vision).float().cpu().numpy()
            if self.processes.sequence.rank == 0:
                for i in np.unique(packed.sample):
                    trained = np.flatnonzero(samples[i].trajectory.loss_mask)
                    of_sample[i][trained] = values_T[packed.sample == i]
        return np.split(self.processes.sum(flat), np.cumsum(lengths)[:-1])

    def _packed(self, samples: Sequence[Sample]) -> Iterator[tuple[PackedBatch, bool]]:
        """The micro-batches of this process, and whether the vision tower runs for each.

        Raises:
            ValueError: A trained token is a vision token: no policy can have sampled it.
        """
        for sample in samples:
            one = sample.trajectory
            if np.isin(one.branch_ids[one.loss_mask], self.vlm.forbidden_ids).any():
                raise ValueError("a trained token is a vision token, which cannot be sampled")
        budget, data = self.config.packing.micro_batch_tokens, self.processes.data
        multiple = self.processes.sequence.size
        for turn in rounds(grow_trees(samples, budget), budget, data.rank, data.size):
            self.processes.progress.tick()
            if turn.trees is None:
                yield idle(self.vlm, multiple), turn.vision
            else:
                yield pack(turn.trees, self.vlm, multiple), turn.vision


def _count(packed: PackedBatch, meter: Meter) -> None:
    """Count the tokens of a micro-batch."""
    if len(packed.target):
        meter.totals["micro_batches"] += 1
        meter.totals["packed_tokens"] += packed.tokens
        meter.totals["padded_tokens"] += packed.ids.size
        meter.totals["repeated_tokens"] += packed.repeated_tokens
