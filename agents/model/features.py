"""Image features, computed once for as long as the vision tower stays as it is.

Shared by whatever runs the tower of one policy: the sampler, and the learner where the tower is
frozen. An image that a rollout has looked at is then not encoded again for the update, nor by an
evaluation that follows; a training run clears it before each step (`train/loop/state.py`). Never
stale: every look-up compares the tower's tensors with those that the features were made by, and
forgets all of them if one was replaced or written to.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch

from agents.base import image_key


class Tower(Protocol):
    """What has images and encodes them (`agents.model.vlm.VisionLanguageModel`)."""

    model: Any

    def encode_images(self, images: Sequence[np.ndarray]) -> list[torch.Tensor]:
        """Features of each image."""


class FeatureCache:
    """Features by image.

    Args:
        vlm: Whose vision tower encodes.
        limit: Bytes of the features that are kept, at most; the oldest go first.

    Attributes:
        held: Bytes that are kept now.
        encoded: Images that went through the tower so far.
        reused: Images whose features were there.
    """

    def __init__(self, vlm: Tower, limit: float = 2 * 2**30) -> None:
        self.vlm, self.limit = vlm, limit
        self.encoded = self.reused = self.held = 0
        self._features: OrderedDict[bytes, torch.Tensor] = OrderedDict()
        self._made_by: list[tuple[int, int, int]] = []
        self._tensors: list[torch.nn.Parameter] = []

    @property
    def frozen(self) -> bool:
        """Whether no tensor of the tower is trained."""
        return not any(p.requires_grad for p in self.vlm.model.model.visual.parameters())

    def clear(self) -> None:
        """Forget everything."""
        self._features.clear()
        self.held = 0

    def weights_changed(self) -> None:
        """The policy was updated: forget what its tower may have to do with."""
        if not self.frozen:
            self.clear()

    def encode(self, images: Sequence[np.ndarray]) -> list[torch.Tensor]:
        """Features (tokens, D * (1 + levels)) of each image, without a gradient."""
        tensors = list(self.vlm.model.model.visual.parameters())
        # torch counts the writes to each tensor in `_version`
        made_by = [(id(p), p.data_ptr(), p._version) for p in tensors]
        if made_by != self._made_by:
            self.clear()
            self._made_by, self._tensors = made_by, tensors  # held, so that no id is used again
        keys = [image_key(image) for image in images]
        missing = {k: i for k, i in zip(keys, images, strict=True) if k not in self._features}
        # Not `inference_mode`, whose tensors the learner could not use.
        with torch.inference_mode(False), torch.no_grad():
            encoded = self.vlm.encode_images(list(missing.values()))
        fresh = dict(zip(missing, encoded, strict=True))
        self.encoded += len(fresh)
        self.reused += len(keys) - len(fresh)
        features = [fresh[k] if k in fresh else self._features[k] for k in keys]
        self._keep(fresh)
        return features

    def _keep(self, fresh: Mapping[bytes, torch.Tensor]) -> None:
        for key, one in fresh.items():
            if one.nbytes > self.limit:
                continue
            # One image's features are a view of its batch's, which would all stay.
            with torch.inference_mode(False):
                self._features[key] = one.clone()
            self.held += one.nbytes
            while self.held > self.limit:
                self.held -= self._features.popitem(last=False)[1].nbytes
