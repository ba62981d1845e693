"""What an agent is: the protocol, its decisions, and the token-level trajectories it leaves behind.

On the data's journey this is the hand-over from the environment (observations) to the policy
(actions), and from the policy (trajectories) to the trainer. An agent is one file and needs nothing
from ``train``; try one with ``paravt play --agent random``.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, cast, runtime_checkable

import numpy as np

from paravt_env.settings import EnvSettings
from paravt_env.spaces import empty_action

Evidence = Literal["subagent", "frames"]
EngineName = Literal["transformers", "vllm", "vllm_server"]


@dataclass
class VLLMConfig:
    """A vLLM engine; used where ``agent.engine`` is ``vllm`` or ``vllm_server``."""

    url: str = ""
    """``vllm_server``: address of a running server; empty starts one on this machine."""
    max_model_len: int = 8192
    """Tokens of the longest conversation."""
    max_sequences: int = 64
    """Completions that are drawn at the same time."""
    max_requests: int = 128
    """Requests (one for equal contexts) that the engine holds, running or queued; the others wait
    with their rows and no copy is made of their frames. Fewer than `max_sequences` may idle it."""
    max_images: int = 512
    """Images in one conversation at most."""
    block_size: int = 32
    """Tokens of a block of the prefix cache; prompts shorter than one are never shared."""
    kv_cache_gib: float = 1.0
    """Memory for keys and values, which at least one conversation of ``max_model_len`` must fit.
    With the weights, this is what the engine takes."""
    gpu_memory_utilization: float = 0.4
    """Share of a GPU that must be free where the engine starts, and no bound of what it takes: room
    for its weights, ``kv_cache_gib`` and some GiB to compute in, beside the learner's."""
    tensor_parallel: int = 1
    """GPUs that hold one copy of the policy; more than one for a server only."""
    eager: bool = True
    """Run without compiled graphs: starts in seconds."""
    sleep: int = 1
    """What ``vllm`` on a GPU leaves to the learner during an update: 0 nothing; 1 the memory of its
    keys and values, and of its weights, which wait in host memory; 2 the same, and its weights are
    dropped. A server, vLLM on a CPU, and a run that plays meanwhile (``run.asynchronous``) stay
    awake."""
    sync: Literal["memory", "nccl"] = "memory"
    """How weights reach a server: through shared memory on one machine, or between GPUs."""
    learner_address: str = "127.0.0.1"
    """``nccl``: address of the learner's machine, as the server sees it."""
    sync_deadline: float = 120.0
    """Seconds after which a weight sync that has not finished is an error."""
    timeout: float = 600.0
    """Seconds that a server may take for one request."""
    start_timeout: float = 300.0
    """Seconds that a server may take to start."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in ("max_sequences", "max_requests"):
            if getattr(self, name) < 1:
                raise ValueError(f"agent.vllm.{name} must be at least 1: {getattr(self, name)}")
        if not 0 < self.gpu_memory_utilization <= 1:
            raise ValueError(
                "agent.vllm.gpu_memory_utilization is a share of the card, above 0 and at most 1: "
                f"{self.gpu_memory_utilization}"
            )
        if not self.kv_cache_gib > 0:
            raise ValueError(f"agent.vllm.kv_cache_gib must be positive: {self.kv_cache_gib}")
        if self.sleep not in (0, 1, 2):
            raise ValueError(
                "agent.vllm.sleep must be 0 (awake), 1 (weights wait in host memory) or 2 (weights "
                f"are dropped): {self.sleep}"
            )


@dataclass
class AgentConfig:
    """How a text agent plays. The same settings serve training, evaluation and the cold start."""

    checkpoint: str = ""
    """Local folder or hub name of a Qwen3-VL / Qwen2.5-VL style checkpoint."""
    device: str = "cpu"
    """Torch device of the weights, such as ``cpu`` or ``cuda:0``."""
    dtype: str = "float32"
    """Torch dtype of the weights."""
    engine: EngineName = "transformers"
    """What draws the tokens: ``transformers`` in this process, ``vllm`` in this process, or
    ``vllm_server``."""
    vllm: VLLMConfig = field(default_factory=VLLMConfig)
    """Settings of a vLLM engine."""
    prompt_style: str = "paravt"
    """Name of a prompt style in ``paravt_env.protocol.parts.PROMPTS``."""
    temperature: float = 0.7
    """Sampling temperature; 0 is greedy decoding."""
    max_new_tokens: int = 2048
    """Tokens that one turn may sample."""
    answer_tokens: int = 64
    """Tokens that the forced-answer turn may sample."""
    subagent_tokens: int = 512
    """Tokens that one reading of a crop may sample."""
    evidence: Evidence | None = None
    """``subagent``: the same weights read crops, in text; ``frames``: they go in context; None:
    what the environment asks for (``ParaVT-LongVideo-Frames-v0`` asks for ``frames``)."""
    forced_prefix: str = "<think>\n"
    """Text that every turn starts with; part of the completion, never trained."""
    feature_cache_gib: float = 2.0
    """Memory for features of images that were looked at (``transformers``, and the learner where
    the vision tower is frozen); the oldest go first."""

    def __post_init__(self) -> None:
        """Check the ranges, and what vLLM in this process cannot do."""
        if not self.feature_cache_gib >= 0:
            raise ValueError(
                f"agent.feature_cache_gib must not be negative: {self.feature_cache_gib}"
            )
        if self.engine != "vllm":
            return
        kind, _, card = self.device.partition(":")
        own = os.environ.get("LOCAL_RANK", "0")
        if kind == "cuda" and card not in ("", own):
            advice = f"Set CUDA_VISIBLE_DEVICES={card} and agent.device=cuda"
            if "LOCAL_RANK" in os.environ:
                advice = "Set agent.device=cuda, so that each process takes its own"
            raise ValueError(
                f"agent.device={self.device} with agent.engine=vllm: vLLM in this process takes "
                f"card {own} of those that it sees. {advice}, or agent.engine=vllm_server"
            )
        if self.vllm.tensor_parallel > 1:
            raise ValueError(
                f"agent.vllm.tensor_parallel={self.vllm.tensor_parallel} with agent.engine=vllm: "
                "each process has an engine of its own on one card, and new weights reach that "
                "card alone. Set agent.vllm.tensor_parallel=1, or agent.engine=vllm_server"
            )


@dataclass(frozen=True)
class Limits:
    """What the environment allows, as a text agent is told it."""

    max_crops: int = 5
    """Calls in a turn."""
    max_crop_seconds: float = 45.0
    """Seconds of video in a crop."""
    max_turns: int = 3
    """Turns that may call."""
    evidence: Evidence = "subagent"
    """How crops are taken in, unless the agent's own setting says otherwise."""

    @classmethod
    def of(cls, settings: EnvSettings) -> Limits:
        """The limits of an environment."""
        return cls(
            settings.max_crops,
            settings.max_crop_seconds,
            settings.max_turns,
            cast(Evidence, settings.evidence),
        )


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
    """

    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    roles: tuple[int, ...]
    version: int = 0


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
        prompt_images: uint8 (H, W, 3) images behind the prompt's image tokens, in order.
        branch_images: The same for the branch.
        kind: ``main`` for the agent's own conversation, ``subagent`` for the reading of a crop.
        version: Version of the weights that sampled it.
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

    def __len__(self) -> int:
        return len(self.prompt_ids) + len(self.branch_ids)


def image_key(image: np.ndarray) -> bytes:
    """Digest of an image's size and pixels: equal images have equal keys."""
    digest = hashlib.blake2b(repr((image.shape, image.dtype.str)).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(image).data)
    return digest.digest()


@dataclass
class AgentStats:
    """Counters of a text agent since they were last cleared."""

    frames_encoded: int = 0
    """Images that went through the vision tower."""
    frames_reused: int = 0
    """Images whose features were already there."""
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
        """Release it; whoever made the agent calls this, once, also where playing failed."""
