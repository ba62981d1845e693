"""The shape of ParaVT-Mini, as settings: sizes alone, so that a recipe is read without torch.

Read by `train.config.sft` (the `mini` group of a recipe); `agents.model.mini` builds the policy.
Command: `paravt sft --print-config`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class MiniConfig:
    """Shape of ParaVT-Mini; the defaults give about 1.5 M parameters."""

    hidden_size: int = 128
    """Width of the language model."""
    layers: int = 4
    """Its layers."""
    heads: int = 4
    """Its attention heads."""
    intermediate_size: int = 384
    """Width of its feed-forward layers."""
    vision_hidden_size: int = 96
    """Width of the vision tower."""
    vision_layers: int = 2
    """Layers of the vision tower."""
    vision_heads: int = 4
    """Attention heads of the vision tower."""
    vision_intermediate_size: int = 256
    """Width of its feed-forward layers."""
    patch_size: int = 16
    """Side of a picture patch in pixels."""
    vocabulary: int = 1024
    """Upper bound on the tokens that the byte-level BPE learns."""
    numbers: int = 1300
    """Whole numbers below this are one token each, and one more with the space before them: a small
    model copies a time in one step, and finds it right beside the word it belongs to."""
