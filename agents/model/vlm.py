"""A vision-language checkpoint as the rest of the code sees it.

One adapter serves the sampler (``sampling.py``) and the learner, so both compute the same function
of the same tokens. It loads any Qwen3-VL / Qwen2.5-VL style checkpoint, from a 1 M parameter one
made here to an 8B one, and needs neither torchvision nor a processor class: frames arrive at their
final size, so an image is only normalised and cut into patches. What is encoded is an image
(H, W, 3), or, where frames are shown as video, a temporal patch (2, H, W, 3): see ``video.py``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    AutoTokenizer,
    GenerationConfig,
)
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.qwen3_vl.modeling_qwen3_vl import apply_rotary_pos_emb_vision

from agents.base import image_size
from agents.model.features import FeatureCache
from agents.model.video import SETTINGS_FILE, CheckpointError, VideoChannel, video_settings

Grid = tuple[int, int, int]
CHECKPOINTS = Path(__file__).parents[1] / "checkpoints"
"""Folder of the checkpoints that ship with the project; each is known by its name."""


FAMILIES = ("qwen3_vl", "qwen2_5_vl")
"""Values of `model_type` whose attention, positions and vision tower are those of this project.

Others of a similar shape would load and train wrongly: their attention does not see which branch of
a packed group a token belongs to, or their images have other positions.
"""


def _refusal(path: str | Path, family: str) -> str:
    return (
        f"{path}: checkpoints of the family {family} are not supported; use a Qwen3-VL or "
        f"Qwen2.5-VL one ({', '.join(FAMILIES)})"
    )


def _family(path: str | Path) -> str:
    """What a local folder says of its family, where transformers does not know it; "" otherwise."""
    config = Path(path) / "config.json"
    try:
        said = json.loads(config.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ""
    return str(said.get("model_type") or "") if isinstance(said, dict) else ""


def rope_positions(
    ids: np.ndarray,
    visual_ids: int | Sequence[int],
    grids: Sequence[Grid],
    merge: int,
    start: int = 0,
) -> tuple[np.ndarray, int]:
    """M-RoPE positions of a token sequence (Qwen2-VL, arXiv 2409.12191, section 2.1).

    Text counts up in all three coordinates; the tokens of an image share one temporal position and
    spread over rows and columns; what follows an image starts after its longest side. Qwen3-VL
    counts each temporal patch of a video as an image: its time stands before it as text.

    Args:
        ids: (n,) token ids, image tokens as runs of ``visual_ids``.
        visual_ids: The ids of image and video tokens.
        grids: For each image, patches in (time, height, width) before merging.
        merge: Side of the square of patches that becomes one token.
        start: Position of the first token.

    Returns:
        (3, n) int64 positions, and the position of the token that would follow.

    Raises:
        ValueError: If image tokens and ``grids`` disagree.
    """
    out = np.empty((3, len(ids)), dtype=np.int64)
    position, i = start, 0
    is_image = np.isin(ids, visual_ids)
    for grid in grids:
        run = int(np.argmax(is_image[i:])) if is_image[i:].any() else -1
        if run < 0:
            raise ValueError(f"{len(grids)} images, but the tokens hold fewer")
        out[:, i : i + run] = position + np.arange(run)
        i, position = i + run, position + run
        rows, columns = grid[1] // merge, grid[2] // merge
        n = rows * columns
        if not is_image[i : i + n].all() or len(ids) < i + n:
            raise ValueError(f"an image needs {n} tokens at index {i}")
        out[0, i : i + n] = position
        out[1, i : i + n] = position + np.repeat(np.arange(rows), columns)
        out[2, i : i + n] = position + np.tile(np.arange(columns), rows)
        i, position = i + n, position + max(rows, columns)
    if is_image[i:].any():
        raise ValueError(f"tokens hold more images than the {len(grids)} given")
    out[:, i:] = position + np.arange(len(ids) - i)
    return out, position + len(ids) - i


def _embed_patches(projection: torch.nn.Conv3d, patches: torch.Tensor) -> torch.Tensor:
    """Apply the tower's patch convolution as the matrix product that it is (stride = kernel)."""
    weight = projection.weight.flatten(1)
    return F.linear(patches.to(weight.dtype), weight, projection.bias)


def _attend_in_frames(
    attention: Any,
    hidden: torch.Tensor,
    cu_seqlens: torch.Tensor,
    position_embeddings: tuple[torch.Tensor, torch.Tensor],
    **arguments: Any,
) -> torch.Tensor:
    """The tower's attention within frames (or windows): one call where all have one length.

    transformers' own makes a call for each frame; it is taken where lengths differ, and for other
    kernels than torch's.

    Args:
        attention: The layer.
        hidden: (tokens of all frames, width).
        cu_seqlens: (frames + 1,) where each frame begins, and the end of the last.
        position_embeddings: Cosines and sines (tokens, width of a head).
        arguments: What else transformers passes.
    """
    lengths = cu_seqlens.diff().tolist()
    if len(set(lengths)) != 1 or attention.config._attn_implementation != "sdpa":
        return type(attention).forward(
            attention, hidden, cu_seqlens, position_embeddings=position_embeddings, **arguments
        )
    query, key, value = attention.qkv(hidden).unflatten(1, (3, attention.num_heads, -1)).unbind(1)
    query, key = apply_rotary_pos_emb_vision(query, key, *position_embeddings)
    by_frame = (len(lengths), lengths[0])
    query, key, value = (x.unflatten(0, by_frame).transpose(1, 2) for x in (query, key, value))
    output = F.scaled_dot_product_attention(query, key, value, scale=attention.scaling)
    return attention.proj(output.transpose(1, 2).reshape(len(hidden), -1))


class VisionLanguageModel:
    """A checkpoint with its tokenizer and image geometry.

    Attributes:
        model: The Hugging Face module (``...ForConditionalGeneration``).
        tokenizer: Its tokenizer.
        visual_ids: Tokens in whose place features stand: of an image, of a temporal patch.
        video_settings: Of the checkpoint's video processor; None where it says nothing of one.
        forbidden_ids: Vision tokens, which a policy may never sample: their features do not exist.
        features: Features of the images looked at so far, for as long as the tower stays as it is.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        image_processor: Any,
        video: Mapping[str, Any] | None = None,
    ) -> None:
        config = model.config
        self.model = model
        self.tokenizer = tokenizer
        self.image_processor = image_processor
        self.video_settings = video
        self.image_pad_id: int = config.image_token_id
        self.visual_ids: tuple[int, ...] = (self.image_pad_id, config.video_token_id)
        self.vision_start_id: int = config.vision_start_token_id
        self.vision_end_id: int = config.vision_end_token_id
        self.forbidden_ids: tuple[int, ...] = tuple(
            sorted(
                {
                    self.image_pad_id,
                    config.video_token_id,
                    self.vision_start_id,
                    self.vision_end_id,
                }
            )
        )
        self.patch: int = config.vision_config.patch_size
        self.merge: int = config.vision_config.spatial_merge_size
        self.hidden_size: int = config.text_config.hidden_size
        mean, std = image_processor.image_mean, image_processor.image_std
        self._mean = torch.tensor(mean).view(3, 1, 1) * 255.0
        self._inverse_std = 1.0 / (torch.tensor(std).view(3, 1, 1) * 255.0)
        visual = model.model.visual
        visual.patch_embed.forward = partial(_embed_patches, visual.patch_embed.proj)
        for block in visual.blocks:
            block.attn.forward = partial(_attend_in_frames, block.attn)
        self.features = FeatureCache(self)

    @classmethod
    def load(
        cls, path: str | Path, dtype: str = "float32", device: str = "cpu"
    ) -> VisionLanguageModel:
        """Load a checkpoint: one that ships with the project, a local folder, or a hub name.

        Raises:
            FileNotFoundError: If there is no such checkpoint.
            CheckpointError: If it is not a Qwen-VL style one.
        """
        if (CHECKPOINTS / path).is_dir():
            path = CHECKPOINTS / path
        try:
            config = AutoConfig.from_pretrained(path)
        except (OSError, ValueError) as error:  # ValueError: a folder without a config.json
            if family := _family(path):
                raise CheckpointError(_refusal(path, family)) from error
            shipped = ", ".join(sorted(folder.name for folder in CHECKPOINTS.glob("*/")))
            raise FileNotFoundError(
                f"no checkpoint {path}: give a folder with a config.json, a hub name that can be "
                f"reached, or one that ships with the project ({shipped})"
            ) from error
        if not hasattr(config, "vision_config") or not hasattr(config, "image_token_id"):
            raise CheckpointError(
                f"{path}: a {config.model_type} checkpoint has no Qwen-VL vision tower; "
                "use a Qwen3-VL or Qwen2.5-VL style checkpoint"
            )
        if config.model_type not in FAMILIES:
            raise CheckpointError(_refusal(path, config.model_type))
        if device == "meta":  # tokenizer and image geometry alone: an engine holds the weights
            with torch.device("meta"):
                model: Any = AutoModelForImageTextToText.from_config(config)
            with suppress(OSError):  # not every checkpoint has one
                model.generation_config = GenerationConfig.from_pretrained(path)
        else:
            model = AutoModelForImageTextToText.from_pretrained(
                path, dtype=getattr(torch, dtype), attn_implementation="sdpa"
            )
        tokenizer = AutoTokenizer.from_pretrained(path)
        images = Qwen2VLImageProcessorPil.from_pretrained(path)
        return cls(model.to(device).eval(), tokenizer, images, video_settings(path))

    def around(self, model: Any) -> VisionLanguageModel:
        """The same tokenizer and settings around other weights of the same kind."""
        settings = self.image_processor, self.video_settings
        return VisionLanguageModel(model, self.tokenizer, *settings)

    @cached_property
    def video(self) -> VideoChannel:
        """How frames are shown as video.

        Raises:
            CheckpointError: The checkpoint cannot take them so.
        """
        return VideoChannel(self.model, self.video_settings)

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return next(self.model.parameters()).device

    @property
    def language_model(self) -> Any:
        """The decoder without its output head."""
        return self.model.model.language_model

    def image_grid(self, height: int, width: int) -> Grid:
        """Patches of an image, (1, height, width) in patches.

        Raises:
            ValueError: If a side is not a multiple of patch x merge pixels.
        """
        unit = self.patch * self.merge
        if height % unit or width % unit or not height or not width:
            raise ValueError(
                f"frames of {height} x {width} pixels do not fit this checkpoint: "
                f"set frame_size to multiples of {unit}"
            )
        return 1, height // self.patch, width // self.patch

    def image_token_count(self, height: int, width: int) -> int:
        """Tokens that an image takes in the sequence."""
        _, rows, columns = self.image_grid(height, width)
        return rows * columns // self.merge**2

    def patches(self, images: np.ndarray) -> torch.Tensor:
        """The tower's input (N * patches, dim) of equal-sized uint8 images (N, H, W, 3).

        The same of temporal patches (N, T, H, W, 3), where an image is repeated T times.
        """
        if images.ndim == 5:
            return self._temporal_patches(images)
        n, height, width, _ = images.shape
        _, rows, columns = self.image_grid(height, width)
        m, p, t = self.merge, self.patch, self.model.config.vision_config.temporal_patch_size
        x = torch.from_numpy(np.ascontiguousarray(images)).to(self.device)
        x = x.reshape(n, rows // m, m, p, columns // m, m, p, 3)
        x = x.permute(0, 1, 4, 2, 5, 7, 3, 6).float()
        x = x.sub_(self._mean.to(x.device)).mul_(self._inverse_std.to(x.device)).unsqueeze(6)
        x = x.expand(-1, -1, -1, -1, -1, -1, t, -1, -1)
        return x.reshape(n * rows * columns, 3 * t * p * p)

    def _temporal_patches(self, frames: np.ndarray) -> torch.Tensor:
        n, t, height, width, _ = frames.shape
        _, rows, columns = self.image_grid(height, width)
        m, p, video = self.merge, self.patch, self.video
        x = torch.from_numpy(np.ascontiguousarray(frames)).to(self.device).float()
        x = x.sub_(video.mean.to(x.device)).mul_(video.inverse_std.to(x.device))
        x = x.reshape(n, t, rows // m, m, p, columns // m, m, p, 3)
        x = x.permute(0, 2, 5, 3, 6, 8, 1, 4, 7)
        return x.reshape(n * rows * columns, 3 * t * p * p)

    def encode_images(self, images: Sequence[np.ndarray]) -> list[torch.Tensor]:
        """Run the vision tower once over all images.

        Args:
            images: uint8 (H, W, 3) arrays, or temporal patches (T, H, W, 3); sizes may differ.

        Returns:
            For each image (tokens, hidden * (1 + deep-stack levels)), deep-stack features
            concatenated behind the main ones, with gradients if they are enabled.
        """
        if not images:
            return []
        order: dict[tuple[int, ...], list[int]] = {}
        for i, image in enumerate(images):
            order.setdefault(image.shape, []).append(i)
        flat = [i for members in order.values() for i in members]
        parts = [self.patches(np.stack([images[i] for i in members])) for members in order.values()]
        pixels = parts[0] if len(parts) == 1 else torch.cat(parts)
        grids = torch.tensor([self.image_grid(*image_size(images[i])) for i in flat])
        output = self.model.model.get_image_features(
            pixels, grids.to(self.device), return_dict=True
        )
        levels = [output.pooler_output, *(getattr(output, "deepstack_features", None) or [])]
        rows = torch.cat([torch.cat(tuple(level)) for level in levels], dim=-1)
        features: list[Any] = [None] * len(images)
        for i, part in zip(flat, rows.split([len(part) for part in levels[0]]), strict=True):
            features[i] = part
        return features

    def rope_positions(
        self, ids: np.ndarray, grids: Sequence[Grid], start: int = 0
    ) -> tuple[np.ndarray, int]:
        """M-RoPE positions (3, n) of ``ids`` and the next position; see :func:`rope_positions`."""
        return rope_positions(ids, self.visual_ids, grids, self.merge, start)

    def forward(
        self,
        ids: torch.Tensor,
        positions: torch.Tensor,
        mask: torch.Tensor | None,
        features: torch.Tensor | None = None,
        cache: Any = None,
        **attention: Any,
    ) -> torch.Tensor:
        """Run the decoder.

        Args:
            ids: (B, S) token ids.
            positions: (3, B, S) M-RoPE positions.
            mask: (B, 1, S, T) bool, true where a query may look; None for a plain causal mask.
            features: (N, hidden * (1 + levels)) features in row-major order of the image and
                video tokens in ``ids``; None when there are none.
            cache: A transformers ``Cache`` that is read and extended in place.
            attention: Further keyword arguments for the attention function.

        Returns:
            (B, S, hidden) hidden states after the final norm.
        """
        embeds = self.model.get_input_embeddings()(ids)
        extra: dict[str, Any] = {}
        if features is not None and len(features):
            image_id, video_id = self.visual_ids
            at = (ids == image_id) | (ids == video_id)
            main, *deep = features.to(embeds.dtype).split(self.hidden_size, dim=-1)
            embeds = embeds.masked_scatter(at.unsqueeze(-1), main)
            if deep:
                extra = {"visual_pos_masks": at, "deepstack_visual_embeds": deep}
        return self.language_model(
            inputs_embeds=embeds,
            position_ids=positions,
            attention_mask=mask,
            past_key_values=cache,
            use_cache=cache is not None,
            **extra,
            **attention,
        ).last_hidden_state

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Vocabulary logits (..., V) of hidden states (..., hidden)."""
        return self.model.lm_head(hidden)

    def save(self, folder: str | Path, state: dict[str, torch.Tensor] | None = None) -> None:
        """Write the checkpoint (safetensors, tokenizer, settings of images and video).

        This process writes it, whichever it is: transformers alone would let the first one of a
        job do so, which in the disaggregated layout is not the one that saves.

        Args:
            folder: Where.
            state: Weights by name; None takes the model's.
        """
        self.model.should_save_on_this_rank = lambda is_main_process: is_main_process
        try:
            self.model.save_pretrained(folder, state_dict=state)
        finally:
            del self.model.should_save_on_this_rank
        self.tokenizer.save_pretrained(folder)
        self.image_processor.save_pretrained(folder)
        if self.video_settings is not None:
            text = json.dumps(dict(self.video_settings), indent=2) + "\n"
            (Path(folder) / SETTINGS_FILE).write_text(text, encoding="utf-8")
