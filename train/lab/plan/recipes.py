"""What a recipe asks of the GPUs: the setting of its longest rollouts.

Between the recipes (`train/config`) and the counts of `train/lab/plan/costs.py`, for `paravt plan
--recipe`. Tests: `pytest tests/lab/test_plan.py`.
"""

from __future__ import annotations

from dataclasses import replace

from paravt_env.budget import make_budget
from paravt_env.protocol.parts import system_text
from paravt_env.protocol.styles import prompt_style
from train.config.run import TrainConfig
from train.config.sft import SFTConfig
from train.lab.plan.costs import SHAPES, Setting

CHARACTERS, QUESTION, WRAPPING = 3, 200, 64
"""Characters of a token at least; tokens of a question with its options; those around a message or
around one piece of evidence."""


def of_recipe(config: TrainConfig | SFTConfig, gpus: int = 1) -> Setting:
    """The setting of a recipe's longest rollouts: every turn and every reading full.

    Text is counted from its characters (`CHARACTERS` a token) with room for a question; subtitles
    are not.
    """
    env, agent, parallel = config.env, config.agent, config.parallel
    style = prompt_style(agent.prompt_style)
    bounds = env.max_crops, env.max_crop_seconds, env.max_turns, env.crop_frames
    system = system_text(style, *bounds)
    common = Setting(
        frames=make_budget(env.frame_budget).maximum,
        text=QUESTION + len(system) // CHARACTERS,
        size=env.frame_size,
        gpus=gpus,
        sequence=parallel.sequence,
        servers=parallel.generator_ranks if parallel.layout == "disaggregated" else 0,
        lora=config.lora.rank,
        recompute=parallel.recompute,
        offload=parallel.offload,
        feature_cache_gib=agent.feature_cache_gib,
        reshard=parallel.reshard,
        together=2 if agent.frames_as == "video" else 1,
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
    patches = common.shown(env.frames_per_crop)
    crop = patches * common.frame_tokens(SHAPES["8b"])
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
