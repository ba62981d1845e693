"""Where the trained weights live: in the policy itself, beside it in fp32, or sharded.

Between the learner and its optimizer. The policy that plays (`vlm`) is always whole; what the
optimizer moves may be another copy, which is written back:

- `Weights`: the policy's own tensors; float32 on one process.
- `MasterWeights`: a low-precision policy on one process. Updates of a learning rate of 1e-6 vanish
  in bfloat16, so fp32 copies collect the gradients of all micro-batches and take the step.
- `ShardedWeights`: several processes. A second copy in fp32, sharded by FSDP2 (ZeRO-3, arXiv
  1910.02054), which computes in the policy's precision; gathered into the policy after each update.

Command: `pytest tests/distributed/test_parallel.py`.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator, Mapping
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.fsdp import (
    CPUOffloadPolicy,
    FSDPModule,
    MixedPrecisionPolicy,
    fully_shard,
)
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.utils.checkpoint import checkpoint

from train.common.errors import ConfigError
from train.distributed.processes import Processes
from train.learner import lora
from train.learner.logprobs import TokenLogprobs

LOW_PRECISION = (torch.bfloat16,)


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """The full tensor behind a sharded one; every training process has to ask for it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def like(value: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """`value` sharded as `other` is, where they have one shape; every process holds all of it."""
    if not isinstance(other, DTensor) or value.shape != other.shape:
        return value
    device = other.device_mesh.device_type
    return distribute_tensor(
        value.to(device), other.device_mesh, other.placements, src_data_rank=None
    ).to(other.device)


def trainable(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """The parameters that are trained, by name, in the model's order."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


class Weights:
    """The policy's own tensors.

    Attributes:
        logprobs: Computes with the weights.
        parameters: What the optimizer moves, by the policy's names.
        beside: Whether a checkpoint has to hold them beside the policy: another copy, or adapters
            that are saved merged.
    """

    beside = False

    def __init__(self, logprobs: TokenLogprobs) -> None:
        self.logprobs = logprobs
        self.parameters: dict[str, torch.nn.Parameter] = trainable(logprobs.model)
        self.beside = self.beside or bool(lora.layers(logprobs.model))

    def stepped(self) -> None:
        """The optimizer took a step."""

    def retire(self) -> None:
        """Let go of the policy, which another learner will train."""

    def publish(self) -> None:
        """Write the weights into the policy that plays; every process calls it."""

    def state(self, keep: bool = True) -> dict[str, torch.Tensor]:
        """Full weights as `weights.<name>` where they are `beside`; all processes call it.

        Args:
            keep: Whether this process needs the result; the others only take part.
        """
        if not self.beside:
            return {}
        full = ((name, whole(p.detach())) for name, p in self.parameters.items())
        return {f"weights.{name}": value.cpu() for name, value in full if keep}

    def check(self, trained: Collection[str]) -> None:
        """Refuse a checkpoint that trained other parameters than these.

        Raises:
            ConfigError: It did.
        """
        odd = sorted(set(trained) ^ self.parameters.keys())
        if odd:
            raise ConfigError(
                f"the checkpoint trained other parameters ({odd[0]} and {len(odd) - 1} more): "
                "resume with the same lora and freeze_vision settings"
            )

    def restore(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Take up what `state` gave; without a copy in it, the policy's own weights stay."""
        found = {
            key.removeprefix("weights."): value
            for key, value in tensors.items()
            if key.startswith("weights.")
        }
        if not found:
            return
        self.check(found)
        with torch.no_grad():
            for name, p in self.parameters.items():
                p.copy_(like(found[name].to(p.dtype), p))
        self.stepped()
        self.publish()


class MasterWeights(Weights):
    """fp32 copies of a low-precision policy's trained tensors, on one process."""

    beside = True

    def __init__(self, logprobs: TokenLogprobs) -> None:
        super().__init__(logprobs)
        self._low = self.parameters
        self.parameters = {
            name: torch.nn.Parameter(p.detach().float()) for name, p in self._low.items()
        }
        self._hooks = [
            p.register_post_accumulate_grad_hook(partial(_collect, self.parameters[name]))
            for name, p in self._low.items()
        ]

    def retire(self) -> None:
        """Collect no more gradients: they would be missing in the masters that follow."""
        for hook in self._hooks:
            hook.remove()

    def stepped(self) -> None:
        """Round the masters into the policy."""
        with torch.no_grad():
            for name, p in self._low.items():
                p.copy_(self.parameters[name])


def _collect(master: torch.nn.Parameter, low: torch.Tensor) -> None:
    """Add a micro-batch's gradient to the master's and free it."""
    if low.grad is None:
        return
    gradient = low.grad.to(master.dtype)
    master.grad = gradient if master.grad is None else master.grad.add_(gradient)
    low.grad = None


class ShardedWeights(Weights):
    """A copy sharded over the training processes.

    Args:
        logprobs: Over the policy that plays.
        processes: The processes. One that does not train holds no shard and only receives.
    """

    def __init__(self, logprobs: TokenLogprobs, processes: Processes) -> None:
        self._played, self._processes = logprobs.vlm, processes
        dtype = logprobs.model.dtype
        self.beside = dtype in LOW_PRECISION
        if processes.trains:
            twin = copy.deepcopy(logprobs.model)
            if self.beside:
                twin = twin.float()
            vlm = logprobs.vlm.around(twin)
            logprobs = TokenLogprobs(
                vlm,
                logprobs.temperature,
                logprobs.logit_chunk,
                logprobs.mode,
                processes.sequence,
                logprobs.encode,
            )
            if processes.config.recompute:
                recompute(twin)
            shard(logprobs, processes, dtype)
        super().__init__(logprobs)

    def publish(self) -> None:
        """Gather each tensor and write it into the policy, on the playing processes too."""
        apart = self._processes.config.layout == "disaggregated"
        first = self._processes.config.generator_ranks if apart else 0
        with torch.no_grad():
            for name, target in trainable(self._played.model).items():
                if self._processes.trains:
                    target.copy_(whole(self.parameters[name]))
                if apart:
                    dist.broadcast(target, src=first)
                    # which torch does not count; features of older weights would pass for new ones
                    torch.autograd.graph.increment_version(target)


def shard(logprobs: TokenLogprobs, processes: Processes, dtype: torch.dtype) -> None:
    """Shard a logprobs in place over the training processes, block by block.

    Gradients are summed over the processes, not averaged: the loss of each is its part of a sum
    that is normalised over all of them.
    """
    settings: dict[str, Any] = {"mesh": processes.mesh}
    if dtype in LOW_PRECISION:
        settings["mp_policy"] = MixedPrecisionPolicy(
            param_dtype=dtype, reduce_dtype=torch.float32, cast_forward_inputs=False
        )
    if processes.config.offload:
        settings["offload_policy"] = CPUOffloadPolicy(pin_memory=torch.cuda.is_available())
    for block in blocks(logprobs.model):
        fully_shard(block, **settings, reshard_after_forward=processes.config.reshard)
    fully_shard(logprobs, **settings)
    for module in logprobs.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)


def blocks(model: Any) -> Iterator[torch.nn.Module]:
    """The transformer blocks of the vision tower and of the decoder, in order."""
    yield from model.model.visual.blocks
    yield from model.model.language_model.layers


def recompute(model: Any) -> None:
    """Keep only the inputs of each block; the rest is computed again in the backward pass."""
    for block in blocks(model):
        if getattr(block.forward, "func", None) is not _recomputed:
            block.forward = partial(_recomputed, block.forward)


def _recomputed(forward: Any, *args: Any, **kwargs: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*args, **kwargs)
    return checkpoint(forward, *args, use_reentrant=False, **kwargs)


def weights_for(logprobs: TokenLogprobs, processes: Processes) -> Weights:
    """The trained weights behind a policy."""
    if processes.world.size > 1:
        return ShardedWeights(logprobs, processes)
    if processes.config.recompute:
        recompute(logprobs.model)
    low = any(p.dtype in LOW_PRECISION for p in trainable(logprobs.model).values())
    return MasterWeights(logprobs) if low else Weights(logprobs)
