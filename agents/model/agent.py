"""The LMM policy: a Qwen-VL style checkpoint that plays through Hugging Face transformers.

Turns and readings are drawn in batches, keys and values live from turn to turn, and a group's
shared prompt and its frames are computed once. Try one with ``paravt eval --agent.checkpoint
paravt_mini``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from agents.base import TrainableAgent
from agents.config import AgentConfig, Limits
from agents.model.draws import stream_of
from agents.model.generator import DrawsWithTorch
from agents.model.sampling import Session, TransformersSampler
from agents.model.vlm import VisionLanguageModel
from agents.text.conversation import ConversationAgent, Reading, Sampled, Turn
from paravt_env.common.doors import is_door, opened


class TransformersAgent(DrawsWithTorch, ConversationAgent):
    """Plays any Qwen3-VL / Qwen2.5-VL style checkpoint.

    Args:
        vlm: The checkpoint's adapter.
        config: How it plays.
        limits: What the environment allows.
        seed: Seed of the sampling generator.
    """

    def __init__(
        self,
        vlm: VisionLanguageModel,
        config: AgentConfig,
        limits: Limits | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(vlm, config, limits)
        self.longest = vlm.model.config.text_config.max_position_embeddings
        vlm.features.limit = config.feature_cache_gib * 2**30
        self.sampler = TransformersSampler(vlm, seed)
        self._session: Session | None = None

    @classmethod
    def load(
        cls, config: AgentConfig, limits: Limits | None = None, seed: int = 0
    ) -> TransformersAgent:
        """Load ``config.checkpoint`` and make an agent of it."""
        vlm = VisionLanguageModel.load(config.checkpoint, config.dtype, config.device)
        return cls(vlm, config, limits, seed)

    def weights_changed(self, version: int) -> None:
        """Tell the agent that its weights are those of ``version``: old features go."""
        self.version = version
        self.sampler.clear()
        self._session = None

    def draw(self, turns: Sequence[Turn]) -> list[Sampled]:
        """Continue the session of these rows, or start one."""
        contexts = [turn.context for turn in turns]
        limits = [turn.limit for turn in turns]
        drawn, self._session = self.sampler.resume(
            self._session, contexts, limits, self.config.temperature
        )
        return drawn

    def read(self, readings: Sequence[Reading]) -> list[Sampled]:
        """Read all crops in one batch; their cache is dropped.

        A reading's draws follow from its row's, so that they do not depend on the other rows.
        """
        for reading in readings:
            asks = self._rows[reading.row].context
            if asks is not None and asks.stream is not None:
                reading.context.stream = stream_of(asks.stream, len(asks.ids), reading.call)
        contexts = [reading.context for reading in readings]
        limits = [reading.limit for reading in readings]
        return self.sampler.resume(None, contexts, limits, self.config.temperature)[0]


Factory = Callable[[VisionLanguageModel, AgentConfig, Limits, int], TrainableAgent]
"""Makes an agent: policy, how it plays, what the environment allows, seed."""


def agent_factory(engine: str) -> Factory:
    """What makes agents over a policy in this process: `TransformersAgent`, or a user's factory.

    Args:
        engine: `agent.engine`.

    Raises:
        ValueError: The factory behind `module:factory` or `file.py:factory` is not there.
    """
    return opened("agent.engine", engine) if is_door(engine) else TransformersAgent
