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
    layers: int = 4
    heads: int = 4
    intermediate_size: int = 384
    vision_hidden_size: int = 96
    vision_layers: int = 2
    vision_heads: int = 4
    vision_intermediate_size: int = 256
    patch_size: int = 16
    vocabulary: int = 1024
    """Upper bound on the tokens that the byte-level BPE learns."""
    numbers: int = 1300
    """Whole numbers below this are one token each, and one more with the space before them: a small
    model copies a time in one step, and finds it right beside the word it belongs to."""
