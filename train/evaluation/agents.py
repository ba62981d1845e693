"""Agents by name: scripted ones, checkpoints, chat servers, and the user's own.

On the journey this is where a config becomes an acting agent. `paravt play` takes scripted ones,
which need the core installation alone; `train.evaluation.measure` takes all. A checkpoint needs the
train extra, which is imported only then. Tests: `pytest tests/evaluation/test_evaluate_command.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from agents.base import Agent
from agents.chat.agent import OpenAIAgent
from agents.config import AgentConfig, Limits
from agents.scripted import SCRIPTED
from paravt_env.common.doors import is_door, opened
from paravt_env.common.names import known_name
from paravt_env.settings import EnvSettings
from paravt_env.vector import LongVideoVectorEnv
from train.common.errors import ConfigError
from train.config.run import TrainConfig
from train.config.sft import SFTConfig
from train.evaluation.identity import agent_identity

SB3_POLICY = "sb3.json"
"""The file by which a checkpoint of Stable-Baselines3 is known (`agents/sb3/agent.py`)."""


def scripted_agent(name: str, env: LongVideoVectorEnv, seed: int = 0) -> Agent:
    """A scripted agent for `env`; the oracle is given the tasks openly.

    Raises:
        ConfigError: Unknown name.
    """
    try:
        return SCRIPTED[known_name("agent", name, SCRIPTED)](env, seed)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def own_agent(name: str) -> Callable[[LongVideoVectorEnv], Agent]:
    """The factory that `file.py:name` or `package.module:name` leads to.

    Raises:
        ConfigError: There is none.
    """
    try:
        return opened("agent", name)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def load_agent(config: AgentConfig, env: EnvSettings, seed: int = 0) -> Agent:
    """The agent of `config.checkpoint` through `config.engine`, told the environment's limits."""
    # here: torch, or vLLM, which a scripted agent and a chat server do not need
    from agents.model.agent import TransformersAgent, agent_factory
    from agents.model.vlm import VisionLanguageModel

    if not config.checkpoint:
        raise ConfigError("agent.checkpoint is empty: give a folder or a hub name")
    limits = Limits.of(env)
    if is_door(config.engine):
        vlm = VisionLanguageModel.load(config.checkpoint, config.dtype, config.device)
        try:
            return agent_factory(config.engine)(vlm, config, limits, seed)
        except ValueError as error:
            raise ConfigError(str(error)) from error
    if config.engine != "transformers":
        from agents.vllm.agent import VLLMAgent

        return VLLMAgent.load(config, limits, seed)
    return TransformersAgent.load(config, limits, seed)


@dataclass(frozen=True)
class AgentSource:
    """Makes the agent under evaluation.

    Attributes:
        config: Its `evaluation` names the agent.
        checkpoint: Replaces `config.agent.checkpoint`.
    """

    config: TrainConfig | SFTConfig
    checkpoint: str = ""

    def __call__(self, env: LongVideoVectorEnv) -> Agent:
        """The agent for an environment.

        Raises:
            ConfigError: It cannot be made as configured.
        """
        settings = self.config.evaluation
        limits = env.simulation.settings
        if is_door(settings.policy):
            return own_agent(settings.policy)(env)
        if settings.policy not in ("", "openai"):
            return scripted_agent(settings.policy, env, settings.seed)
        agent = replace(
            self.config.agent,
            temperature=settings.temperature,
            checkpoint=self.checkpoint or self.config.agent.checkpoint,
        )
        if (Path(agent.checkpoint) / SB3_POLICY).is_file():
            from agents.sb3.agent import SB3Agent  # an extra of its own

            try:
                return SB3Agent.load(Path(agent.checkpoint), env)
            except ValueError as error:
                raise ConfigError(str(error)) from error
        if limits.max_turns == 0:  # the only turn may think as long as any other
            agent = replace(agent, answer_tokens=agent.max_new_tokens)
        if settings.policy == "openai":
            try:
                return OpenAIAgent(config=agent, limits=Limits.of(limits), **asdict(settings.chat))
            except ValueError as error:
                raise ConfigError(str(error)) from error
        return load_agent(agent, limits, settings.seed)

    def identity(self) -> Mapping[str, Any]:
        """What decides how the agent plays; see `train.evaluation.identity.agent_identity`."""
        return agent_identity(self.config, self.checkpoint)


def evaluated_agent(config: TrainConfig | SFTConfig, checkpoint: str = "") -> AgentSource:
    """Makes the agent under evaluation: the policy of the settings, or the checkpoint."""
    return AgentSource(config, checkpoint)
