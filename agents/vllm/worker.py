"""What runs beside the model inside vLLM: no vision tokens, a frame counter, weights from memory.

vLLM imports this module in its worker processes by the names in `agents/vllm/arguments.py`. It
needs the vllm extra; importing it makes the back end `SHARED_MEMORY` known to vLLM.

Shared memory is the weight-transfer back end for a learner and a server on one machine. The learner
writes all tensors into one segment of memory (no disk), the server reads them from there through
vLLM's own reload of checkpoint-format weights. The control messages are vLLM's, the same as for
NCCL.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from multiprocessing import resource_tracker, shared_memory
from typing import Any, ClassVar

import torch
from vllm.distributed.weight_transfer.base import (
    TrainerInitInfo,
    TrainerWeightTransferEngine,
    WeightTransferEngine,
    WeightTransferInitInfo,
    WeightTransferUpdateInfo,
)
from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory
from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead
from vllm.model_executor.model_loader.reload import (
    finalize_layerwise_reload,
    initialize_layerwise_reload,
)
from vllm.v1.sample.logits_processor import LogitsProcessor

from agents.vllm.arguments import SHARED_MEMORY, check_shared_memory

VISION_TOKENS = (
    "image_token_id",
    "video_token_id",
    "vision_start_token_id",
    "vision_end_token_id",
)
ALIGNMENT = 64
"""Bytes; every tensor begins at a multiple."""


class NoVisionTokens(LogitsProcessor):
    """Takes vision tokens out of every distribution: an image that was sampled has no features."""

    def __init__(self, vllm_config: Any, device: torch.device, is_pin_memory: bool) -> None:
        config = vllm_config.model_config.hf_config
        self.forbidden = torch.tensor([getattr(config, name) for name in VISION_TOKENS]).to(device)

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        """Logits (B, V) with minus infinity for vision tokens."""
        return logits.index_fill_(-1, self.forbidden, -torch.inf)

    def is_argmax_invariant(self) -> bool:
        """False: the most likely token may be a forbidden one."""
        return False

    def update_state(self, batch_update: Any) -> None:
        """Nothing is kept for single requests."""


def refresh_tied_head(model: torch.nn.Module) -> None:
    """Pack a tied output head again after its embedding was reloaded.

    On CPU vLLM multiplies by a packed copy of the head's weight. A reload packs the layers that got
    weights of their own; a head that is tied to the embedding got none, and would stay as it was.
    """
    for layer in model.modules():
        if isinstance(layer, ParallelLMHead):
            layer.quant_method.process_weights_after_loading(layer)


def clear_deepstack(model: torch.nn.Module) -> None:
    """Zero what vLLM's Qwen3-VL adds to the first layers of the decoder where no frame is.

    It is zero between two steps, but lies in the memory of the weights and is neither parameter nor
    buffer: after a sleep that dropped the weights it holds anything.
    """
    for tensor in getattr(model, "deepstack_input_embeds", ()):
        tensor.zero_()


class WorkerExtension:
    """Mixed into vLLM's worker: counts the images that its vision tower encodes."""

    model_runner: Any

    def paravt_reload(self, weights: Iterable[tuple[str, torch.Tensor]]) -> None:
        """Replace all weights; only within the process, where tensors need no serialisation."""
        self.model_runner.reload_weights(weights_iterator=weights)
        refresh_tied_head(self.model_runner.get_model())
        clear_deepstack(self.model_runner.get_model())

    def paravt_frames(self) -> dict[str, int]:
        """Images encoded since the first call, and those whose features are held now."""
        if not hasattr(self, "_paravt_frames"):
            self._paravt_frames = 0
            tower = self.model_runner.get_model().visual
            tower.register_forward_pre_hook(self._paravt_count, with_kwargs=True)
        return {"encoded": self._paravt_frames, "held": len(self.model_runner.encoder_cache)}

    def _paravt_count(self, module: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        self._paravt_frames += len(named["grid_thw"] if "grid_thw" in named else arguments[1])


@dataclass
class SharedMemoryInit(WeightTransferInitInfo):
    """Nothing to agree on in advance."""


@dataclass
class SharedMemoryUpdate(WeightTransferUpdateInfo):
    """Where the tensors are: one entry a tensor, offsets in bytes."""

    segment: str
    names: list[str] = field(default_factory=list)
    dtypes: list[str] = field(default_factory=list)
    shapes: list[list[int]] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)


def open_segment(name: str) -> shared_memory.SharedMemory:
    """Attach to a segment that its creator will remove."""
    segment = shared_memory.SharedMemory(name)
    resource_tracker.unregister(segment._name, "shared_memory")  # type: ignore[attr-defined]
    return segment


def tensor_at(
    segment: shared_memory.SharedMemory, dtype: str, shape: list[int], offset: int
) -> torch.Tensor:
    """A view of a segment; it must be gone before the segment is closed."""
    kind = getattr(torch, dtype)
    count = int(torch.Size(shape).numel())
    return torch.frombuffer(segment.buf, dtype=kind, count=count, offset=offset).view(shape)


class SharedMemoryReceiver(WeightTransferEngine[SharedMemoryInit, SharedMemoryUpdate]):
    """The server's side."""

    init_info_cls = SharedMemoryInit
    update_info_cls = SharedMemoryUpdate

    def init_transfer_engine(self, init_info: SharedMemoryInit) -> None:
        """Nothing to open."""

    def start_weight_update(self) -> None:
        """Prepare the model to be filled like from a checkpoint."""
        initialize_layerwise_reload(self.model)

    def receive_weights(self, update_info: SharedMemoryUpdate) -> None:
        """Load every tensor of the segment."""
        segment = open_segment(update_info.segment)
        try:
            entries = zip(
                update_info.names,
                update_info.dtypes,
                update_info.shapes,
                update_info.offsets,
                strict=True,
            )
            # Reloading keeps what it is given until its layer is complete: hand out copies.
            self.model.load_weights(
                (name, tensor_at(segment, dtype, shape, offset).to(self.device, copy=True))
                for name, dtype, shape, offset in entries
            )
        finally:
            segment.close()

    def finish_weight_update(self) -> None:
        """Pack the layers that are now complete."""
        finalize_layerwise_reload(self.model, self.model_config)
        refresh_tied_head(self.model)

    def shutdown(self) -> None:
        """Nothing to close."""


@dataclass
class SharedMemorySenderInit(TrainerInitInfo):
    """The learner's side needs nothing but its rank."""

    backend: ClassVar[str] = SHARED_MEMORY


class SharedMemorySender(TrainerWeightTransferEngine[SharedMemorySenderInit]):
    """The learner's side."""

    init_info_cls = SharedMemorySenderInit

    @classmethod
    def trainer_init(
        cls, init_info: SharedMemorySenderInit, *, client: Any, source: Any = None
    ) -> SharedMemorySender:
        """Tell the server that weights will come."""
        sender = cls(client=client, source=source, is_sender=init_info.is_sender)
        if sender.is_sender:
            client.init_weight_transfer_engine({})
        return sender

    def send_weights(self) -> None:
        """Write all tensors into a segment, have it loaded, remove it."""
        tensors = [(name, tensor.detach()) for name, tensor in self.source]
        if not self.is_sender:
            return
        size, update = 0, SharedMemoryUpdate("")
        for name, tensor in tensors:
            update.names.append(name)
            update.dtypes.append(str(tensor.dtype).removeprefix("torch."))
            update.shapes.append(list(tensor.shape))
            update.offsets.append(size)
            size += -(-tensor.nbytes // ALIGNMENT) * ALIGNMENT
        check_shared_memory(size)
        segment = shared_memory.SharedMemory(create=True, size=max(size, 1))
        try:
            update.segment = segment.name
            for (_, tensor), dtype, shape, offset in zip(
                tensors, update.dtypes, update.shapes, update.offsets, strict=True
            ):
                tensor_at(segment, dtype, shape, offset).copy_(tensor)
            self.client.start_weight_update()
            self.client.update_weights(asdict(update))
            self.client.finish_weight_update()
        finally:
            segment.close()
            segment.unlink()


if SHARED_MEMORY not in WeightTransferEngineFactory._registry:
    WeightTransferEngineFactory.register_engine(SHARED_MEMORY, SharedMemoryReceiver)
