"""A checkpoint's own processor of transformers on frames that are sampled already."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoTokenizer, Qwen3VLForConditionalGeneration
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.qwen3_vl.processing_qwen3_vl import Qwen3VLProcessor
from transformers.models.qwen3_vl.video_processing_qwen3_vl import Qwen3VLVideoProcessor

from agents.base import image_size
from agents.text.context import TokenContext

VIDEO = "<|vision_start|><|video_pad|><|vision_end|>"
IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"
GROUP = r"<-?[\d.]+ seconds><\|vision_start\|>(?:<\|video_pad\|>)+<\|vision_end\|>"
SHOWN = re.compile(rf"<\|vision_start\|>(?:{GROUP})+<\|vision_end\|>")


class _Processor(Qwen3VLProcessor):
    """The processor itself; its check of the classes it is given needs torchvision."""

    def check_argument_for_proper_class(self, *_: Any) -> None:
        """Nothing is checked."""


def metadata(times: Sequence[float]) -> dict[str, Any]:
    """A clip's true times, in milliseconds of a film of 1000 frames a second."""
    ticks = [round(1000 * float(time)) for time in times]
    return {"fps": 1000.0, "frames_indices": ticks, "total_num_frames": ticks[-1] + 1}


def processed(
    folder: Path,
    text: str,
    clips: Sequence[tuple[np.ndarray, Sequence[float]]],
    images: Sequence[np.ndarray] = (),
) -> dict[str, Any]:
    """What the processor of the checkpoint in `folder` makes of a text, clips and images.

    Without torchvision, which its last step needs, pixels are normalised here.
    """
    video = Qwen3VLVideoProcessor.from_pretrained(folder)
    pictures = Qwen2VLImageProcessorPil.from_pretrained(folder)
    processor = _Processor(pictures, AutoTokenizer.from_pretrained(folder), video)
    whole = find_spec("torchvision") is not None
    shown: dict[str, Any] = {}
    if clips:
        shown["videos"] = [frames for frames, _ in clips]
        shown["video_metadata"] = [metadata(times) for _, times in clips]
        left_out = () if whole else ("do_convert_rgb", "do_normalize", "do_resize")
        shown["videos_kwargs"] = {"do_sample_frames": False, **dict.fromkeys(left_out, False)}
    if len(images):
        shown["images"] = list(images)
    inputs = dict(processor(text=[text], return_tensors="pt", **shown))
    inputs.pop("video_metadata", None)
    if clips and not whole:
        raw = inputs["pixel_values_videos"]
        inputs["pixel_values_videos"] = (raw - video.image_mean[0]) / video.image_std[0]
    return inputs


def as_the_model_does(folder: Path, inputs: dict[str, Any]) -> tuple[np.ndarray, torch.Tensor]:
    """M-RoPE positions (3, n) and logits (n, V) of the model of transformers itself."""
    model = Qwen3VLForConditionalGeneration.from_pretrained(folder, attn_implementation="sdpa")
    grids = {name: inputs.get(name) for name in ("image_grid_thw", "video_grid_thw")}
    kinds = inputs["mm_token_type_ids"]
    positions, _ = model.model.get_rope_index(inputs["input_ids"], kinds, **grids)
    with torch.no_grad():
        return positions[:, 0].numpy(), model.eval()(**inputs).logits[0]


def as_we_do(vlm: Any, context: TokenContext) -> tuple[np.ndarray, torch.Tensor]:
    """The same of a context, by the adapter."""
    ids = np.array(context.ids)
    grids = [vlm.image_grid(*image_size(image)) for image in context.images]
    positions, _ = vlm.rope_positions(ids, grids)
    with torch.no_grad():
        features = torch.cat(vlm.encode_images(context.images)) if context.images else None
        where = torch.from_numpy(positions)[:, None]
        hidden = vlm.forward(torch.from_numpy(ids)[None], where, None, features)
        return positions, vlm.logits(hidden)[0]


def assert_the_processors(
    folder: Path,
    vlm: Any,
    context: TokenContext,
    clips: Sequence[tuple[np.ndarray, Sequence[float]]],
    images: Sequence[np.ndarray] = (),
    text: str | None = None,
) -> None:
    """Ids, patches, grids, positions and logits of a context are those of the processor.

    Args:
        folder: Of the checkpoint.
        vlm: Its adapter.
        context: What we made.
        clips: The frames and times of each clip in the context.
        images: The images in it.
        text: What the processor is given; None: the context's, each clip told as one video again.
    """
    if text is None:
        text = SHOWN.sub(VIDEO, vlm.tokenizer.decode(context.ids))
    assert text.count(VIDEO) == len(clips)
    inputs = processed(folder, text, clips, images)
    assert inputs["input_ids"][0].tolist() == list(context.ids)
    ours = [(vlm.patches(image[None]), image.ndim) for image in context.images]
    for kind, pixels, grid in (
        (4, "pixel_values_videos", "video_grid_thw"),
        (3, "pixel_values", "image_grid_thw"),
    ):
        patches = [one for one, dimensions in ours if dimensions == kind]
        if not patches:
            assert grid not in inputs
            continue
        torch.testing.assert_close(torch.cat(patches), inputs[pixels], atol=1e-6, rtol=0)
        sizes = [image_size(image) for image in context.images if image.ndim == kind]
        rows = [row.tolist() for row in inputs[grid]]
        single = [[1, *row[1:]] for row in rows for _ in range(row[0])]
        assert [list(vlm.image_grid(*size)) for size in sizes] == single
    positions, logits = as_we_do(vlm, context)
    expected, wanted = as_the_model_does(folder, inputs)
    assert np.array_equal(positions, expected)
    torch.testing.assert_close(logits, wanted, atol=2e-5, rtol=0)
