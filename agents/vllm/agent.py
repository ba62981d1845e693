"""The LMM policy through vLLM: an engine in this process, or a server; the agent is the same.

Plays like `agents/model/agent.py`: contexts, roles and parsing are those of
`agents/text/conversation.py`, only the tokens come from elsewhere. Rows with equal contexts (a
group's first turn) are one request for several completions; the readings of all crops of all rows
are one batch. Chosen by `--agent.engine vllm` or `--agent.engine vllm_server`.
"""

from __future__ import annotations

from collections.abc import Sequence
from threading import Lock

import numpy as np
import torch

from agents.base import AgentStats, image_key
from agents.config import AgentConfig, Limits
from agents.model.generator import DrawsWithTorch
from agents.model.vlm import VisionLanguageModel
from agents.text.context import TokenContext
from agents.text.conversation import ConversationAgent, Reading, Sampled, Turn
from agents.vllm.engine import Engine, EngineError, Generated, Prompt
from agents.vllm.local import InProcessEngine
from agents.vllm.server import ServerEngine

COUNTING = Lock()
"""Lanes share an engine and its counters."""


class EngineSampler:
    """Draws completions for batches of conversations from an engine.

    Args:
        engine: What draws.
        seed: Seed of the generator that seeds every request, so that what a request draws does not
            depend on what else is in the batch.
    """

    def __init__(self, engine: Engine, seed: int = 0) -> None:
        self.engine = engine
        self._earlier = engine.frames()["encoded"] - engine.stats.frames_encoded
        self.generator = torch.Generator()
        self.generator.manual_seed(seed)

    @property
    def stats(self) -> AgentStats:
        """Counters of the engine, shared by all agents that use it."""
        return self.engine.stats

    def sample(
        self, contexts: Sequence[TokenContext], limits: Sequence[int], temperature: float
    ) -> list[Generated]:
        """One completion for each context, in one batch; nothing is appended to the contexts.

        Contexts that are equal, with equal limits, are one request.
        """
        members: dict[tuple[object, ...], list[int]] = {}
        for i, (context, limit) in enumerate(zip(contexts, limits, strict=True)):
            images = map(image_key, context.images)
            members.setdefault((np.array(context.ids).tobytes(), limit, *images), []).append(i)
        seeds = torch.randint(2**31, (len(members),), generator=self.generator).tolist()
        prompts = [
            Prompt(contexts[rows[0]], len(rows), limits[rows[0]], temperature, seed)
            for rows, seed in zip(members.values(), seeds, strict=True)
        ]
        drawn: dict[int, Generated] = {}
        for rows, results in zip(members.values(), self.engine.generate(prompts), strict=True):
            drawn.update(zip(rows, results, strict=True))
        self._count(sum(len(context.images) for context in contexts))
        return [drawn[i] for i in range(len(contexts))]

    def _count(self, shown: int) -> None:
        """Count images; what others that share the engine had encoded meanwhile is counted too."""
        with COUNTING:
            encoded = self.engine.frames()["encoded"] - self._earlier - self.stats.frames_encoded
            self.stats.frames_encoded += encoded
            self.stats.frames_reused += shown - encoded


class VLLMAgent(DrawsWithTorch, ConversationAgent):
    """Plays any Qwen3-VL style checkpoint that a vLLM engine has loaded.

    Args:
        vlm: The checkpoint's adapter; its tokenizer and image geometry are used, never its weights.
        config: How it plays.
        engine: What draws the tokens; agents may share one.
        limits: What the environment allows.
        seed: Seed of the sampling generator.

    Raises:
        EngineError: Frames are to be shown as video, and vLLM would normalise them otherwise.
    """

    def __init__(
        self,
        vlm: VisionLanguageModel,
        config: AgentConfig,
        engine: Engine,
        limits: Limits | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(vlm, config, limits)
        if self.frames_as == "video":
            check_normalised_alike(vlm)
        self.longest = config.vllm.max_model_len
        self.engine = engine
        self.sampler = EngineSampler(engine, seed)

    @classmethod
    def load(cls, config: AgentConfig, limits: Limits | None = None, seed: int = 0) -> VLLMAgent:
        """Start the engine that `config.engine` names and make an agent of it.

        No weights will be pushed: a running server must hold those of the checkpoint.
        """
        vlm = VisionLanguageModel.load(config.checkpoint, config.dtype, "meta")
        return cls(vlm, config, start_engine(config, vlm, as_loaded=True), limits, seed)

    def weights_changed(self, version: int) -> None:
        """Tell the agent that the engine has the weights of `version` now."""
        self.version = version

    def close(self) -> None:
        """Close the engine, which other agents may share."""
        self.engine.close()

    def draw(self, turns: Sequence[Turn]) -> list[Sampled]:
        """Draw a turn for all rows in one batch."""
        return self._drawn([turn.context for turn in turns], [turn.limit for turn in turns])

    def read(self, readings: Sequence[Reading]) -> list[Sampled]:
        """Read all crops of all rows in one batch."""
        return self._drawn([one.context for one in readings], [one.limit for one in readings])

    def _drawn(self, contexts: Sequence[TokenContext], limits: Sequence[int]) -> list[Sampled]:
        drawn = self.sampler.sample(contexts, limits, self.config.temperature)
        versions = {version for one in drawn for version in one.versions}
        if len(versions) > 1:
            raise EngineError(f"one batch was drawn by several versions of the weights: {versions}")
        self.version = versions.pop() if versions else self.version
        return [Sampled(one.ids, one.logprobs) for one in drawn]


def check_normalised_alike(vlm: VisionLanguageModel) -> None:
    """Refuse a checkpoint whose video is normalised otherwise than its images.

    vLLM normalises what it is handed, temporal patches too, by the settings of images.

    Raises:
        EngineError: Mean or standard deviation differ.
    """
    images, video = vlm.image_processor, vlm.video
    mean = 255.0 * torch.tensor(images.image_mean)
    inverse_std = 1.0 / (255.0 * torch.tensor(images.image_std))
    ours = torch.stack([video.mean, video.inverse_std])
    if not torch.allclose(ours, torch.stack([mean, inverse_std])):
        raise EngineError(
            "the checkpoint's video settings normalise frames otherwise than its image settings do "
            "(image_mean, image_std): agent.frames_as=video needs agent.engine=transformers here"
        )


def start_engine(
    config: AgentConfig, vlm: VisionLanguageModel, as_loaded: bool = False
) -> InProcessEngine | ServerEngine:
    """The engine that `config.engine` names.

    Args:
        config: The policy's checkpoint and the engine's settings.
        vlm: Its tokenizer and image geometry.
        as_loaded: No weights will be pushed: the engine must hold those of the checkpoint.

    Raises:
        EngineError: vLLM is not installed, does not start, or holds other weights.
    """
    try:
        import vllm  # noqa: F401
    except ImportError as error:
        raise EngineError(
            f"agent.engine={config.engine} needs vLLM: pip install 'paravt[vllm]', or, on a CPU "
            "machine, what docs/engines.md says"
        ) from error
    if config.engine == "vllm":
        return InProcessEngine(config, vlm)
    return ServerEngine(config, vlm, as_loaded)
