"""The plan of a run: memory of each GPU and seconds of each step, from shapes alone.

Before a run is started, to choose how many GPUs and how many frames. Counts weights, optimizer,
activations and floating-point operations of the learner as `train/` implements it, and turns them
into seconds by constants that `benchmarks/gpu.py` measures (`--measured`); without a measurement
they are assumptions, and the output says so.

Command: `paravt plan --model 8b --gpus 8 --frames 512 --group 8`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from paravt_env.budget import make_budget
from paravt_env.protocol.prompts import PROMPTS, system_text
from train.costs import SHAPES, Setting, Shape, group_flops, passes, seen_flops
from train.errors import ConfigError

if TYPE_CHECKING:
    from train.config import SFTConfig, TrainConfig

GIB = 2**30
_Kind = TypeVar("_Kind")
LOGIT_CHUNK = 4096
CHARACTERS, QUESTION, WRAPPING = 3, 200, 64
"""Characters of a token at least; tokens of a question with its options; those around a message or
around one piece of evidence."""


@dataclass(frozen=True)
class Constants:
    """What is measured. The defaults are assumptions, for one H200 (989 TFLOP/s in bfloat16)."""

    flops: float = 400e12
    """Useful operations of a GPU per second, in the learner."""
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

    @classmethod
    def load(cls, path: str | Path) -> Constants:
        """The constants in a file that `benchmarks/gpu.py --json` wrote."""
        found = _measured(path, "constants", dict)
        known = {field.name for field in fields(cls)}
        return cls(**{key: value for key, value in found.items() if key in known})


@dataclass(frozen=True)
class Plan:
    """Predicted bytes of each GPU that trains, and seconds of a step."""

    setting: Setting
    memory: dict[str, float]
    seconds: dict[str, float]
    limit: float

    @property
    def total(self) -> float:
        """Bytes at the worst moment."""
        return sum(self.memory.values())

    @property
    def fits(self) -> bool:
        """Whether that is in a card."""
        return self.total <= self.limit


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
    tokens = prompt + setting.group * branch
    longest = min(tokens, max(setting.budget, prompt + branch))
    together = max(1, (longest - prompt) // branch)
    frames = setting.frames + together * setting.crop_frames
    slice_ = longest / setting.sequence
    wide = shape.hidden
    kept = slice_ * wide * 2.0 * (shape.layers + constants.kept if setting.recompute
                                  else shape.layers * constants.kept)  # fmt: skip
    patches = (
        frames
        / setting.sequence
        * (setting.size[0] // shape.patch)
        * (setting.size[1] // shape.patch)
    )
    layers = shape.vision_layers
    tower = 2.0 * patches * shape.vision_hidden * (
        constants.kept if frozen
        else layers + constants.kept if setting.recompute else layers * constants.kept
    )  # fmt: skip
    features = 2.0 * 2 * frames * setting.frame_tokens(shape) * wide * (1 + shape.levels)
    cached = frozen or not setting.servers
    memory = {
        "policy that plays, bf16": 2.0 * n,
        "fp32 weights": on_card * (base or 4.0 * moved),
        "gradients": on_card * 4.0 * moved / trainers,
        "Adam": on_card * 8.0 * moved / trainers,
        "gathered weights": 0.0 if alone else 2.0 * shape.root + 4.0 * shape.block,
        "reference": 2.0 * n / trainers if setting.reference and not setting.lora else 0.0,
        "activations": kept,
        "vision tower": tower,
        "image features": features,
        "feature cache": setting.feature_cache_gib * GIB if cached else 0.0,
        "logits": 3 * 4.0 * min(LOGIT_CHUNK, setting.group * setting.completion)
        * shape.vocabulary,
    }  # fmt: skip
    forward = group_flops(shape, setting)
    seen = seen_flops(shape, setting)
    work = forward - seen
    passes = 3.0 + setting.recompute + setting.reference
    update = work * passes + seen * (1.0 if frozen else passes)
    per_row = -(-setting.groups // rows)
    micro = per_row * max(1, round(tokens / longest))
    players = setting.servers or setting.gpus
    batches = -(-setting.groups // players)
    shards = 0.0 if alone else micro * 3 * 2.0 * n / constants.link
    seconds = {
        "prefill": batches * (forward - 0.0) / constants.flops,
        "decode": setting.completion * 2.0 * n / constants.bandwidth,
        "update": per_row * update / setting.sequence / constants.flops,
        "gathering weights": shards,
        "publishing": 0.0 if alone else 4.0 * n / constants.link,
    }
    return Plan(setting, memory, seconds, constants.card - constants.reserve)


def of_recipe(config: TrainConfig | SFTConfig, gpus: int = 1) -> Setting:
    """The setting of a recipe's longest rollouts: every turn and every reading full.

    Text is counted from its characters (`CHARACTERS` a token) with room for a question; subtitles
    are not.
    """
    from train.config import SFTConfig

    env, agent, parallel = config.env, config.agent, config.parallel
    style = PROMPTS[agent.prompt_style]
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
            budget=config.micro_batch_tokens,
        )
    algorithm, calls = config.algorithm, env.max_turns * env.max_crops
    in_context = (agent.evidence or env.evidence) == "frames"
    evidence = calls * (WRAPPING + (0 if in_context else agent.subagent_tokens))
    forced = (agent.answer_tokens + WRAPPING) * env.force_answer
    return replace(
        common,
        group=algorithm.group_size,
        groups=algorithm.groups,
        completion=env.max_turns * (agent.max_new_tokens + WRAPPING) + evidence + forced,
        crop_frames=calls * env.frames_per_crop if in_context else 0,
        freeze_vision=algorithm.freeze_vision,
        reference=algorithm.kl_coefficient > 0,
        budget=algorithm.micro_batch_tokens,
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


def check(rows: Sequence[Mapping[str, Any]], constants: Constants) -> list[str]:
    """Predicted against measured, a line for each row of `benchmarks/gpu.py --json`."""
    lines = [f"{'model':8} {'method':9} frames  measured s  predicted   error"]
    for row in rows:
        shape = Shape(**row["shape"])
        named = {field.name for field in fields(Setting)}
        given = {key: value for key, value in row["setting"].items() if key in named}
        setting = Setting(**{**given, "size": tuple(given["size"])})
        packed = row["method"] == "packed"
        seconds = passes(setting) * group_flops(shape, setting, packed) / constants.flops
        error = seconds / row["seconds"] - 1
        lines.append(
            f"{shape.name:8} {row['method']:9} {setting.frames:6d} {row['seconds']:11.3f} "
            f"{seconds:10.3f} {error:+7.0%}"
        )
    return lines


def text(shape: Shape, plan: Plan, constants: Constants) -> str:
    """The plan for a terminal."""
    setting = plan.setting
    lines = [
        f"{shape.name}: {shape.parameters / 1e9:.2f} B parameters; {setting.gpus} GPUs "
        f"({setting.servers} serve), sequence {setting.sequence}; {setting.groups} groups of "
        f"{setting.group} x {setting.completion} tokens, prompt {setting.prompt(shape)} tokens "
        f"({setting.frames} frames)",
        "",
        "memory of a GPU that trains, GiB",
        *(f"  {name:24} {value / GIB:8.1f}" for name, value in plan.memory.items() if value),
        f"  {'together':24} {plan.total / GIB:8.1f}  of {plan.limit / GIB:.1f}: "
        + ("fits" if plan.fits else "does NOT fit"),
        "",
        "seconds of a step",
        *(f"  {name:24} {value:8.1f}" for name, value in plan.seconds.items() if value),
        f"  {'together':24} {sum(plan.seconds.values()):8.1f}",
        "",
    ]
    most = largest(shape, setting, constants)
    lines.append(
        "no number of frames fits: try --lora, --offload or more GPUs"
        if most is None
        else f"largest that fits: {most.setting.frames} frames with --sequence "
        f"{most.setting.sequence} ({most.total / GIB:.1f} GiB, "
        f"{sum(most.seconds.values()):.0f} s a step)"
    )
    if constants.source == "assumed":
        lines.append("speed and activation constants are assumed: give --measured FILE")
    return "\n".join(lines)


def _measured(path: str | Path, key: str, kind: type[_Kind]) -> _Kind:
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


def arguments(parser: argparse.ArgumentParser) -> None:
    """The command line's options; what is left out is the recipe's, or `Setting`'s default."""
    parser.add_argument("--recipe", help="the longest rollouts of that recipe's settings")
    parser.add_argument("--model", default="8b", help=", ".join(SHAPES))
    for name, what in (
        ("gpus", "cards, of all nodes"),
        ("servers", "of them, cards that only play"),
        ("frames", "overview frames"),
        ("group", "rollouts of a group"),
        ("groups", "groups of a step"),
        ("completion", "tokens of a rollout"),
        ("sequence", "cards that share a packed sequence"),
        ("lora", "rank of the adapters; 0 trains everything"),
    ):
        parser.add_argument(f"--{name}", type=int, help=what)
    parser.add_argument("--freeze-vision", action="store_true", default=None)
    parser.add_argument("--offload", action="store_true", default=None, help="moments on the CPU")
    parser.add_argument("--no-recompute", dest="recompute", action="store_false", default=None)
    parser.add_argument("--no-reference", dest="reference", action="store_false", default=None)
    parser.add_argument("--card-gb", type=float, help="memory of a card; default 141")
    parser.add_argument("--measured", help="constants that benchmarks/gpu.py --json wrote")
    parser.add_argument("--check", help="compare the prediction with that file's rows")


def _read(recipe: str) -> Setting:
    from train.config import SFTConfig, TrainConfig
    from train.recipe import load

    if Path(recipe).stem.startswith("sft"):
        return of_recipe(load(SFTConfig, recipe))
    return of_recipe(load(TrainConfig, recipe))


def run(args: argparse.Namespace) -> str:
    """What `paravt plan` prints."""
    constants = Constants.load(args.measured) if args.measured else Constants()
    if args.card_gb is not None:
        constants = replace(constants, card=args.card_gb * 1e9)
    if args.check:
        rows = _measured(args.check, "rows", list)
        return "\n".join(check(rows, constants))
    given = {field.name: getattr(args, field.name) for field in fields(Setting)
             if getattr(args, field.name, None) is not None}  # fmt: skip
    if args.model not in SHAPES:
        raise ConfigError(f"--model {args.model}: choose from {', '.join(SHAPES)}")
    shape = SHAPES[args.model]
    setting = replace(_read(args.recipe) if args.recipe else Setting(), **given)
    return text(shape, predict(shape, setting, constants), constants)
