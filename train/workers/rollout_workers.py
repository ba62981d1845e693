"""Rollout workers: who plays for the trainer, in how many lanes, through which engine.

The trainer asks for rollouts and says when the policy has changed; what draws the tokens, and how
new weights get there, is decided here. With the default settings that is one lane over the
learner's own weights. Somebody else's agent is a factory named by `agent.engine`.

Command: `pytest tests/workers/test_rollout_workers.py`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from threading import Lock

from agents.base import AgentStats, TrainableAgent
from agents.config import AgentConfig, Limits
from agents.model.agent import Factory, agent_factory
from agents.model.vlm import VisionLanguageModel
from agents.vllm.agent import VLLMAgent, start_engine
from agents.vllm.engine import Engine
from paravt_env.vector import LongVideoVectorEnv
from train.rollout.play import Rollout, play
from train.rollout.starts import Start
from train.workers.lanes import Heartbeat, Lane, play_in_lanes
from train.workers.weight_sync import CopySync, WeightSync, connect


@dataclass
class RolloutWorkers:
    """Lanes that play side by side.

    Attributes:
        lanes: Their environments and agents.
        sync: How new weights reach them; None where they share the learner's.
        engine: What draws for all of them; None where the agents do.
        heartbeat: Told of every turn.
        resources: What is closed at the end.
    """

    lanes: list[Lane]
    sync: WeightSync | None = None
    engine: Engine | None = None
    heartbeat: Heartbeat = field(default_factory=Heartbeat)
    resources: ExitStack = field(default_factory=ExitStack)

    @property
    def agents(self) -> list[TrainableAgent]:
        """The agent of each lane; the first one's generator seeds the others'."""
        return [lane.agent for lane in self.lanes]  # type: ignore[misc]

    @property
    def rows(self) -> int:
        """Rows of all lanes."""
        return sum(lane.env.num_envs for lane in self.lanes)

    def play(self, starts: Sequence[Start], size: int) -> list[Rollout]:
        """Play groups of `size` equal starts, as many batches as it takes."""
        if len(self.lanes) == 1:
            (lane,) = self.lanes
            rollouts = []
            for first in range(0, len(starts), lane.env.num_envs):
                part = starts[first : first + lane.env.num_envs]
                rollouts += play(lane.env, lane.agent, part, self.heartbeat)
            return rollouts
        smallest = min(lane.env.num_envs for lane in self.lanes) // size * size
        batch, rollouts = smallest * len(self.lanes), []
        for first in range(0, len(starts), batch):
            part = starts[first : first + batch]
            lanes = self.lanes[: len(part) // size]
            drawn = self.agents[0].draw_seeds(len(lanes))
            for agent, seed in zip(self.agents[1:], drawn[1:], strict=False):
                agent.seed(seed)
            rollouts += play_in_lanes(lanes, part, size, self.heartbeat)
        return rollouts

    def rest(self) -> None:
        """Nothing is played until the weights change: an engine on the learner's card sleeps."""
        if self.engine is not None:
            self.engine.sleep()

    def weights_changed(self, version: int) -> None:
        """Bring the learner's weights to the workers and forget what older ones computed.

        An engine that sleeps wakes.
        """
        if self.sync is not None:
            self.sync.push(version)
        for agent in self.agents:
            agent.weights_changed(version)

    def counters(self) -> dict[str, float]:
        """Totals of all lanes so far; an engine that lanes share is counted once."""
        total = AgentStats()
        every = [agent.stats for agent in self.agents]
        for stats in {id(stats): stats for stats in every}.values():
            total.frames_encoded += stats.frames_encoded
            total.tokens_sampled += stats.tokens_sampled
            for stage, seconds in stats.seconds.items():
                total.seconds[stage] = total.seconds.get(stage, 0.0) + seconds
        worlds = [lane.env.simulation for lane in self.lanes]
        return {
            "frames_decoded": float(sum(world.video.store.decoded for world in worlds)),
            "frames_encoded_sampling": float(total.frames_encoded),
            "tokens_sampled": float(total.tokens_sampled),
            "time/video": sum(world.video_seconds for world in worlds),
            **{f"time/{stage}": seconds for stage, seconds in total.seconds.items()},
            **worlds[0].judge_totals(),
        }

    def close(self) -> None:
        """End the engine."""
        self.resources.close()


def make_workers(
    config: AgentConfig,
    vlm: VisionLanguageModel,
    envs: Sequence[LongVideoVectorEnv],
    seed: int,
    apart: bool = False,
    version: int = 0,
) -> RolloutWorkers:
    """Workers over the learner's policy.

    Args:
        config: How they play, and through which engine.
        vlm: The learner's policy.
        envs: The rows of each lane.
        seed: Of the first lane's sampling.
        apart: The learner may update while they play: give them weights of their own, and an
            engine that never sleeps.
        version: Updates that the weights have seen.

    Raises:
        ValueError: A factory of the user's cannot be imported, or its agent cannot be trained.
        EngineError: vLLM is not installed or does not start.
    """
    limits = Limits.of(envs[0].simulation.settings)
    if config.engine in ("vllm", "vllm_server"):
        workers, policy, make = _through_engine(config, vlm, apart, version)
    else:
        workers, policy, make = _through_policy(config, vlm, apart)
    with workers.resources as resources:
        for lane, env in enumerate(envs):
            agent = make(policy, config, limits, seed + lane)
            if not isinstance(agent, TrainableAgent):
                raise ValueError(
                    f"agent.engine={config.engine!r} made a {type(agent).__name__}, which cannot "
                    "be trained: agents.base.TrainableAgent lists what it needs"
                )
            agent.version, agent.strict = version, True
            workers.lanes.append(Lane(env, agent))
        if workers.engine is None and len(envs) > 1:
            _take_turns(workers.agents)
        workers.resources = resources.pop_all()
    return workers


def _through_policy(
    config: AgentConfig, vlm: VisionLanguageModel, apart: bool
) -> tuple[RolloutWorkers, VisionLanguageModel, Factory]:
    """Agents over the learner's own weights, or over a copy of them."""
    make = agent_factory(config.engine)
    if not apart:
        return RolloutWorkers([]), vlm, make
    played = vlm.around(copy.deepcopy(vlm.model))
    played.model.requires_grad_(False)
    return RolloutWorkers([], CopySync(vlm, played)), played, make


def _through_engine(
    config: AgentConfig, vlm: VisionLanguageModel, apart: bool, version: int
) -> tuple[RolloutWorkers, VisionLanguageModel, Factory]:
    """Agents over one vLLM engine, which gets the learner's weights."""
    vlm.features.limit = config.feature_cache_gib * 2**30
    if apart:
        config = replace(config, vllm=replace(config.vllm, sleep=0))
    engine = start_engine(config, vlm)
    workers = RolloutWorkers([], engine=engine)
    with workers.resources as resources:
        resources.callback(engine.close)
        workers.sync = connect(config, vlm.model, engine)
        workers.sync.push(version)
        workers.resources = resources.pop_all()

    def make(
        vlm: VisionLanguageModel, config: AgentConfig, limits: Limits, seed: int
    ) -> TrainableAgent:
        return VLLMAgent(vlm, config, engine, limits, seed)

    return workers, vlm, make


def _take_turns(agents: Sequence[TrainableAgent]) -> None:
    """Agents of one policy act one at a time; their crops are decoded side by side."""
    lock = Lock()

    def one_at_a_time(act: Callable) -> Callable:
        def acting(*given):
            with lock:
                return act(*given)

        return acting

    for agent in agents:
        agent.act = one_at_a_time(agent.act)  # type: ignore[method-assign]
