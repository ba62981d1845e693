"""Costs: parameters and floating-point operations of a Qwen3-VL, counted from its shape.

What `paravt plan` (`train/lab/plan/plan.py`) and `benchmarks/gpu.py` share: the counts are exact
for the model and for what the learner computes, and hold no speed of any machine.

Command: `pytest tests/lab/test_plan.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Shape:
    """Sizes of a Qwen3-VL."""

    name: str
    hidden: int
    layers: int
    heads: int
    key_heads: int
    head: int
    intermediate: int
    vocabulary: int
    tied: bool
    vision_hidden: int
    vision_layers: int
    vision_intermediate: int
    levels: int
    """Deep-stack levels beside the main features."""
    patch: int = 16
    merge: int = 2
    positions: int = 2304

    @property
    def block(self) -> int:
        """Parameters of a decoder block."""
        attention = 2 * self.hidden * self.head * (self.heads + self.key_heads)
        return attention + 3 * self.hidden * self.intermediate + 2 * self.hidden + 2 * self.head

    @property
    def root(self) -> int:
        """Parameters outside of the blocks: embeddings, output head, mergers, the last norm."""
        merged = self.vision_hidden * self.merge**2
        merger = merged * (merged + 1) + (merged + 1) * self.hidden
        norms = 2 * self.vision_hidden + self.levels * 2 * merged
        patches = self.vision_hidden * (3 * 2 * self.patch**2 + 1 + self.positions)
        words = self.vocabulary * self.hidden * (1 if self.tied else 2)
        return words + (1 + self.levels) * merger + norms + patches + self.hidden

    @property
    def vision_block(self) -> int:
        """Parameters of a block of the vision tower."""
        d, i = self.vision_hidden, self.vision_intermediate
        return 4 * d * d + 4 * d + 2 * d * i + i + d + 4 * d

    @property
    def parameters(self) -> int:
        """All parameters."""
        return self.layers * self.block + self.vision_layers * self.vision_block + self.root

    def adapters(self, rank: int) -> int:
        """Parameters of LoRA adapters of a rank on every linear layer of the decoder."""
        d, i = self.hidden, self.intermediate
        queries, keys = self.heads * self.head, self.key_heads * self.head
        sides = 2 * (d + queries) + 2 * (d + keys) + 3 * (d + i)
        return self.layers * rank * sides


_TOWER_L = {"vision_hidden": 1024, "vision_layers": 24, "vision_intermediate": 4096, "levels": 3}
_TOWER_SO = {"vision_hidden": 1152, "vision_layers": 27, "vision_intermediate": 4304, "levels": 3}
SHAPES = {
    "2b": Shape("2b", 2048, 28, 16, 8, 128, 6144, 151936, True, **_TOWER_L),
    "4b": Shape("4b", 2560, 36, 32, 8, 128, 9728, 151936, True, **_TOWER_L),
    "8b": Shape("8b", 4096, 36, 32, 8, 128, 12288, 151936, False, **_TOWER_SO),
}
"""Published Qwen3-VL shapes."""


@dataclass(frozen=True)
class Setting:
    """What is planned."""

    frames: int = 64
    group: int = 8
    groups: int = 8
    completion: int = 512
    text: int = 300
    """Prompt tokens that are not frames."""
    size: tuple[int, int] = (160, 288)
    """Height and width of a frame, in pixels."""
    gpus: int = 1
    sequence: int = 1
    servers: int = 0
    lora: int = 0
    """Rank of the adapters; 0 trains everything."""
    freeze_vision: bool = False
    reference: bool = True
    recompute: bool = True
    offload: bool = False
    budget: int = 16384
    """`packing.micro_batch_tokens`: a longer tree is cut into several with the same prompt."""
    crop_frames: int = 0
    """Frames of crops in a rollout's own conversation (`agent.evidence=frames`)."""
    feature_cache_gib: float = 2.0
    """`agent.feature_cache_gib`."""
    kv_gib: float = 0.0
    """`agent.vllm.kv_cache_gib` where each GPU that plays has a vLLM engine; 0: transformers."""
    sleeps: bool = True
    """Whether that engine leaves its memory to the update (`agent.vllm.sleep`)."""
    plays: bool = True
    """Whether rollouts are drawn on these cards: not where a server elsewhere does, nor in SFT."""
    beside: int = 0
    """Tokens of the readings that a turn of a rollout holds beside its own conversation."""
    reshard: bool = True
    """`parallel.reshard`."""
    width: int = 2
    """Bytes of a number of the policy: 2 in bfloat16, 4 in float32."""
    together: int = 1
    """Frames that the tower takes as one: 2 where they are shown as video (`agent.frames_as`)."""

    def shown(self, frames: int) -> int:
        """Images, or temporal patches, that so many frames are."""
        return -(-frames // self.together)

    def frame_tokens(self, shape: Shape) -> int:
        """Tokens of an image or a temporal patch, with its time and its two marks."""
        side = shape.patch * shape.merge
        return (self.size[0] // side) * (self.size[1] // side) + 6

    def prompt(self, shape: Shape) -> int:
        """Tokens of the prompt."""
        return self.text + self.shown(self.frames) * self.frame_tokens(shape)

    def branch(self, shape: Shape) -> int:
        """Tokens of a rollout behind the prompt."""
        return self.completion + self.shown(self.crop_frames) * self.frame_tokens(shape)

    def whole(self, shape: Shape) -> int:
        """Tokens of a group's tree where it is not cut."""
        return self.prompt(shape) + self.group * self.branch(shape)


def decoder_flops(shape: Shape, tokens: int, pairs: float, scored: int) -> float:
    """Operations of a forward pass: 2 a weight and token, 4 a head's channel and attended pair.

    Args:
        shape: The model.
        tokens: Tokens of the pass.
        pairs: Pairs of tokens that attend to each other.
        scored: Tokens whose vocabulary logits are computed.
    """
    matrices = 2.0 * shape.layers * shape.block * tokens
    attention = 4.0 * shape.layers * shape.heads * shape.head * pairs
    return matrices + attention + 2.0 * shape.hidden * shape.vocabulary * scored


def vision_flops(shape: Shape, frames: int, size: tuple[int, int]) -> float:
    """Operations of a forward pass of the tower; a frame attends to itself."""
    patches = (size[0] // shape.patch) * (size[1] // shape.patch)
    weights = shape.vision_layers * shape.vision_block
    merged = shape.vision_hidden * shape.merge**2
    merger = (1 + shape.levels) * merged * (merged + shape.hidden) / shape.merge**2
    attention = 4.0 * shape.vision_layers * shape.vision_hidden * patches**2
    return frames * (2.0 * patches * (weights + merger) + attention)


def trees(shape: Shape, setting: Setting) -> list[int]:
    """Rollouts of each tree that the learner makes of a group (`train/packing/samples.py`)."""
    room = (setting.budget - setting.prompt(shape)) // setting.branch(shape)
    together = min(setting.group, max(1, room))
    whole, rest = divmod(setting.group, together)
    return [together] * whole + [rest] * bool(rest)


def _pairs(shape: Shape, setting: Setting, prompts: int) -> float:
    """Pairs of tokens that attend to each other in a group with so many prompts."""
    p, b = setting.prompt(shape), setting.branch(shape)
    return prompts * p * p / 2 + setting.group * (p * b + b * b / 2)


def group_flops(shape: Shape, setting: Setting, packed: bool = True) -> float:
    """Forward operations of one group, the prompt once or once a completion."""
    p, b, g = setting.prompt(shape), setting.branch(shape), setting.group
    prompts = 1 if packed else g
    return decoder_flops(
        shape, prompts * p + g * b, _pairs(shape, setting, prompts), g * setting.completion
    ) + seen_flops(shape, setting, packed)


def seen_flops(shape: Shape, setting: Setting, packed: bool = True) -> float:
    """Forward operations of the tower for one group: the overview once, or once a completion."""
    overviews = 1 if packed else setting.group
    crops = setting.group * setting.shown(setting.crop_frames)
    return vision_flops(shape, overviews * setting.shown(setting.frames) + crops, setting.size)


def update_flops(shape: Shape, setting: Setting, useful: bool = False) -> float:
    """Operations of an update on one group, over the trees that it is cut into.

    A backward pass is worth two forward passes. Under adapters the matrices have no gradient, so
    theirs is worth one; attention has no weights and keeps two. A frozen tower has none. The
    reference is a forward pass more, with a tower of its own where it is another copy.

    Args:
        shape: The model.
        setting: What is computed; `budget` cuts the group.
        useful: Without what is computed twice (`recompute`): what MFU counts.
    """
    again = setting.recompute and not useful
    back = 1 if setting.lora else 2
    frozen = setting.freeze_vision or setting.lora
    tower = (1 if frozen else 3 + again) + (setting.reference and not setting.lora)
    total = 0.0
    for members in trees(shape, setting):
        tree = replace(setting, group=members)
        seen = seen_flops(shape, tree)
        attention = decoder_flops(shape, 0, _pairs(shape, tree, 1), 0)
        decoder = group_flops(shape, tree) - seen
        total += (1 + back + again + setting.reference) * decoder + (2 - back) * attention
        total += tower * seen
    return total


def kv_bytes(shape: Shape, tokens: float, width: int = 2) -> float:
    """Bytes of the keys and values of that many tokens, in numbers of `width` bytes."""
    return 2.0 * width * shape.layers * shape.key_heads * shape.head * tokens
