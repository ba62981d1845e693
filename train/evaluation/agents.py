"""Agents by name: `paravt play` prints their episodes, `train.evaluation.measure` evaluates them.

On the journey this is where a config becomes an acting agent. Scripted agents need the core
installation alone; a checkpoint needs the train extra, which is imported only then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from agents.base import Agent
from agents.config import AgentConfig, Limits
from agents.scripted import SCRIPTED
from paravt_env.common.names import known_name
from paravt_env.settings import EnvSettings
from paravt_env.vector import LongVideoVectorEnv
from train.common.errors import ConfigError

if TYPE_CHECKING:
    from agents.text.conversation import ConversationAgent


def scripted_agent(name: str, env: LongVideoVectorEnv, seed: int = 0) -> Agent:
    """A scripted agent for `env`; the oracle is given the tasks openly.

    Raises:
        ConfigError: Unknown name.
    """
    try:
        return SCRIPTED[known_name("agent", name, SCRIPTED)](env, seed)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def load_agent(config: AgentConfig, env: EnvSettings, seed: int = 0) -> ConversationAgent:
    """The agent of `config.checkpoint` through `config.engine`, told the environment's limits."""
    from agents.model.agent import TransformersAgent

    if not config.checkpoint:
        raise ConfigError("agent.checkpoint is empty: give a folder or a hub name")
    limits = Limits.of(env)
    if config.engine != "transformers":
        from agents.vllm.agent import VLLMAgent

        return VLLMAgent.load(config, limits, seed)
    return TransformersAgent.load(config, limits, seed)
