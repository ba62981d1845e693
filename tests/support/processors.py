"""A Qwen3-VL processor with a chat template around a tiny model, as TRL asks for one."""

from __future__ import annotations

from pathlib import Path

from support.tiny_runs import SHAPE

from agents.model.mini import build_mini

CORPUS = ("crop the video", "start_time end_time answer think") * 3


def tiny_checkpoint(folder: Path, template: str) -> str:
    """A random model of the standard format with its processor; returns the folder.

    Args:
        folder: Where it goes.
        template: Chat template of the processor.
    """
    from transformers import AutoTokenizer, Qwen3VLProcessor
    from transformers.models.qwen2_vl.image_processing_qwen2_vl import Qwen2VLImageProcessor
    from transformers.models.qwen3_vl.video_processing_qwen3_vl import Qwen3VLVideoProcessor

    build_mini(folder, CORPUS, SHAPE)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    unit = 2 * SHAPE.patch_size
    size = {"shortest_edge": unit * unit, "longest_edge": 1024 * unit * unit}
    shape = {"size": size, "patch_size": SHAPE.patch_size}
    processor = Qwen3VLProcessor(
        Qwen2VLImageProcessor(**shape),
        tokenizer,
        Qwen3VLVideoProcessor(**shape),
        chat_template=template,
    )
    processor.save_pretrained(folder)
    return str(folder)
