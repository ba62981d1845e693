"""LoRA: low-rank adapters in the decoder, trained while everything else stays as it is.

Put into a policy before the learner is made. The adapters are the only trained weights; switched
off, the policy is the one that training started from, so no second copy is needed for the k3 term.
The policy is saved with the adapters merged, as a standard checkpoint that any engine loads.

Command: `pytest tests/distributed/test_parallel.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from agents.model.vlm import VisionLanguageModel
from train.config.learner import LoraConfig

ADAPTER = "default"


def layers(model: torch.nn.Module) -> list[Any]:
    """The layers of a model that have an adapter."""
    return [module for module in model.modules() if hasattr(module, "lora_A")]


def add(vlm: VisionLanguageModel, config: LoraConfig, seed: int = 0) -> VisionLanguageModel:
    """Put float32 adapters into the decoder, in place; a new one changes nothing yet.

    Raises:
        ValueError: No layer of the decoder has one of the names.
    """
    import peft

    names = tuple(config.targets)
    found = [
        name
        for name, module in vlm.language_model.named_modules()
        if isinstance(module, torch.nn.Linear) and name.rpartition(".")[2] in names
    ]
    if not found:
        raise ValueError(f"lora.targets={names}: the decoder has no linear layer of these names")
    prefix = "language_model."
    alpha: Any = config.alpha  # peft says int, and only divides it
    settings = peft.LoraConfig(
        r=config.rank, lora_alpha=alpha, target_modules=[prefix + name for name in found]
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        peft.inject_adapter_in_model(settings, vlm.model, ADAPTER)
    for name, parameter in vlm.model.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.float()
    return AdaptedModel(vlm)


class AdaptedModel(VisionLanguageModel):
    """A policy with adapters; it is saved with them merged in."""

    def __init__(self, vlm: VisionLanguageModel) -> None:
        super().__init__(vlm.model, vlm.tokenizer, vlm.image_processor)

    def save(self, folder: str | Path, state: dict[str, torch.Tensor] | None = None) -> None:
        """Write the merged checkpoint (safetensors, tokenizer, image geometry) into `folder`."""
        super().save(folder, merged(self.model) if state is None else state)


def merged(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The state of a model with every adapter added to the layer below it, by the usual names."""
    sums: dict[str, torch.Tensor] = {}
    modules: Any = model.named_modules()
    for name, module in modules:
        if hasattr(module, "lora_A"):
            base = module.get_base_layer()
            delta = module.get_delta_weight(ADAPTER)
            sums[f"{name}.weight"] = (base.weight.float() + delta.float()).to(base.weight.dtype)
    state = {
        name.replace(".base_layer.", "."): value
        for name, value in model.state_dict().items()
        if ".lora_" not in name
    }
    return state | {name: value.detach() for name, value in sums.items()}


@contextmanager
def switched_off(model: torch.nn.Module) -> Iterator[None]:
    """The model as it was before training.

    The adapters are scaled by 0 rather than taken out: FSDP gathers the same weights either way.
    """
    found = layers(model)
    before = [layer.scaling[ADAPTER] for layer in found]
    for layer in found:
        layer.scaling[ADAPTER] = 0.0
    try:
        yield
    finally:
        for layer, scaling in zip(found, before, strict=True):
            layer.scaling[ADAPTER] = scaling
