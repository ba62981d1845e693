"""The plan of a run: memory of each GPU and seconds of each step, from shapes alone.

Before a run is started, to choose how many GPUs and how many frames. Counts weights, optimizer,
activations and floating-point operations of the learner as `train/` implements it
(`train/lab/plan/costs.py`), and turns them into seconds by constants, some of which
`benchmarks/gpu.py` measures (`train/lab/plan/constants.py`). Memory is that of three moments: the
update (the sum of what it takes at most), playing on the same card, and a card that only plays.

The command, and the check against measured rows, are in `train/lab/plan/report.py`. Tests: `pytest
tests/lab/test_plan.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from train.common.errors import ConfigError
from train.lab.plan.constants import GIB, Constants
from train.lab.plan.costs import Setting, Shape, group_flops, kv_bytes, trees, update_flops

LOGIT_CHUNK, LOGIT_COPIES = 4096, 2.5
"""Tokens whose logits exist at the same time, and how often, counted in fp32 (`logprobs.py`): the
policy's own in bf16, their log-softmax, and the gradient that is made of it."""
HELD = ("policy that plays", "fp32 weights", "Adam", "reference", "feature cache")
"""What a learner holds on its GPU between two updates."""


@dataclass(frozen=True)
class Plan:
    """Predicted bytes of each GPU that trains, and seconds of a step.

    Attributes:
        setting: What is planned.
        memory: Bytes at the worst moment of the update, by what takes them.
        seconds: Of the parts of a step.
        limit: Bytes that there are.
        playing: Bytes while the same GPU plays; 0 where it does not.
        apart: Bytes on a GPU that only plays; 0 where there is none.
        rows: Rollouts that a GPU plays at a time.
        keys: Bytes of what samples them: keys and values, or a vLLM engine.
        trees: Rollouts of each tree that the learner makes of a group.
        repeats: Operations of the update, as a multiple of those over whole groups.
    """

    setting: Setting
    memory: dict[str, float]
    seconds: dict[str, float]
    limit: float
    playing: float
    apart: float
    rows: int
    keys: float
    trees: list[int]
    repeats: float

    @property
    def total(self) -> float:
        """Bytes at the worst moment of the update."""
        return sum(self.memory.values())

    @property
    def fits(self) -> bool:
        """Whether the update and the play before it are in a card."""
        return max(self.total, self.playing, self.apart) <= self.limit


@dataclass(frozen=True)
class _Share:
    """What one of the GPUs that train does in an update.

    Attributes:
        trainers: GPUs that train.
        trained: Parameters that have a gradient, of the whole model.
        groups: Groups that the GPUs of one sequence get.
        cut: Rollouts of each tree of a group.
        longest: Tokens of the largest tree.
        at_once: Trees of one micro-batch.
    """

    trainers: int
    trained: int
    groups: int
    cut: list[int]
    longest: int
    at_once: int

    @property
    def micro_batches(self) -> int:
        """Forward and backward passes of an update."""
        return -(-self.groups * len(self.cut) // self.at_once)


def predict(shape: Shape, setting: Setting, constants: Constants) -> Plan:
    """Memory and time of a setting.

    Raises:
        ConfigError: The GPUs cannot be laid out so.
    """
    share = _share(shape, setting, constants)
    rows, sampler = _sampling(shape, setting)
    engine = sampler if setting.kv_gib else 0.0
    memory = _memory(shape, setting, constants, share, engine)
    playing = apart = 0.0
    if setting.servers:
        cache = 0.0 if engine else setting.feature_cache_gib * GIB
        apart = setting.width * shape.parameters + cache + sampler
    elif setting.plays:
        playing = sum(memory[name] for name in HELD) + sampler
    seconds = _seconds(shape, setting, constants, share, rows)
    update = update_flops(shape, setting)
    once = update_flops(shape, replace(setting, budget=setting.whole(shape)))
    return Plan(
        setting, memory, seconds, constants.card - constants.reserve,
        playing, apart, rows, sampler, share.cut, update / once,
    )  # fmt: skip


def _share(shape: Shape, setting: Setting, constants: Constants) -> _Share:
    """How an update is divided; refuses what cannot be."""
    for name in ("gpus", "group", "groups", "completion", "sequence"):
        if getattr(setting, name) < 1:
            raise ConfigError(f"--{name} {getattr(setting, name)}: at least 1 is needed")
    least = min(setting.frames, setting.crop_frames, setting.servers, setting.lora)
    if least < 0 or constants.card <= 0:
        raise ConfigError("--frames, --servers, --lora and --card-gb may not be negative")
    trainers = setting.gpus - setting.servers
    if trainers < 1 or trainers % setting.sequence:
        raise ConfigError(
            f"--sequence {setting.sequence} does not divide the {trainers} GPUs that train"
        )
    trained = shape.adapters(setting.lora) if setting.lora else shape.parameters
    if setting.freeze_vision and not setting.lora:
        trained -= shape.vision_layers * shape.vision_block
    groups = -(-setting.groups // (trainers // setting.sequence))
    cut = trees(shape, setting)
    longest = setting.prompt(shape) + cut[0] * setting.branch(shape)
    at_once = min(groups * len(cut), max(1, setting.budget // longest))
    return _Share(trainers, trained, groups, cut, longest, at_once)


def _memory(
    shape: Shape, setting: Setting, constants: Constants, share: _Share, engine: float
) -> dict[str, float]:
    """Bytes of a GPU at the worst moment of the update, by what takes them.

    `engine` is what a vLLM engine on the card takes while it plays; 0 without one.
    """
    n, width, wide = shape.parameters, float(setting.width), shape.hidden
    alone, frozen = setting.gpus == 1, bool(setting.freeze_vision or setting.lora)
    on_card = 0.0 if setting.offload and not alone else 1.0
    base = 0.0 if alone else 4.0 * n / share.trainers
    crops = share.cut[0] * setting.shown(setting.crop_frames)
    frames = share.at_once * (setting.shown(setting.frames) + crops)
    tokens = share.at_once * share.longest / setting.sequence
    kept = tokens * wide * width * (shape.layers + constants.kept if setting.recompute
                                    else shape.layers * constants.kept)  # fmt: skip
    patches = (
        frames
        / setting.sequence
        * (setting.size[0] // shape.patch)
        * (setting.size[1] // shape.patch)
    )
    layers = shape.vision_layers
    tower = width * patches * shape.vision_hidden * (
        constants.kept if frozen
        else layers + constants.kept if setting.recompute else layers * constants.kept
    )  # fmt: skip
    features = width * 2 * frames * setting.frame_tokens(shape) * wide * (1 + shape.levels)
    cached = frozen or not setting.servers
    copied = 1.0 if setting.reference and not setting.lora else 0.0
    # FSDP frees what it gathers, but for the root's, in the reference for good.
    gathered = width * (shape.root if setting.reshard else n)
    whole = 0.0 if setting.lora else (width + 4.0) * (shape.root + shape.block)
    return {
        "policy that plays": width * n,
        "fp32 weights": on_card * (base or 4.0 * share.trained * (width < 4 or setting.lora > 0)),
        "gradients": on_card * 4.0 * share.trained / share.trainers,
        "Adam": on_card * 8.0 * share.trained / share.trainers,
        "gathered weights": 0.0 if alone
        else gathered + 2 * width * shape.block * setting.reshard,
        "unsharded gradients": 0.0 if alone else whole,
        "reference": copied
        * (on_card * width * n / share.trainers + (0.0 if alone else gathered)),
        "activations": kept,
        "vision tower": tower,
        "image features": features,
        "feature cache": setting.feature_cache_gib * GIB if cached else 0.0,
        "logits": LOGIT_COPIES * 4.0 * shape.vocabulary
        * min(LOGIT_CHUNK, share.at_once * share.cut[0] * setting.completion),
        "vLLM, awake": 0.0 if setting.sleeps or setting.servers else engine,
    }  # fmt: skip


def _seconds(
    shape: Shape, setting: Setting, constants: Constants, share: _Share, rows: int
) -> dict[str, float]:
    """Seconds of the parts of a step in which a GPU samples so many rollouts at a time."""
    n, alone = shape.parameters, setting.gpus == 1
    # Weights travel in the policy's precision, gradients in fp32.
    gathers = 1 + setting.reshard * (1 + setting.reference)
    traffic = share.micro_batches * (gathers * setting.width * n + 4.0 * share.trained)
    held = setting.prompt(shape) + setting.branch(shape) / 2
    read = setting.width * n + rows * kv_bytes(shape, held, setting.width)
    played = setting.plays * rows / setting.group
    update = update_flops(shape, setting)
    return {
        "prefill": played * group_flops(shape, setting) / constants.flops,
        "decode": setting.plays * setting.completion * read / constants.bandwidth,
        "update": share.groups * update / setting.sequence / constants.flops,
        "gathering weights": 0.0 if alone else traffic / constants.link,
        "publishing": 0.0 if alone else 4.0 * n / constants.link,
    }


def _sampling(shape: Shape, setting: Setting) -> tuple[int, float]:
    """Rollouts that a card plays at a time, and the bytes of what samples them there.

    Groups are whole, so transformers holds at least one; nothing bounds it further (`run.lanes`
    divides the same rows). vLLM has `agent.vllm.kv_cache_gib`, and what does not fit in it waits.
    """
    rows = -(-setting.groups // (setting.servers or setting.gpus)) * setting.group
    if not setting.plays:
        return rows, 0.0
    if setting.kv_gib:
        return rows, float(setting.width) * shape.parameters + setting.kv_gib * GIB
    own = setting.prompt(shape) + setting.branch(shape)
    # Turns are sampled, and then, while their cache waits, the readings that they asked for.
    return rows, kv_bytes(shape, rows * (own + setting.beside), setting.width)


def largest(shape: Shape, setting: Setting, constants: Constants) -> Plan | None:
    """The most frames that fit, by doubling, at the smallest sequence parallelism that does it."""
    best = None
    trainers = setting.gpus - setting.servers
    degrees = [d for d in range(1, trainers + 1) if trainers % d == 0 and shape.key_heads % d == 0]
    for power in range(4, 15):
        for degree in degrees:
            asked = replace(setting, frames=2**power, sequence=degree)
            plan = predict(shape, asked, constants)
            if plan.fits:
                best = plan
                break
    return best
