"""How a text agent plays, as typed dataclasses, and what the environment tells it of its limits.

The `agent` group of every recipe. Read by the agents, the rollout workers and the evaluation.
Command: `paravt train paragrpo_mini --print-config`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, cast

from paravt_env.common.doors import check_name
from paravt_env.common.names import known_name
from paravt_env.crop import CropFrames
from paravt_env.protocol.parts import FRAMES_AS, FramesAs
from paravt_env.settings import EnvSettings

Evidence = Literal["subagent", "frames"]


ENGINES = ("transformers", "vllm", "vllm_server")


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
    """Images in one conversation at most; of a video, each pair of frames counts as one."""
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
    engine: str = "transformers"
    """What draws the tokens: ``transformers`` in this process, ``vllm`` in this process,
    ``vllm_server``, or an agent of the user's own, ``file.py:factory`` (see
    :class:`agents.base.TrainableAgent`)."""
    vllm: VLLMConfig = field(default_factory=VLLMConfig)
    """Settings of a vLLM engine."""
    prompt_style: str = "paravt"
    """Name of a prompt style in ``paravt_env.protocol.styles.PROMPTS``, or `file.py:name`."""
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
    frames_as: FramesAs = "image"
    """``image``: each frame is a picture after its time; ``video``: the overview, and each crop, is
    a video in the format that Qwen3-VL was trained on, two frames a temporal patch and ``<t
    seconds>`` before it: half the visual tokens and half the vision tower. The style's text before
    each frame is then not written."""
    forced_prefix: str = "<think>\n"
    """Text that every turn starts with; part of the completion, never trained."""
    answer_prefix: bool = True
    """Whether the forced-answer turn starts with it, too; without, its few tokens are the
    answer's."""
    feature_cache_gib: float = 2.0
    """Memory for features of images that were looked at (``transformers``, and the learner where
    the vision tower is frozen); the oldest go first."""

    def __post_init__(self) -> None:
        """Check the ranges, and what vLLM in a process cannot do."""
        check_name("agent.engine", self.engine, dict.fromkeys(ENGINES))
        known_name("agent.frames_as", self.frames_as, FRAMES_AS)
        if not self.feature_cache_gib >= 0:
            raise ValueError(
                f"agent.feature_cache_gib must not be negative: {self.feature_cache_gib}"
            )
        if self.engine == "vllm" and self.vllm.tensor_parallel > 1:
            raise ValueError(
                f"agent.vllm.tensor_parallel={self.vllm.tensor_parallel} with agent.engine=vllm: "
                "each process has an engine of its own on one card, and new weights reach that "
                "card alone. Set agent.vllm.tensor_parallel=1, or agent.engine=vllm_server"
            )


@dataclass(frozen=True)
class Limits:
    """The limits of the environment that a text agent's prompt states."""

    max_crops: int = EnvSettings.max_crops
    """Calls in a turn."""
    max_crop_seconds: float = EnvSettings.max_crop_seconds
    """Seconds of video in a crop."""
    max_turns: int = EnvSettings.max_turns
    """Turns that may call."""
    evidence: Evidence = "subagent"
    """How crops are taken in, unless the agent's own setting says otherwise."""
    lenient_calls: bool = False
    """Whether malformed calls get a second reading; an agent reads its own as the environment."""
    crop_frames: CropFrames | None = None
    """What is told of the frames of crops: where calls choose their density, or have a quota."""
    code: bool = False
    """Whether the tool is code: what it shows goes into the context unread by a sub-agent."""

    @property
    def density(self) -> bool:
        """Whether a call may ask for its density."""
        return self.crop_frames is not None and self.crop_frames.chosen

    @classmethod
    def of(cls, settings: EnvSettings) -> Limits:
        """The limits of an environment."""
        return cls(
            settings.max_crops,
            settings.max_crop_seconds,
            settings.max_turns,
            cast(Evidence, settings.evidence),
            settings.lenient_calls,
            settings.crop_frames,
            settings.tool == "code",
        )
