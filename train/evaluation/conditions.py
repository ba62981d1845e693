"""Under which conditions an evaluation was played, in one line: frames, prompt, limits.

Printed under the table by `paravt eval`, so that a number is never read without them. Tests:
`pytest tests/evaluation/test_outage.py`.
"""

from __future__ import annotations

from paravt_env.common.doors import is_door
from train.config.run import TrainConfig
from train.evaluation.measure import in_mode


def conditions(config: TrainConfig) -> str:
    """Who played, and what it was shown and allowed."""
    env, settings = in_mode(config.env, config.evaluation)
    agent, policy = config.agent, settings.policy
    height, width = env.frame_size
    crops = f", at most {env.frames_per_crop} in a crop" if env.max_turns else ""
    parts = [f"split {settings.split}", f"frames {height} x {width} pixels{crops}"]
    if env.max_turns:
        parts.append(
            f"{env.max_turns} turns of {env.max_crops} calls, {env.max_crop_seconds:g} s each"
        )
    else:
        parts.append("one turn without tools")
    if policy in ("", "openai"):
        answer = agent.answer_tokens if env.max_turns else agent.max_new_tokens
        parts += [
            f"prompt style {agent.prompt_style}",
            f"tokens: {agent.max_new_tokens} a turn, {answer} the forced answer, "
            f"{agent.subagent_tokens} a reading",
            f"temperature {settings.temperature:g}",
        ]
    name = policy or agent.checkpoint
    if policy == "openai":
        name = f"{settings.chat.model} at {settings.chat.base_url}"
    who = f"own agent {policy}" if is_door(policy) else name
    return f"{who}: {'; '.join(parts)}"
