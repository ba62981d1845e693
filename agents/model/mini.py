"""ParaVT-Mini: a Qwen3-VL of a few million parameters and a tokenizer, both made here.

The checkpoint has the standard format and is loaded by the code that loads the 8B model. The
tokenizer is a byte-level BPE over the texts it will see, digits one by one, with the special tokens
and the added tags of Qwen3's. ``paravt sft`` starts from what :func:`build_mini` writes.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen3VLConfig, Qwen3VLForConditionalGeneration
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from agents.model.shape import MiniConfig
from agents.model.vlm import VisionLanguageModel

SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
ADDED_TOKENS = (
    "<think>",
    "</think>",
    "<tool_call>",
    "</tool_call>",
    "<tool_response>",
    "</tool_response>",
    '{"name": "crop_video", "arguments": {"start_time":',
    ', "end_time":',
)
"""Qwen3's tags, and the two fixed stretches of a call: a small model need not spell them out."""

COPY_SCALE, EMBEDDING_SCALE = 0.7, 5.0


def train_tokenizer(
    corpus: Iterable[str], vocabulary: int, numbers: int
) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE; digits stand alone, as in Qwen's, but for numbers below a bound."""
    tokenizer = Tokenizer(models.BPE())
    words = Regex(r" ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s+")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(words, behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        min_frequency=2,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus, trainer)
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in ADDED_TOKENS])
    plain = [AddedToken(str(n), normalized=False, single_word=True) for n in range(numbers)]
    spaced = [AddedToken(f" {n}", normalized=False) for n in range(numbers)]
    tokenizer.add_tokens(plain + spaced)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )


@torch.no_grad()
def _copying_start(model: Any) -> None:
    """Start every attention layer as one that passes on what it attends to.

    Value and output projections are transposes of one orthogonal matrix, as in mimetic
    initialisation (arXiv 2305.09828), and embeddings are larger. A small model then learns to copy
    times from its context in hundreds of steps; from the default start it had not in a thousand.
    """
    for layer in model.model.language_model.layers:
        attention = layer.self_attn
        width = attention.v_proj.weight.shape[0]
        rotation = torch.nn.init.orthogonal_(torch.empty(width, attention.v_proj.in_features))
        attention.v_proj.weight.copy_(COPY_SCALE * rotation)
        attention.o_proj.weight.copy_(COPY_SCALE * rotation.T)
    model.get_input_embeddings().weight.mul_(EMBEDDING_SCALE)


def video_settings_of(patch_size: int) -> dict[str, Any]:
    """The video processor's settings of a ParaVT-Mini: frames keep their size."""
    unit = patch_size * 2
    return {
        "video_processor_type": "Qwen3VLVideoProcessor",
        "size": {"shortest_edge": unit * unit, "longest_edge": 1024 * 1024 * unit * unit},
        "patch_size": patch_size,
        "merge_size": 2,
        "temporal_patch_size": 2,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
    }


def build_mini(
    folder: str | Path,
    corpus: Iterable[str] = (),
    shape: MiniConfig | None = None,
    seed: int = 0,
) -> Path:
    """Write a randomly initialised ParaVT-Mini checkpoint into ``folder``.

    Args:
        folder: Where the checkpoint goes (standard Hugging Face layout).
        corpus: Texts to learn the tokenizer from; any text can be encoded all the same.
        shape: Sizes of the model.
        seed: Seed of the initial weights.

    Returns:
        The folder.
    """
    shape = shape or MiniConfig()
    folder = Path(folder)
    tokenizer = train_tokenizer(corpus, shape.vocabulary, shape.numbers)
    head = shape.hidden_size // shape.heads
    third = head // 2 // 3
    vocabulary = tokenizer.get_vocab()
    ids = {token: vocabulary[token] for token in SPECIAL_TOKENS}
    config: Any = Qwen3VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": shape.hidden_size,
            "intermediate_size": shape.intermediate_size,
            "num_hidden_layers": shape.layers,
            "num_attention_heads": shape.heads,
            "num_key_value_heads": shape.heads,
            "head_dim": head,
            "max_position_embeddings": 32768,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "mrope_section": [head // 2 - 2 * third, third, third],
                "mrope_interleaved": True,
            },
            "pad_token_id": ids["<|endoftext|>"],
            "eos_token_id": ids["<|im_end|>"],
            "bos_token_id": None,
        },
        vision_config={
            "depth": shape.vision_layers,
            "hidden_size": shape.vision_hidden_size,
            "intermediate_size": shape.vision_intermediate_size,
            "num_heads": shape.vision_heads,
            "patch_size": shape.patch_size,
            "out_hidden_size": shape.hidden_size,
            "num_position_embeddings": 16,
            "deepstack_visual_indexes": [0],
        },
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=True,
    )
    config.text_config.tie_word_embeddings = True
    devices: list[int] = []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        model = Qwen3VLForConditionalGeneration(config)
        _copying_start(model)
    model.generation_config.eos_token_id = ids["<|im_end|>"]
    model.generation_config.pad_token_id = ids["<|endoftext|>"]
    unit = shape.patch_size * 2
    processor = Qwen2VLImageProcessorPil(
        size={"shortest_edge": unit * unit, "longest_edge": 1024 * unit * unit},
        patch_size=shape.patch_size,
        image_mean=[0.5, 0.5, 0.5],
        image_std=[0.5, 0.5, 0.5],
    )
    video = video_settings_of(shape.patch_size)
    VisionLanguageModel(model, tokenizer, processor, video).save(folder)
    return folder
