"""verl plays this environment: an agent loop whose tokens are those of our own conversations.

    actor_rollout_ref.rollout.agent.agent_loop_config_path: loop.yaml      # and a row's agent_name

    - name: paravt
      _target_: train.adapters.verl.CropAgentLoop
      game: {tasks: synthetic, frame_size: [160, 288], frames_per_crop: 8}
      agent: {prompt_style: qwen3vl, max_new_tokens: 1024}

A row of the data set carries `extra_info: {task_id: ..., frame_budget: ..., seed: ...}`, so that a
group shares its K. The loop asks verl's server for the tokens of each turn and steps the
environment; the calls of a turn are one step. Frames are pictures, and a crop's are shown in the
context: one output holds one conversation, so there are no sub-agents. Tested with the real base
class and a scripted server; not run end to end (`docs/adapters.md`).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from functools import lru_cache
from typing import Any, NamedTuple
from uuid import uuid4

import numpy as np
from PIL import Image

from agents.base import Trajectory
from agents.config import AgentConfig, Limits
from agents.model.vlm import VisionLanguageModel
from agents.text.conversation import ConversationAgent, Reading, Sampled, Turn
from paravt_env.episode.simulation import Failure, Simulation
from paravt_env.settings import make_settings
from train.adapters.tool_calling import Played, drawn_start

try:
    from omegaconf import OmegaConf
    from verl.experimental.agent_loop.agent_loop import AgentLoopBase, AgentLoopOutput
except ImportError as error:
    raise ImportError(
        f"verl is not there ({error}): pip install --no-deps verl==0.9.1 and what it imports"
    ) from error

Ask = Callable[[Sequence[int], Sequence[Image.Image], int], Sampled]
"""Draws a turn: the context's tokens, its pictures, tokens at most."""


class ServedAgent(ConversationAgent):
    """Our conversation, whose tokens a server draws.

    Args:
        vlm: Tokenizer and image geometry; it holds no weights.
        config: How it plays.
        limits: What the environment allows.
        ask: Draws a turn.
    """

    def __init__(
        self, vlm: VisionLanguageModel, config: AgentConfig, limits: Limits, ask: Ask
    ) -> None:
        super().__init__(vlm, config, limits)
        if self.evidence != "frames" or self.frames_as != "image":
            raise ValueError(
                "verl's output holds one conversation with pictures: leave agent.evidence and "
                "agent.frames_as as they are (frames, image)"
            )
        self._ask = ask

    def draw(self, turns: Sequence[Turn]) -> list[Sampled]:
        """Ask for each turn."""
        return [self._ask(t.context.ids, pictures(t.context.images), t.limit) for t in turns]

    def read(self, readings: Sequence[Reading]) -> list[Sampled]:
        """Never asked for: crops are shown in the context."""
        raise RuntimeError("a crop's frames go into the context here")


class Finished(NamedTuple):
    """A rollout: its conversation, what it earned, and its turns."""

    trajectory: Trajectory | None
    played: Played
    total: float
    turns: int


def play(simulation: Simulation, agent: ServedAgent, row: Mapping[str, Any]) -> Finished:
    """One episode from the start that a data set's row gives."""
    names = ("task_id", "frame_budget", "seed")
    start = drawn_start(simulation, *(row.get(name) for name in names))
    (episode,) = simulation.start([start])
    if isinstance(episode, Failure):
        stop = str(episode.info()["stop_reason"])
        return Finished(None, Played({}, stop, str(episode.error)), 0.0, 0)
    agent.begin([0])
    turns, over = 0, False
    while not over:
        (decision,) = agent.act(simulation.observe([episode]), [0])
        step = simulation.step({0: episode}, {0: decision.action})[0]
        turns, over = turns + 1, step.terminated or step.truncated
    error = str(step.info.get("error", ""))
    terms = {} if error else {n: float(v) for n, v in step.info["reward_terms"].items()}
    played = Played(terms, str(step.info["stop_reason"]), error)
    return Finished(agent.trajectories(0)[0], played, float(step.reward), turns)


def pictures(images: Sequence[np.ndarray]) -> list[Image.Image]:
    """Frames as verl takes them."""
    return [Image.fromarray(image) for image in images]


@lru_cache(maxsize=4)
def simulation_of(settings: str) -> Simulation:
    """One simulation for all loops of a process that have these settings (JSON)."""
    return Simulation(make_settings(json.loads(settings)))


@lru_cache(maxsize=2)
def policy_of(path: str) -> VisionLanguageModel:
    """Tokenizer and image geometry of a checkpoint, without its weights."""
    return VisionLanguageModel.load(path, device="meta")


class CropAgentLoop(AgentLoopBase):
    """The agent loop; verl makes one for every rollout.

    Args:
        game: The arguments of `LongVideoEnv`.
        agent: Fields of `agents.config.AgentConfig`; the checkpoint is verl's own.
    """

    def __init__(
        self,
        *args: Any,
        game: Mapping[str, Any] | None = None,
        agent: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self._simulation = simulation_of(json.dumps(plain(game), sort_keys=True))
        self._vlm = policy_of(str(self.config.actor_rollout_ref.model.path))
        self._settings = AgentConfig(**{"evidence": "frames", "forced_prefix": "", **plain(agent)})

    async def run(self, sampling_params: dict[str, Any], **kwargs: Any) -> AgentLoopOutput:
        """Play one rollout.

        Args:
            sampling_params: Of the server; the limit on tokens is the turn's own.
            **kwargs: The row's columns; `extra_info` says where the episode begins.

        Raises:
            ValueError: The row names no task, or the conversation is longer than verl's lengths.
        """
        row = kwargs.get("extra_info") or {}
        if not isinstance(row, Mapping) or row.get("task_id") is None:
            raise ValueError("a row needs extra_info with task_id, frame_budget and seed")
        loop, request = asyncio.get_running_loop(), uuid4().hex

        def ask(ids: Sequence[int], images: Sequence[Image.Image], limit: int) -> Sampled:
            asked: Future[Any] = asyncio.run_coroutine_threadsafe(
                self.server_manager.generate(
                    request_id=request,
                    prompt_ids=list(ids),
                    sampling_params={**sampling_params, "logprobs": True, "max_tokens": limit},
                    image_data=list(images) or None,
                ),
                loop,
            )
            drawn = asked.result()
            if drawn.log_probs is None or len(drawn.log_probs) != len(drawn.token_ids):
                raise ValueError("the server gave no log-probability for every token")
            return Sampled(list(drawn.token_ids), list(drawn.log_probs))

        agent = ServedAgent(self._vlm, self._settings, Limits.of(self._simulation.settings), ask)
        done = await loop.run_in_executor(None, play, self._simulation, agent, row)
        return self._output(done)

    def _output(self, done: Finished) -> AgentLoopOutput:
        """A rollout as verl takes it; one without a conversation is a token that is not trained."""
        # verl asks every rollout of a batch for the names of the first one
        terms = dict.fromkeys((*self._simulation.preset.used, "total"), 0.0) | done.played.terms
        own = {"paravt_stop_reason": done.played.stop_reason, "paravt_error": done.played.error}
        extra = {"reward_extra_info": terms | own, "turn_scores": [], "tool_rewards": []}
        one = done.trajectory
        if one is None:
            end = [self._vlm.tokenizer.eos_token_id]
            return AgentLoopOutput(
                prompt_ids=end, response_ids=end, response_mask=[0], response_logprobs=[0.0],
                reward_score=0.0, metrics={}, extra_fields=extra,
            )  # fmt: skip
        limits = self.rollout_config
        for name, length in (("prompt", len(one.prompt_ids)), ("response", len(one.branch_ids))):
            most = int(limits[f"{name}_length"])
            if length > most:
                raise ValueError(
                    f"a {name} of {length} tokens, and rollout.{name}_length is {most}: raise it, "
                    "or show fewer frames; cut, its pictures would stand without their tokens"
                )
        return AgentLoopOutput(
            prompt_ids=one.prompt_ids.tolist(),
            response_ids=one.branch_ids.tolist(),
            response_mask=one.loss_mask.astype(int).tolist(),
            response_logprobs=one.logprobs.astype(float).tolist(),
            multi_modal_data={"images": pictures([*one.prompt_images, *one.branch_images])},
            reward_score=done.total,
            num_turns=2 * done.turns,
            metrics={},
            extra_fields=extra,
        )


def plain(settings: Any) -> dict[str, Any]:
    """Settings as plain data, also where they come from a YAML file through OmegaConf."""
    if settings is None:
        return {}
    return OmegaConf.to_container(settings) if OmegaConf.is_config(settings) else dict(settings)
