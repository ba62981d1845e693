"""Who plays for the trainer: lanes of environment and agent, the engine behind them, its weights.

The trainer asks for rollouts and says when the policy has changed; which engine draws the tokens,
in how many lanes, and how weights get there is decided here. With the default settings that is one
lane over the learner's own weights.

Command: `pytest tests/workers/test_rollout_workers.py`.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from threading import Lock
from typing import Any

import torch

from agents.base import AgentStats
from agents.config import AgentConfig, Limits
from agents.model.agent import TransformersAgent
from agents.model.vlm import VisionLanguageModel
from agents.text.conversation import ConversationAgent, Reading, Sampled, Turn
from agents.vllm.engine import Engine
from paravt_env.vector import LongVideoVectorEnv
from train.rollout.play import Rollout, Start, play
from train.workers.ahead import Lane, Progress, play_in_lanes
from train.workers.weight_sync import CopySync, WeightSync, connect


class TakingTurns(TransformersAgent):
    """A transformers agent that shares a policy with other lanes: one generates at a time."""

    lock: Lock

    def draw(self, turns: Sequence[Turn]) -> list[Sampled]:
        """See :class:`TransformersAgent`."""
        with self.lock:
            return super().draw(turns)

    def read(self, readings: Sequence[Reading]) -> list[Sampled]:
        """See :class:`TransformersAgent`."""
        with self.lock:
            return super().read(readings)


@dataclass
class Players:
    """Lanes that play side by side.

    Attributes:
        lanes: Their environments and agents.
        sync: How new weights reach them; None where they share the learner's.
        resources: What is closed at the end.
        engine: What draws for all of them; None where transformers does.
    """

    lanes: list[Lane]
    sync: WeightSync | None = None
    resources: ExitStack = field(default_factory=ExitStack)
    engine: Engine | None = None

    @property
    def agents(self) -> list[Any]:
        """The agent of each lane; the first one's generator seeds the others'."""
        return [lane.agent for lane in self.lanes]

    @property
    def rows(self) -> int:
        """Rows of all lanes."""
        return sum(lane.env.num_envs for lane in self.lanes)

    def play(
        self, starts: Sequence[Start], size: int, progress: Progress | None = None
    ) -> list[Rollout]:
        """Play groups of `size` equal starts, as many batches as it takes."""
        if len(self.lanes) == 1:
            (lane,) = self.lanes
            rollouts = []
            for first in range(0, len(starts), lane.env.num_envs):
                part = starts[first : first + lane.env.num_envs]
                rollouts += play(lane.env, lane.agent, part, progress)
            return rollouts
        smallest = min(lane.env.num_envs for lane in self.lanes) // size * size
        batch, rollouts = smallest * len(self.lanes), []
        for first in range(0, len(starts), batch):
            part = starts[first : first + batch]
            lanes = self.lanes[: len(part) // size]
            first_generator = self.agents[0].sampler.generator
            device = first_generator.device
            drawn = torch.randint(2**31, (len(lanes),), generator=first_generator, device=device)
            for agent, seed in zip(self.agents[1:], drawn.tolist()[1:], strict=False):
                agent.sampler.generator.manual_seed(seed)
            rollouts += play_in_lanes(lanes, part, size, progress)
        return rollouts

    def rest(self) -> None:
        """Nothing is played until the weights change: an engine on the learner's card sleeps."""
        if self.engine is not None:
            self.engine.sleep()

    def weights_changed(self, version: int) -> None:
        """Bring the learner's weights to the players and forget what older ones computed.

        An engine that sleeps wakes.
        """
        if self.sync is not None:
            self.sync.push(version)
        for agent in self.agents:
            agent.weights_changed(version)

    def stats(self) -> AgentStats:
        """Counters of all lanes together; an engine that lanes share is counted once."""
        total = AgentStats()
        for stats in {id(a.sampler.stats): a.sampler.stats for a in self.agents}.values():
            total.frames_encoded += stats.frames_encoded
            total.frames_reused += stats.frames_reused
            total.tokens_sampled += stats.tokens_sampled
            for stage, seconds in stats.seconds.items():
                total.seconds[stage] = total.seconds.get(stage, 0.0) + seconds
        return total

    def close(self) -> None:
        """End the engine."""
        self.resources.close()


def make_players(
    config: AgentConfig,
    vlm: VisionLanguageModel,
    envs: Sequence[LongVideoVectorEnv],
    seed: int,
    apart: bool = False,
    version: int = 0,
) -> Players:
    """Players over the learner's policy.

    Args:
        config: How they play, and through which engine.
        vlm: The learner's policy.
        envs: The rows of each lane.
        seed: Of the first lane's sampling.
        apart: The learner may update while they play: give them weights of their own, and an
            engine that never sleeps.
        version: Updates that the weights have seen.
    """
    limits = Limits.of(envs[0].simulation.settings)
    resources = ExitStack()
    sync: WeightSync | None = None
    engine: Engine | None = None
    agents: list[ConversationAgent]
    if config.engine == "transformers":
        played = vlm
        if apart:
            played = VisionLanguageModel(
                copy.deepcopy(vlm.model), vlm.tokenizer, vlm.image_processor
            )
            played.model.requires_grad_(False)
            sync = CopySync(vlm, played)
        kind = TransformersAgent if len(envs) == 1 else TakingTurns
        agents = [kind(played, config, limits, seed + lane) for lane in range(len(envs))]
        lock = Lock()
        for agent in agents:
            agent.lock = lock  # type: ignore[attr-defined]
    else:
        from agents.vllm.agent import VLLMAgent, start_engine

        vlm.features.limit = config.feature_cache_gib * 2**30
        if apart:
            config = replace(config, vllm=replace(config.vllm, sleep=0))
        engine = start_engine(config, vlm)
        resources.callback(engine.close)
        with resources:
            sync = connect(config, vlm.model, engine)
            sync.push(version)
            agents = [
                VLLMAgent(vlm, config, engine, limits, seed + lane) for lane in range(len(envs))
            ]
            resources = resources.pop_all()
    for agent in agents:
        agent.version, agent.strict = version, True
    lanes = [Lane(env, agent) for env, agent in zip(envs, agents, strict=True)]
    return Players(lanes, sync, resources, engine)
