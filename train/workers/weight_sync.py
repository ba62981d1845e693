"""Weight sync: the learner's weights reach whatever plays, through memory, never through a file.

Last stretch of the journey, from the updated policy back to the first one. Each way is an object
with one method, `push(version)`:

- `CopySync`: a second policy in this process (asynchronous rollouts through transformers).
- `EngineSync`: vLLM in this process.
- `ServerSync`: a vLLM server, through vLLM's weight-transfer API. `memory` writes one segment of
  shared memory, for a server on the same machine; `nccl` broadcasts from GPU to GPU.

An engine keeps keys, values and image features that old weights computed; after a push both caches
are empty. A push that does not finish is an error after a deadline, not a run that hangs: the peer
may be gone while a collective call waits for it. Every token carries the version that drew it.

Command: `pytest tests/workers/test_weight_sync.py`, and `make test-engines` for vLLM.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any, Protocol, TypeVar

import torch

from agents.config import AgentConfig
from agents.model.vlm import VisionLanguageModel
from agents.vllm.local import InProcessEngine
from agents.vllm.process import free_port
from agents.vllm.server import ServerEngine
from train.learner.lora import merged

T = TypeVar("T")


class SyncError(RuntimeError):
    """Weights that did not arrive; what plays may hold half of them."""


class WeightSync(Protocol):
    """A way for weights to reach the rollout workers."""

    def push(self, version: int) -> None:
        """Hand over the weights as they are now; completions are stamped with `version`.

        Raises:
            SyncError: They did not arrive, or not before the deadline.
        """


def within(
    seconds: float, what: str, action: Callable[[], T], device: torch.device | None = None
) -> T:
    """The result of `action`, run in a thread; an error where it takes too long.

    The thread cannot be stopped and is left behind: the run that sees the error should end.

    Args:
        seconds: The deadline.
        what: Is done, for the message.
        action: Does it.
        device: Card to work on: a new thread starts on card 0.

    Raises:
        SyncError: The deadline passed, or `action` failed.
    """
    results: list[T] = []
    errors: list[Exception] = []

    def run() -> None:
        try:
            if device is not None and device.type == "cuda":
                torch.cuda.set_device(device)
            results.append(action())
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=run, name="weight sync", daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        raise SyncError(
            f"{what} has not finished after {seconds:g} s: look whether the engine still runs and "
            "can be reached, or raise agent.vllm.sync_deadline"
        )
    if errors:
        raise SyncError(f"{what} failed: {errors[0]}") from errors[0]
    return results[0]


class Weights:
    """The weights of a policy by their checkpoint names; can be gone through again and again.

    This is vLLM's `WeightSource`; a sharded tensor is gathered as its turn comes.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        self.model = model

    def __iter__(self) -> Iterator[tuple[str, torch.Tensor]]:
        if any("lora_" in name for name, _ in self.model.named_parameters()):
            yield from ((name, tensor.detach()) for name, tensor in merged(self.model).items())
            return
        for name, parameter in self.model.named_parameters():
            full = getattr(parameter, "full_tensor", None)
            yield name, (full() if callable(full) else parameter).detach()

    def metadata(self) -> list[Any]:
        """Name, dtype and shape of each tensor, as vLLM's `ParamMeta`."""
        from vllm.distributed.weight_transfer.base import ParamMeta

        return [ParamMeta(name, tensor.dtype, tuple(tensor.shape)) for name, tensor in self]

    def held_names(self) -> None:
        """This process holds all of them."""


class CopySync:
    """From one policy to another one of the same shape, in this process."""

    def __init__(self, source: VisionLanguageModel, target: VisionLanguageModel) -> None:
        self.source, self.target = source, target

    @torch.no_grad()
    def push(self, version: int) -> None:
        """See :class:`WeightSync`."""
        tensors = dict(self.source.model.named_parameters())
        for name, parameter in self.target.model.named_parameters():
            parameter.copy_(tensors[name])
        self.target.features.clear()


class EngineSync:
    """From a policy to vLLM in this process.

    Of several processes each feeds its own engine, and waits for no other: the policy that plays is
    whole in each (`train/learner/weights.py`). An engine that sleeps wakes.
    """

    def __init__(self, model: torch.nn.Module, engine: InProcessEngine, deadline: float) -> None:
        self.weights, self.engine, self.deadline = Weights(model), engine, deadline

    def push(self, version: int) -> None:
        """See :class:`WeightSync`."""
        what = "the weight sync with vLLM in this process"
        within(self.deadline, what, lambda: self.engine.load(self.weights, version))


class ServerClient:
    """The four control messages of vLLM's weight-transfer API, to a server."""

    def __init__(self, engine: ServerEngine, timeout: float) -> None:
        self.engine, self.timeout = engine, timeout

    def _post(self, path: str, body: Any = None) -> None:
        self.engine.post(path, body, self.timeout)

    def init_weight_transfer_engine(self, init_info: dict[str, Any]) -> None:
        """Open the connection."""
        self._post("/init_weight_transfer_engine", {"init_info": init_info})

    def start_weight_update(self) -> None:
        """Begin."""
        self._post("/start_weight_update")

    def update_weights(self, update_info: Any) -> None:
        """Receive."""
        self._post("/update_weights", {"update_info": update_info})

    def finish_weight_update(self, weight_version: str | None = None) -> None:
        """Take what was received into use."""
        self._post("/finish_weight_update", {"weight_version": weight_version})


class ServerSync:
    """From a policy to a vLLM server.

    Args:
        model: The learner's module.
        engine: The server.
        config: `vllm.sync` says how the tensors travel: `memory` or `nccl`.
    """

    def __init__(self, model: torch.nn.Module, engine: ServerEngine, config: AgentConfig) -> None:
        self.engine, self.deadline = engine, config.vllm.sync_deadline
        self.client = ServerClient(engine, self.deadline)
        self.device = next(model.parameters()).device
        what = f"connecting to {engine.url} for weight sync ({config.vllm.sync})"
        weights = Weights(model)
        self.sender = within(
            self.deadline, what, lambda: self._connect(config, weights), self.device
        )

    def _connect(self, config: AgentConfig, source: Weights) -> Any:
        settings: Any = {"client": self.client, "source": source}
        if config.vllm.sync == "memory":
            from agents.vllm.worker import SharedMemorySender, SharedMemorySenderInit

            return SharedMemorySender.trainer_init(SharedMemorySenderInit(rank=0), **settings)
        from vllm.distributed.weight_transfer.nccl_engine import (
            NCCLTrainerInitInfo,
            NCCLTrainerWeightTransferEngine,
        )

        address = NCCLTrainerInitInfo(
            rank=0,
            master_address=config.vllm.learner_address,
            master_port=free_port(),
            world_size=1 + config.vllm.tensor_parallel,
        )
        return NCCLTrainerWeightTransferEngine.trainer_init(address, **settings)

    def push(self, version: int) -> None:
        """See :class:`WeightSync`; what the server still draws is finished first."""
        what = f"the weight sync with {self.engine.url}"
        within(self.deadline, what, lambda: self._push(version), self.device)

    def _push(self, version: int) -> None:
        self.engine.post("/pause?mode=wait&clear_cache=false", timeout=self.deadline)
        self.sender.send_weights()
        self.engine.reset_caches()
        self.engine.post("/update_weight_version", {"new_version": str(version)})
        self.engine.post("/resume")


def connect(
    config: AgentConfig, model: torch.nn.Module, engine: InProcessEngine | ServerEngine
) -> EngineSync | ServerSync:
    """The sync from a learner's module to an engine."""
    if isinstance(engine, InProcessEngine):
        return EngineSync(model, engine, config.vllm.sync_deadline)
    return ServerSync(model, engine, config)
