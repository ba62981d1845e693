"""The plan of a run: memory of each GPU and seconds of each step, from shapes alone.

Before a run is started, to choose how many GPUs and how many frames. Counts weights, optimizer,
activations and floating-point operations of the learner as `train/` implements it, and turns them
into seconds by constants, some of which `benchmarks/gpu.py` measures (`--measured`); the output
says which ones are assumed. Memory is that of three moments: the update (the sum of what it takes
at most), playing on the same card, and a card that only plays.

The command, and the check against measured rows, are in `train/lab/plan/report.py`. Tests: `pytest
tests/lab/test_plan.py`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from paravt_env.budget import make_budget
from paravt_env.protocol.parts import prompt_style, system_text
from train.common.errors import ConfigError
from train.lab.plan.costs import SHAPES, Setting, Shape, group_flops, kv_bytes, trees, update_flops

if TYPE_CHECKING:
    from train.config.run import TrainConfig
    from train.config.sft import SFTConfig

GIB = 2**30
_Kind = TypeVar("_Kind")
LOGIT_CHUNK, LOGIT_COPIES = 4096, 4
"""Tokens whose logits exist at the same time, and how often, in fp32 (`logprobs.py`): logits,
their log-softmax, and two for the entropy."""
HELD = ("policy that plays", "fp32 weights", "Adam", "reference", "feature cache")
"""What a learner holds on its GPU between two updates."""
CHARACTERS, QUESTION, WRAPPING = 3, 200, 64
"""Characters of a token at least; tokens of a question with its options; those around a message or
around one piece of evidence."""


def measured(path: str | Path, key: str, kind: type[_Kind]) -> _Kind:
    """One entry of a file that `benchmarks/gpu.py --json` wrote.

    Raises:
        ConfigError: The file holds something else.
    """
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))[key]
    except (ValueError, TypeError, KeyError) as error:
        raise ConfigError(f"{path} is not what benchmarks/gpu.py --json writes") from error
    if not isinstance(found, kind):
        raise ConfigError(f"{path} is not what benchmarks/gpu.py --json writes: {key!r}")
    return found


@dataclass(frozen=True)
class Constants:
    """What can be measured. The defaults are assumed, for one H200 (989 TFLOP/s in bfloat16)."""

    flops: float = 400e12
    """Operations of a GPU per second in the learner, recomputed ones included."""
    bandwidth: float = 3.3e12
    """Bytes per second at which a GPU reads its weights while it samples."""
    link: float = 200e9
    """Bytes per second between two GPUs."""
    kept: float = 34.0
    """Numbers kept for the backward pass, per token and hidden unit of a block."""
    card: float = 141e9
    """Memory of a GPU, in bytes."""
    reserve: float = 6e9
    """Of it, what the runtime takes and fragmentation loses."""
    source: str = "assumed"
    """What was measured."""
    fitted: tuple[str, ...] = ()
    """Which of these numbers come from there; the others are assumed."""

    @property
    def assumed(self) -> tuple[str, ...]:
        """Numbers that nobody has measured; `card` is on the data sheet."""
        return tuple(
            name for name in ("flops", "bandwidth", "link", "kept", "reserve")
            if name not in self.fitted
        )  # fmt: skip

    @classmethod
    def load(cls, path: str | Path) -> Constants:
        """The constants in a file that `benchmarks/gpu.py --json` wrote."""
        found = measured(path, "constants", dict)
        known = {field.name for field in fields(cls)}
        found = {key: value for key, value in found.items() if key in known}
        return cls(**found | {"fitted": tuple(found.get("fitted", ()))})


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
        keys: Bytes of what draws them: keys and values, or a vLLM engine.
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


def predict(shape: Shape, setting: Setting, constants: Constants) -> Plan:
    """Memory and time of a setting.

    Raises:
        ConfigError: The GPUs cannot be laid out so.
    """
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
    rows = trainers // setting.sequence
    n = shape.parameters
    frozen = bool(setting.freeze_vision or setting.lora)
    moved = shape.adapters(setting.lora) if setting.lora else n
    if setting.freeze_vision and not setting.lora:
        moved -= shape.vision_layers * shape.vision_block
    alone = setting.gpus == 1
    on_card = 0.0 if setting.offload and not alone else 1.0
    base = 0.0 if alone else 4.0 * n / trainers
    prompt, branch = setting.prompt(shape), setting.branch(shape)
    per_row = -(-setting.groups // rows)
    cut = trees(shape, setting)
    longest = prompt + cut[0] * branch
    at_once = min(per_row * len(cut), max(1, setting.budget // longest))
    frames = at_once * (setting.frames + cut[0] * setting.crop_frames)
    slice_ = at_once * longest / setting.sequence
    wide, width = shape.hidden, float(setting.width)
    kept = slice_ * wide * width * (shape.layers + constants.kept if setting.recompute
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
    cache = setting.feature_cache_gib * GIB
    drawn, drawing = _drawing(shape, setting)
    engine = drawing if setting.kv_gib else 0.0
    copied = 1.0 if setting.reference and not setting.lora else 0.0
    # FSDP frees what it gathers, but for the root's, in the reference for good.
    gathered = width * (shape.root if setting.reshard else n)
    whole = 0.0 if setting.lora else (width + 4.0) * (shape.root + shape.block)
    memory = {
        "policy that plays": width * n,
        "fp32 weights": on_card * (base or 4.0 * moved * (width < 4 or setting.lora > 0)),
        "gradients": on_card * 4.0 * moved / trainers,
        "Adam": on_card * 8.0 * moved / trainers,
        "gathered weights": 0.0 if alone
        else gathered + 2 * width * shape.block * setting.reshard,
        "unsharded gradients": 0.0 if alone else whole,
        "reference": copied * (on_card * width * n / trainers + (0.0 if alone else gathered)),
        "activations": kept,
        "vision tower": tower,
        "image features": features,
        "feature cache": cache if cached else 0.0,
        "logits": LOGIT_COPIES * 4.0 * shape.vocabulary
        * min(LOGIT_CHUNK, at_once * cut[0] * setting.completion),
        "vLLM, awake": 0.0 if setting.sleeps or setting.servers else engine,
    }  # fmt: skip
    playing = apart = 0.0
    if setting.servers:
        apart = width * n + (0.0 if engine else cache) + drawing
    elif setting.plays:
        playing = sum(memory[name] for name in HELD) + drawing
    micro = -(-per_row * len(cut) // at_once)
    # Weights travel in the policy's precision, gradients in fp32.
    gathers = 1 + setting.reshard * (1 + setting.reference)
    traffic = micro * (gathers * width * n + 4.0 * moved)
    read = width * n + drawn * kv_bytes(shape, prompt + branch / 2, setting.width)
    played = setting.plays * drawn / setting.group
    update = update_flops(shape, setting)
    seconds = {
        "prefill": played * group_flops(shape, setting) / constants.flops,
        "decode": setting.plays * setting.completion * read / constants.bandwidth,
        "update": per_row * update / setting.sequence / constants.flops,
        "gathering weights": 0.0 if alone else traffic / constants.link,
        "publishing": 0.0 if alone else 4.0 * n / constants.link,
    }
    once = update_flops(shape, replace(setting, budget=setting.whole(shape)))
    return Plan(
        setting, memory, seconds, constants.card - constants.reserve,
        playing, apart, drawn, drawing, cut, update / once,
    )  # fmt: skip


def _drawing(shape: Shape, setting: Setting) -> tuple[int, float]:
    """Rollouts that a card plays at a time, and the bytes of what draws them there.

    Groups are whole, so transformers holds at least one; nothing bounds it further (`run.lanes`
    divides the same rows). vLLM has `agent.vllm.kv_cache_gib`, and what does not fit in it waits.
    """
    rows = -(-setting.groups // (setting.servers or setting.gpus)) * setting.group
    if not setting.plays:
        return rows, 0.0
    if setting.kv_gib:
        return rows, float(setting.width) * shape.parameters + setting.kv_gib * GIB
    own = setting.prompt(shape) + setting.branch(shape)
    # Turns are drawn, and then, while their cache waits, the readings that they asked for.
    return rows, kv_bytes(shape, rows * (own + setting.beside), setting.width)


def of_recipe(config: TrainConfig | SFTConfig, gpus: int = 1) -> Setting:
    """The setting of a recipe's longest rollouts: every turn and every reading full.

    Text is counted from its characters (`CHARACTERS` a token) with room for a question; subtitles
    are not.
    """
    from train.config.sft import SFTConfig

    env, agent, parallel = config.env, config.agent, config.parallel
    style = prompt_style(agent.prompt_style)
    system = system_text(style, env.max_crops, env.max_crop_seconds, env.max_turns)
    common = Setting(
        frames=make_budget(env.frame_budget).maximum,
        text=QUESTION + len(system) // CHARACTERS,
        size=env.frame_size,
        gpus=gpus,
        sequence=parallel.sequence,
        servers=parallel.servers if parallel.layout == "split" else 0,
        lora=config.lora.rank,
        recompute=parallel.recompute,
        offload=parallel.offload,
        feature_cache_gib=agent.feature_cache_gib,
        reshard=parallel.reshard,
    )
    if isinstance(config, SFTConfig):
        prompt = common.prompt(SHAPES["8b"])
        return replace(
            common,
            group=1,
            groups=max(1, *(stage.published + stage.conversations for stage in config.stages)),
            completion=max(config.published.max_tokens, config.micro_batch_tokens) - prompt,
            freeze_vision=all(stage.freeze_vision for stage in config.stages),
            reference=False,
            plays=False,
            budget=config.micro_batch_tokens,
        )
    algorithm, calls = config.algorithm, env.max_turns * env.max_crops
    in_context = (agent.evidence or env.evidence) == "frames"
    evidence = calls * (WRAPPING + (0 if in_context else agent.subagent_tokens))
    forced = (agent.answer_tokens + WRAPPING) * env.force_answer
    crop = env.frames_per_crop * common.frame_tokens(SHAPES["8b"])
    reading = 0 if in_context else QUESTION + WRAPPING + crop + agent.subagent_tokens
    here = agent.engine != "vllm_server" or (common.servers > 0 and not agent.vllm.url)
    return replace(
        common,
        group=algorithm.group_size,
        groups=algorithm.groups,
        completion=env.max_turns * (agent.max_new_tokens + WRAPPING) + evidence + forced,
        crop_frames=calls * env.frames_per_crop if in_context else 0,
        freeze_vision=algorithm.freeze_vision,
        reference=algorithm.kl_coefficient > 0,
        budget=algorithm.micro_batch_tokens,
        kv_gib=agent.vllm.kv_cache_gib if here and agent.engine != "transformers" else 0.0,
        sleeps=agent.engine != "vllm" or (agent.vllm.sleep > 0 and not config.run.asynchronous),
        plays=here,
        beside=env.max_crops * reading if env.max_turns else 0,
    )


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
