"""What an agent is: the protocol, its decisions, and the token-level trajectories it leaves behind.

On the data's journey this is the hand-over from the environment (observations) to the policy
(actions), and from the policy (trajectories) to the trainer. An agent is one file and needs nothing
from ``train``; try one with ``paravt play --agent random``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np

from paravt_env.protocol.tags import Role
from paravt_env.spaces import empty_action


@dataclass(frozen=True)
class Completion:
    """One sampled turn. ``len(token_ids) == len(logprobs) == len(roles)``.

    Attributes:
        text: The completion with its forced prefix.
        token_ids: Tokens of the completion, the forced prefix first.
        logprobs: Log-probability of each token under the tempered distribution that was sampled
            (0.0 for the forced prefix).
        roles: A ``paravt_env.protocol.Role`` for each token.
        version: Version of the weights that sampled it.
        cut: Whether the limit on its tokens ended it, and no end of turn.
        length: Tokens that the policy wrote, without the forced prefix; None if unknown.
    """

    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    roles: tuple[int, ...]
    version: int = 0
    cut: bool = False
    length: int | None = None


class AgentError(RuntimeError):
    """An agent that cannot decide: its server is gone, or answers nonsense.

    Raised by ``act`` it ends the episode of every row that was asked; ``Decision.failed`` ends that
    of one row. Both are counted and never scored as an answer of the model's.
    """


@dataclass(frozen=True)
class Decision:
    """What an agent does in one row: the action and, for text agents, the completion behind it.

    Attributes:
        error: Why the agent could not decide, "" where it did; the row's episode ends then.
    """

    action: dict[str, Any]
    completion: Completion | None = None
    error: str = ""

    @classmethod
    def failed(cls, reason: str, max_crops: int) -> Decision:
        """A row that the agent could not decide, and why."""
        return cls(empty_action(max_crops), error=reason or "no reason given")


@dataclass(frozen=True)
class Trajectory:
    """The tokens of one conversation, exactly as they were sampled; nothing is re-tokenised.

    Attributes:
        prompt_ids: (P,) int64, the tokens before the first completion.
        branch_ids: (C,) int64, everything after: completions, tool responses, turn separators.
        loss_mask: (C,) bool, true where the policy sampled the token.
        logprobs: (C,) float32, behaviour log-probabilities (0 where not sampled).
        roles: (C,) int8, a ``paravt_env.protocol.Role`` for each token.
        prompt_images: uint8 (H, W, 3) images behind the prompt's image tokens, in order; where
            frames are shown as video, temporal patches (2, H, W, 3) behind its video tokens.
        branch_images: The same for the branch.
        kind: ``main`` for the agent's own conversation, ``subagent`` for the reading of a crop.
        version: Version of the weights that sampled it.
        due: (C,) bool, true where the grammar of a turn asked for a tag and another token was
            sampled; None if unknown.
    """

    prompt_ids: np.ndarray
    branch_ids: np.ndarray
    loss_mask: np.ndarray
    logprobs: np.ndarray
    roles: np.ndarray
    prompt_images: tuple[np.ndarray, ...] = ()
    branch_images: tuple[np.ndarray, ...] = ()
    kind: Literal["main", "subagent"] = "main"
    version: int = 0
    due: np.ndarray | None = None

    @property
    def structural(self) -> np.ndarray:
        """(C,) bool: the tokens of tags, and those that stand where one was due."""
        tags = self.roles == Role.tag
        return tags if self.due is None else tags | self.due

    def __len__(self) -> int:
        return len(self.prompt_ids) + len(self.branch_ids)


def image_key(image: np.ndarray) -> bytes:
    """Digest of an image's size and pixels: equal images have equal keys."""
    digest = hashlib.blake2b(repr((image.shape, image.dtype.str)).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(image).data)
    return digest.digest()


def image_size(image: np.ndarray) -> tuple[int, int]:
    """Height and width in pixels of an image (H, W, 3) or of a temporal patch (T, H, W, 3)."""
    height, width = image.shape[-3:-1]
    return height, width


@dataclass
class AgentStats:
    """Counters of a text agent since they were last cleared."""

    frames_encoded: int = 0
    """Images, or temporal patches of a video, that went through the vision tower."""
    frames_reused: int = 0
    """Those whose features were already there."""
    tokens_sampled: int = 0
    """Tokens drawn from the policy."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Wall-clock seconds by stage (``encode``, ``prefill``, ``decode``)."""


@runtime_checkable
class Agent(Protocol):
    """Anything that acts. A single environment is row 0."""

    def begin(self, rows: Sequence[int]) -> None:
        """Clear the state of rows that start a new episode."""

    def act(self, observations: Mapping[str, Any], rows: Sequence[int]) -> list[Decision]:
        """Decide for all active rows at once.

        Args:
            observations: Batched observation of the vector environment (all rows).
            rows: Indices of the rows that need a decision.

        Returns:
            One decision for each entry of ``rows``, in order.
        """


@runtime_checkable
class TextAgent(Agent, Protocol):
    """An agent that writes completions and can be trained."""

    def trajectories(self, row: int) -> list[Trajectory]:
        """Token-level trajectories of a row's episode so far: main first, then its sub-agents."""


@runtime_checkable
class TrainableAgent(TextAgent, Protocol):
    """All that a trainer uses of an agent.

    `agent.engine: "file.py:factory"` makes one in training: the factory is called with the policy
    (`agents.model.vlm.VisionLanguageModel`), the `AgentConfig`, the `Limits` and a seed, once a
    lane. In a run that plays ahead the policy is a copy whose weights the trainer replaces.
    """

    version: int
    """Of the weights that draw: updates that they have seen. Every trajectory says its own."""
    strict: bool
    """A lost engine is an error instead of failed rows; the trainer sets it."""

    @property
    def stats(self) -> AgentStats:
        """What was drawn so far; the same object for agents that share an engine."""

    def weights_changed(self, version: int) -> None:
        """The policy has the weights of `version` now: forget what older ones computed."""

    def seed(self, seed: int) -> None:
        """Seed the generator that tokens are drawn with."""

    def draw_seeds(self, count: int) -> list[int]:
        """`count` seeds drawn from that generator, for agents that play beside this one."""

    def generator_state(self) -> np.ndarray:
        """State of the generator, uint8 of any length, for checkpoints."""

    def set_generator_state(self, state: np.ndarray) -> None:
        """Go on from a state.

        Raises:
            ValueError: It is that of another kind of generator.
        """


@runtime_checkable
class MeteredAgent(Agent, Protocol):
    """An agent that says what an episode has cost."""

    def usage(self, row: int) -> Mapping[str, float]:
        """What a row's episode has used so far, by name.

        ``frames`` and ``visual_tokens`` that went into contexts, ``prompt_tokens`` and
        ``completion_tokens``, ``requests``, ``cost``: what the agent knows of these.
        """


@runtime_checkable
class ClosableAgent(Agent, Protocol):
    """An agent that holds something: an engine, a server, threads."""

    def close(self) -> None:
        """Release it; the maker of the agent calls this once, also after a failure."""
