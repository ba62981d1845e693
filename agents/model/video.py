"""The video channel of a Qwen3-VL checkpoint: frames in pairs, each pair behind its time.

Used by `agents/text/context.py` through `VisionLanguageModel.video`, where `agent.frames_as` is
`video`. A clip becomes what the model's own processor makes of the same frames, sampled already and
with their true times: two frames a temporal patch, the last one of an odd count repeated, `<t
seconds>` (the mean of the two times) before each patch, and marks around the whole. A temporal
patch is an array (2, H, W, 3) wherever an image is one of (H, W, 3): in the feature cache, in
packing and between processes, so it is never cut.

Tests: `pytest tests/policies/test_video_channel.py`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers.models.qwen3_vl.video_processing_qwen3_vl import Qwen3VLVideoProcessor
from transformers.utils import cached_file

from agents.text.clips import stamps, temporal_patches

SETTINGS_FILE = "video_preprocessor_config.json"
PROCESSOR_FILE, PROCESSOR_KEY = "processor_config.json", "video_processor"
_warned: set[str] = set()


class CheckpointError(OSError, ValueError):
    """A checkpoint that is there and of no use; the message says what to give instead."""


def video_settings(path: str | Path) -> dict[str, Any] | None:
    """What a checkpoint says of its video processor; None where it says nothing."""
    for name, key in ((SETTINGS_FILE, ""), (PROCESSOR_FILE, PROCESSOR_KEY)):
        found = cached_file(
            str(path),
            name,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
        )
        if found is None:
            continue
        settings = json.loads(Path(found).read_text(encoding="utf-8"))
        settings = settings.get(key) if key else settings
        if isinstance(settings, dict):
            return settings
    return None


class VideoChannel:
    """How a checkpoint takes video.

    Args:
        model: The Hugging Face model.
        settings: Of its video processor.

    Attributes:
        temporal: Frames of a temporal patch.
        pad_id: The token that stands for a patch's features.
        mean: Of each colour, on the scale of 0 to 255, (3,).
        inverse_std: 1 / standard deviation on that scale, (3, 1, 1).
        bounds: Pixels of a clip (frames x height x width), least and most, between which the
            model's own processor resizes nothing.

    Raises:
        CheckpointError: The model has another video channel, or the settings are not the model's.
    """

    def __init__(self, model: Any, settings: Mapping[str, Any] | None) -> None:
        config = model.config
        if not config.model_type.startswith("qwen3_vl"):
            raise CheckpointError(
                f"agent.frames_as=video needs a Qwen3-VL checkpoint: a {config.model_type} one "
                "writes no times into a video; set agent.frames_as=image"
            )
        if settings is None:
            raise CheckpointError(
                f"agent.frames_as=video, but the checkpoint has no video processor: it lacks "
                f"{SETTINGS_FILE} (or {PROCESSOR_KEY!r} in {PROCESSOR_FILE}). Copy that file from "
                "the model that the checkpoint was made from, or set agent.frames_as=image"
            )
        kind = settings.get("video_processor_type", Qwen3VLVideoProcessor.__name__)
        if kind != Qwen3VLVideoProcessor.__name__:
            raise CheckpointError(
                f"the checkpoint's video settings are those of a {kind}, not of a "
                f"{Qwen3VLVideoProcessor.__name__}: take the model's own {SETTINGS_FILE}"
            )
        processor: Any = Qwen3VLVideoProcessor.from_dict(dict(settings))
        vision = config.vision_config
        for name, own in (
            ("patch_size", vision.patch_size),
            ("merge_size", vision.spatial_merge_size),
            ("temporal_patch_size", vision.temporal_patch_size),
        ):
            if getattr(processor, name) != own:
                raise CheckpointError(
                    f"the checkpoint's video settings have {name}={getattr(processor, name)} and "
                    f"its vision tower {own}: take the model's own {SETTINGS_FILE}"
                )
        self.temporal: int = vision.temporal_patch_size
        self.pad_id: int = config.video_token_id
        self.mean = torch.tensor(processor.image_mean) * 255.0
        self.inverse_std = 1.0 / (torch.tensor(processor.image_std) * 255.0)
        self.bounds = int(processor.size["shortest_edge"]), int(processor.size["longest_edge"])

    def stamps(self, times: Sequence[float]) -> list[str]:
        """The text before each temporal patch; see :func:`stamps`."""
        return stamps(times, self.temporal)

    def patches(self, frames: np.ndarray) -> list[np.ndarray]:
        """A clip's temporal patches; see :func:`temporal_patches`.

        Frames keep the size that they have. Of a clip outside `bounds`, which the model's own
        processor would resize, a warning is given once.
        """
        count, height, width = frames.shape[:3]
        pixels = -(-count // self.temporal) * self.temporal * height * width
        least, most = self.bounds
        if not least <= pixels <= most:
            _warn(count, height, width, "most" if pixels > most else "least", self.bounds)
        return temporal_patches(frames, self.temporal)


def _warn(count: int, height: int, width: int, which: str, bounds: tuple[int, int]) -> None:
    """Say once for each bound that a clip is beyond it."""
    if which in _warned:
        return
    _warned.add(which)
    least, most = bounds
    print(
        f"paravt: warning: a clip of {count} frames of {height} x {width} pixels is outside what "
        f"the checkpoint's video settings allow ({least} to {most} pixels a clip); its own "
        "processor would resize it, here it stays as env.frame_size says. Said once",
        file=sys.stderr,
        flush=True,
    )
