"""The plan of a run as text, and beside what was measured: fitted constants, predictions' errors.

Behind `train/lab/plan/plan.py`, which computes it. A file of `benchmarks/gpu.py` holds rows of
seconds and peak bytes: `fit` takes constants from them, `check` predicts each row by constants of
the others.

Command: `paravt plan --model 8b --gpus 8 --frames 512 --group 8`.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from train.common.errors import ConfigError
from train.lab.plan.constants import GIB, Constants, measured
from train.lab.plan.costs import SHAPES, Setting, Shape, update_flops
from train.lab.plan.plan import Plan, largest, predict


def _planned(row: Mapping[str, Any], constants: Constants) -> tuple[float, float]:
    """Predicted seconds and bytes of a row of `benchmarks/gpu.py --json`."""
    shape = Shape(**row["shape"])
    named = {field.name for field in fields(Setting)}
    given = {key: value for key, value in row["setting"].items() if key in named}
    setting = Setting(**{**given, "size": tuple(given["size"])})
    if row["method"] == "repeated":
        setting = replace(setting, budget=1)
    return update_flops(shape, setting) / constants.flops, predict(shape, setting, constants).total


def fit(rows: Sequence[Mapping[str, Any]], source: str) -> Constants:
    """The constants that rows of `benchmarks/gpu.py --json` tell: medians over the rows.

    Args:
        rows: Updates; `bytes` is 0 where memory was not measured.
        source: What ran them.
    """
    found: dict[str, Any] = {}
    if rows:
        unit = Constants(flops=1.0)
        found["flops"] = statistics.median(_planned(row, unit)[0] / row["seconds"] for row in rows)
    kept = []
    for row in rows:
        none, one = (_planned(row, Constants(kept=k))[1] for k in (0.0, 1.0))
        if row.get("bytes"):
            kept.append((row["bytes"] - none) / (one - none))
    if kept and statistics.median(kept) > 0:
        found["kept"] = statistics.median(kept)
    return Constants(**found, source=source if found else "assumed", fitted=tuple(found))


def check(rows: Sequence[Mapping[str, Any]], constants: Constants | None = None) -> list[str]:
    """Predicted against measured, a line for each row of `benchmarks/gpu.py --json`.

    Args:
        rows: Updates.
        constants: What to predict with; None predicts each row from the others.
    """
    lines = [
        f"{'model':8} {'kind':4} {'method':9} frames  measured s  predicted   error"
        "  measured MiB  predicted   error"
    ]
    for row in rows:
        others = [other for other in rows if other is not row]
        seconds, size = _planned(row, constants or fit(others, "the other rows"))
        memory = f"{'not measured':>14}"
        if row.get("bytes"):
            error = size / row["bytes"] - 1
            memory = f"{row['bytes'] / 2**20:14.1f} {size / 2**20:10.1f} {error:+7.0%}"
        kind = "LoRA" if row["setting"]["lora"] else "full"
        lines.append(
            f"{row['shape']['name']:8} {kind} {row['method']:9} {row['setting']['frames']:6d} "
            f"{row['seconds']:11.3f} {seconds:10.3f} {seconds / row['seconds'] - 1:+7.0%}{memory}"
        )
    return lines


def text(shape: Shape, plan: Plan, constants: Constants) -> str:
    """The plan for a terminal."""
    setting = plan.setting
    drawn = "vLLM" if setting.kv_gib else f"{plan.rows} rows, keys and values"
    player = "vLLM" if setting.kv_gib else "it"
    moments = [
        f"  {name:24} {value / GIB:8.1f}: {'fits' if value <= plan.limit else 'does NOT fit'} "
        f"({drawn} {plan.keys / GIB:.1f})"
        for name, value in (
            (f"while {player} plays", plan.playing),
            ("a GPU that only plays", plan.apart),
        )
        if value
    ]
    cut = [
        f"a group is cut into {len(plan.trees)} trees, which repeat the prompt: {plan.repeats:.2f} "
        f"times the operations; whole it takes --budget {setting.whole(shape)}",
        "",
    ] * (len(plan.trees) > 1)
    lines = [
        f"{shape.name}: {shape.parameters / 1e9:.2f} B parameters; {setting.gpus} GPUs "
        f"({setting.servers} serve), sequence {setting.sequence}; {setting.groups} groups of "
        f"{setting.group} x {setting.completion} tokens, prompt {setting.prompt(shape)} tokens "
        f"({setting.frames} frames)",
        "",
        "memory of a GPU that trains, GiB",
        *(f"  {name:24} {value / GIB:8.1f}" for name, value in plan.memory.items() if value),
        f"  {'together':24} {plan.total / GIB:8.1f}  of {plan.limit / GIB:.1f}: "
        + ("fits" if plan.total <= plan.limit else "does NOT fit"),
        *moments,
        "",
        "seconds of a step",
        *(f"  {name:24} {value:8.1f}" for name, value in plan.seconds.items() if value),
        f"  {'together':24} {sum(plan.seconds.values()):8.1f}",
        "",
        *cut,
    ]
    most = largest(shape, setting, constants)
    lines.append(
        "no number of frames fits: try --lora, --offload or more GPUs"
        if most is None
        else f"largest that fits: {most.setting.frames} frames with --sequence "
        f"{most.setting.sequence} ({most.total / GIB:.1f} GiB, "
        f"{sum(most.seconds.values()):.0f} s a step)"
    )
    return "\n".join([*lines, _known(constants)])


def _known(constants: Constants) -> str:
    """Which constants are measured, and which ones assumed."""
    assumed = f"assumed: {', '.join(constants.assumed)}"
    if not constants.fitted:
        return f"constants are {assumed} (--measured FILE)"
    return f"constants measured on {constants.source}: {', '.join(constants.fitted)}; {assumed}"


def _read(recipe: str, model: Shape | None) -> tuple[Setting, Shape]:
    """The setting and the model of a recipe; `model` replaces its own."""
    # jsonargparse, which a plan of given numbers does without
    from train.config.recipe import load
    from train.config.run import TrainConfig
    from train.config.sft import SFTConfig
    from train.lab.plan.recipes import of_recipe, shape_of

    config: TrainConfig | SFTConfig
    if Path(recipe).stem.startswith("sft"):
        config = load(SFTConfig, recipe)
    else:
        config = load(TrainConfig, recipe)
    shape = model or shape_of(config.agent.checkpoint)
    return of_recipe(config, shape=shape), shape


def run(args: argparse.Namespace) -> str:
    """What `paravt plan` prints."""
    constants = Constants.load(args.measured) if args.measured else Constants()
    if args.card_gb is not None:
        constants = replace(constants, card=args.card_gb * 1e9)
    if args.check:
        rows = measured(args.check, "rows", list)
        if args.measured:
            return "\n".join([*check(rows, constants), _known(constants)])
        told = "each row is predicted by constants from the others; from all of them:"
        return "\n".join([*check(rows), told, _known(Constants.load(args.check))])
    given = {field.name: getattr(args, field.name) for field in fields(Setting)
             if getattr(args, field.name, None) is not None}  # fmt: skip
    if args.model is not None and args.model not in SHAPES:
        raise ConfigError(f"--model {args.model}: choose from {', '.join(SHAPES)}")
    setting, shape = Setting(), SHAPES[args.model or "8b"]
    if args.recipe:
        setting, shape = _read(args.recipe, SHAPES.get(args.model))
    setting = replace(setting, **given)
    return text(shape, predict(shape, setting, constants), constants)
