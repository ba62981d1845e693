"""What a recipe asks of the GPUs: the setting of its longest rollouts.

Between the recipes (`train/config`) and the counts of `train/lab/plan/costs.py`, for `paravt plan
--recipe`. Tests: `pytest tests/lab/test_plan.py`.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import agents
from paravt_env.budget import make_budget
from paravt_env.protocol.parts import system_text
from paravt_env.protocol.styles import prompt_style
from train.common.errors import ConfigError
from train.config.run import TrainConfig
from train.config.sft import SFTConfig
from train.lab.plan.costs import SHAPES, Setting, Shape

CHARACTERS, QUESTION, WRAPPING = 3, 200, 64
"""Characters of a token at least; tokens of a question with its options; those around a message or
around one piece of evidence."""


SHIPPED = Path(agents.__file__).parent / "checkpoints"
PUBLISHED = re.compile(r"qwen3-?vl-(\d+b)(-|$)", re.IGNORECASE)
"""Hub names of the published shapes."""


def shape_of(checkpoint: str) -> Shape:
    """The shape of a recipe's model: of a folder's `config.json`, or a published one by its name.

    Raises:
        ConfigError: Neither is there, or the file is of another architecture.
    """
    for folder in (Path(checkpoint), SHIPPED / checkpoint):
        if checkpoint and (folder / "config.json").is_file():
            try:
                return _of_file(json.loads((folder / "config.json").read_text("utf-8")), checkpoint)
            except (ValueError, KeyError, TypeError) as error:
                raise ConfigError(
                    f"{folder / 'config.json'} is not of a Qwen3-VL ({error!r}): give --model, one "
                    f"of {', '.join(SHAPES)}"
                ) from error
    named = PUBLISHED.search(Path(checkpoint).name)
    if named and named[1].lower() in SHAPES:
        return SHAPES[named[1].lower()]
    raise ConfigError(
        f"the shape of {checkpoint!r} is not known here: give --model, one of {', '.join(SHAPES)}"
    )


def _of_file(content: dict[str, Any], name: str) -> Shape:
    text, vision = content["text_config"], content["vision_config"]
    return Shape(
        Path(name).name,
        hidden=text["hidden_size"],
        layers=text["num_hidden_layers"],
        heads=text["num_attention_heads"],
        key_heads=text["num_key_value_heads"],
        head=text["head_dim"],
        intermediate=text["intermediate_size"],
        vocabulary=text["vocab_size"],
        tied=bool(content.get("tie_word_embeddings", text.get("tie_word_embeddings", False))),
        vision_hidden=vision["hidden_size"],
        vision_layers=vision["depth"],
        vision_intermediate=vision["intermediate_size"],
        levels=len(vision["deepstack_visual_indexes"]),
        patch=vision["patch_size"],
        merge=vision["spatial_merge_size"],
        positions=vision["num_position_embeddings"],
    )


def of_recipe(
    config: TrainConfig | SFTConfig, gpus: int = 0, shape: Shape = SHAPES["8b"]
) -> Setting:
    """The setting of a recipe's longest rollouts: every turn and every reading full.

    `gpus` replaces those of the recipe, of which there is at least what its layout needs. Text is
    counted from its characters (`CHARACTERS` a token) with room for a question; subtitles
    are not.
    """
    env, agent, parallel = config.env, config.agent, config.parallel
    style = prompt_style(agent.prompt_style)
    bounds = env.max_crops, env.max_crop_seconds, env.max_turns, env.crop_frames
    system = system_text(style, *bounds)
    servers = parallel.generator_ranks if parallel.layout == "disaggregated" else 0
    common = Setting(
        frames=make_budget(env.frame_budget).maximum,
        text=QUESTION + len(system) // CHARACTERS,
        size=env.frame_size,
        gpus=gpus or parallel.gpus or servers + parallel.sequence,
        sequence=parallel.sequence,
        servers=servers,
        lora=config.lora.rank,
        recompute=parallel.recompute,
        offload=parallel.offload,
        feature_cache_gib=agent.feature_cache_gib,
        reshard=parallel.reshard,
        together=2 if agent.frames_as == "video" else 1,
    )
    if isinstance(config, SFTConfig):
        prompt = common.prompt(shape)
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
    patches = common.shown(env.frames_per_crop)
    crop = patches * common.frame_tokens(shape)
    reading = 0 if in_context else QUESTION + WRAPPING + crop + agent.subagent_tokens
    here = agent.engine != "vllm_server" or (common.servers > 0 and not agent.vllm.url)
    return replace(
        common,
        group=algorithm.group_size,
        groups=algorithm.groups,
        completion=env.max_turns * (agent.max_new_tokens + WRAPPING) + evidence + forced,
        crop_frames=calls * patches * common.together if in_context else 0,
        freeze_vision=config.optimizer.freeze_vision,
        reference=algorithm.kl_coefficient > 0,
        budget=config.packing.micro_batch_tokens,
        kv_gib=agent.vllm.kv_cache_gib if here and agent.engine != "transformers" else 0.0,
        sleeps=agent.engine != "vllm" or (agent.vllm.sleep > 0 and not config.run.asynchronous),
        plays=here,
        beside=env.max_crops * reading if env.max_turns else 0,
    )
