"""What agents ask of a vLLM engine, and how a context is handed to it.

Between an agent's contexts and vLLM, whether it runs in this process (`agents/vllm/local.py`) or
behind a server (`agents/vllm/server.py`). A prompt is handed over as it stands: its token ids, its
images as uint8 patches, and where they go. Nothing is tokenised, resized or expanded again, and
equal images have equal keys, so vLLM encodes an image once for all prompts that show it. A temporal
patch of a video is handed over as an image is: the tower takes two frames in either case, an image
twice; its time stands in the tokens, and its place is told, so vLLM asks for nothing else. Every
completion comes back with the log-probabilities of the distribution that it was drawn from and the
version of the weights that drew it.

Needs the vllm extra (`docs/engines.md`). Tests: `make test-engines`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from agents.base import AgentError, AgentStats, image_size
from agents.model.vlm import VisionLanguageModel
from agents.text.context import TokenContext

INITIAL = "0"
"""Version of the weights that an engine starts with."""


class EngineError(AgentError):
    """An engine that does not start, does not answer, or cannot do what it is asked for."""


@dataclass(frozen=True)
class Prompt:
    """A context from which `count` completions of at most `limit` tokens are to be drawn."""

    context: TokenContext
    count: int
    limit: int
    temperature: float
    seed: int

    def sampling(self, stop_ids: Collection[int]) -> dict[str, Any]:
        """The request's `SamplingParams` by name; greedy decoding is asked for once."""
        return {
            "n": self.count if self.temperature else 1,
            "temperature": self.temperature,
            "max_tokens": self.limit,
            "seed": self.seed,
            "logprobs": 0,
            "stop_token_ids": sorted(stop_ids),
            "ignore_eos": True,
            "detokenize": False,
        }

    def share(self, drawn: list[Generated]) -> list[Generated]:
        """`count` completions of those that were asked for."""
        return drawn if self.temperature else drawn * self.count


@dataclass(frozen=True)
class Generated:
    """One completion: tokens, log-probabilities and the version of the weights, one a token."""

    ids: list[int]
    logprobs: list[float]
    versions: list[int]


class Engine(Protocol):
    """What agents and the weight sync ask of an engine."""

    stats: AgentStats
    """Shared by all agents that use the engine."""

    def generate(self, prompts: Sequence[Prompt]) -> list[list[Generated]]:
        """`count` completions for each prompt; callable from several threads at once."""

    def frames(self) -> dict[str, int]:
        """Images `encoded` so far by the vision tower, and `held` as features now."""

    def reset_caches(self) -> None:
        """Forget all keys, values and image features."""

    def sleep(self) -> None:
        """Leave to the learner what memory it can of the learner's card, until new weights come."""

    def close(self) -> None:
        """Release what the engine holds."""


def cut_patches(image: np.ndarray, patch: int, merge: int, temporal: int) -> np.ndarray:
    """The vision tower's input before normalisation.

    Args:
        image: uint8 (H, W, 3) or a temporal patch (T, H, W, 3), sides multiples of `patch * merge`.
        patch: Side of a patch in pixels.
        merge: Patches on a side of the square that becomes one token.
        temporal: Frames that the tower takes at once; an image is repeated.

    Returns:
        uint8 (patches, 3 * temporal * patch * patch), the patches of a token side by side.
    """
    height, width = image_size(image)
    rows, columns = height // (patch * merge), width // (patch * merge)
    frames = np.broadcast_to(image, (temporal, height, width, 3))
    x = frames.reshape(temporal, rows, merge, patch, columns, merge, patch, 3)
    x = x.transpose(1, 4, 2, 5, 7, 0, 3, 6)
    return np.ascontiguousarray(x).reshape(rows * columns * merge * merge, -1)


def image_items(vlm: VisionLanguageModel, images: Sequence[np.ndarray]) -> Any:
    """Images and temporal patches as vLLM's `MultiModalKwargsItems`."""
    from vllm.multimodal.inputs import MultiModalFieldConfig, MultiModalKwargsItems

    temporal = vlm.model.config.vision_config.temporal_patch_size
    patches = [cut_patches(image, vlm.patch, vlm.merge, temporal) for image in images]
    grids = torch.tensor([vlm.image_grid(*image_size(image)) for image in images])
    fields = {
        "pixel_values": MultiModalFieldConfig.flat_from_sizes("image", grids.prod(-1)),
        "image_grid_thw": MultiModalFieldConfig.batched("image", keep_on_cpu=True),
    }
    inputs: Any = {
        "pixel_values": torch.from_numpy(np.concatenate(patches)),
        "image_grid_thw": grids,
    }
    return MultiModalKwargsItems.from_hf_inputs(inputs, fields)


def placeholders(context: TokenContext) -> list[tuple[int, int]]:
    """(offset, length) of the tokens of each image, or temporal patch."""
    return [
        (start, context.vlm.image_token_count(*image_size(image)))
        for start, image in zip(context.image_starts, context.images, strict=True)
    ]


def token_versions(spans: Any, tokens: int) -> list[int]:
    """Version of each token, from vLLM's spans over the completion."""
    versions = [-1] * tokens
    for span in spans or ():
        start, end, version = (
            (span["start"], span["end"], span["version"])
            if isinstance(span, dict)
            else (span.start, span.end, span.version)
        )
        if not 0 <= start <= end <= tokens:
            raise EngineError(f"vLLM's versions of the weights are not the tokens': {start}-{end}")
        versions[start:end] = [int(version)] * (end - start)
    if -1 in versions:
        raise EngineError("vLLM did not say which weights drew a token")
    return versions
