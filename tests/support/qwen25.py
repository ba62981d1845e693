"""A random Qwen2.5-VL of a few thousand parameters, with the tokenizer of a ParaVT-Mini."""

from typing import Any

import torch
from support.learning import SHAPE
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from agents.model.vlm import VisionLanguageModel


def qwen25(mini: VisionLanguageModel) -> VisionLanguageModel:
    """A Qwen2.5-VL: windows of 2 x 2 tokens in all layers of the tower but the last.

    Args:
        mini: Of the shape `SHAPE`.
    """
    marks, layers = mini.model.config, SHAPE.vision_layers
    config: Any = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(mini.tokenizer), "hidden_size": 32, "intermediate_size": 32,
            "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2,
            "rope_parameters": {"rope_type": "default", "mrope_section": [2, 3, 3]},
        },
        vision_config={
            "depth": layers, "hidden_size": 32, "num_heads": 2, "intermediate_size": 48,
            "patch_size": 8, "out_hidden_size": 32, "window_size": 32,
            "fullatt_block_indexes": [layers - 1],
        },
        image_token_id=marks.image_token_id,
        video_token_id=marks.video_token_id,
        vision_start_token_id=marks.vision_start_token_id,
        vision_end_token_id=marks.vision_end_token_id,
    )  # fmt: skip
    torch.manual_seed(0)
    model = Qwen2_5_VLForConditionalGeneration(config).eval()
    model.set_attn_implementation("sdpa")
    return VisionLanguageModel(model, mini.tokenizer, mini.image_processor)
