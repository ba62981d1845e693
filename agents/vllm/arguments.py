"""What vLLM is started with, and what the machine must offer it.

Between `agent.vllm` of a recipe and vLLM's own arguments, for the engine in this process
(`agents/vllm/local.py`) and for a server (`agents/vllm/process.py`). Tests: `pytest
tests/policies/test_vllm_settings.py`.
"""

from __future__ import annotations

import os
import shutil
from typing import Any

from agents.config import AgentConfig
from agents.model.vlm import CHECKPOINTS
from agents.vllm.engine import EngineError

WORKER = "agents.vllm.worker"
SHARED_MEMORY = "paravt_shared_memory"
"""Name of the weight-transfer back end for processes on one machine."""


def check_card(device: str) -> None:
    """Refuse a device that vLLM in this process would not take: it takes the process's own card.

    Args:
        device: `agent.device`, such as `cuda` or `cuda:1`.

    Raises:
        EngineError: It is another card.
    """
    kind, _, card = device.partition(":")
    own = os.environ.get("LOCAL_RANK", "0")
    if kind != "cuda" or card in ("", own):
        return
    advice = f"Set CUDA_VISIBLE_DEVICES={card} and agent.device=cuda"
    if "LOCAL_RANK" in os.environ:
        advice = "Set agent.device=cuda, so that each process takes its own"
    raise EngineError(
        f"agent.device={device} with agent.engine=vllm: vLLM in this process takes card {own} of "
        f"those that it sees. {advice}, or agent.engine=vllm_server"
    )


def check_shared_memory(needed: int, folder: str = "/dev/shm") -> None:
    """Refuse a segment that would not fit: the system kills a process that writes past the end.

    Args:
        needed: Bytes of the segment.
        folder: Where the system keeps shared memory; elsewhere than on Linux there is none.

    Raises:
        EngineError: Too little is free.
    """
    if not os.path.isdir(folder):
        return
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise EngineError(
            f"the weights need {needed / 2**30:.1f} GiB of shared memory and {folder} has "
            f"{free / 2**30:.1f} GiB free: give it more (docker run --shm-size="
            f"{-(-needed // 2**30) + 1}g, or mount -o remount,size=...), or set "
            "agent.vllm.sync=nccl"
        )


def checkpoint_path(name: str) -> str:
    """Folder or hub name of a checkpoint; one that ships with the project is known by its name."""
    shipped = CHECKPOINTS / name
    return str(shipped) if shipped.is_dir() else name


def engine_arguments(config: AgentConfig) -> dict[str, Any]:
    """Arguments of vLLM's `EngineArgs`; the server's command line has the same."""
    settings = config.vllm
    # On CPU, vLLM cannot take back a seeded request's draw after a part of its prompt.
    whole_prompts: dict[str, Any] = {
        "enable_chunked_prefill": False,
        "max_num_batched_tokens": max(settings.max_model_len, settings.max_sequences),
    }
    return (whole_prompts if config.device.startswith("cpu") else {}) | {
        "model": checkpoint_path(config.checkpoint),
        "dtype": config.dtype,
        "enforce_eager": settings.eager,
        "max_model_len": settings.max_model_len,
        "max_num_seqs": settings.max_sequences,
        "block_size": settings.block_size,
        "kv_cache_memory_bytes": round(settings.kv_cache_gib * 2**30),
        "gpu_memory_utilization": settings.gpu_memory_utilization,
        "tensor_parallel_size": settings.tensor_parallel,
        "limit_mm_per_prompt": {"image": settings.max_images, "video": 0},
        "skip_mm_profiling": True,
        "mm_processor_cache_gb": 0,
        "enable_prefix_caching": True,
        "generation_config": "vllm",
        "logprobs_mode": "processed_logprobs",
        "logits_processors": [f"{WORKER}:NoVisionTokens"],
        "worker_extension_cls": f"{WORKER}.WorkerExtension",
    }


def prepare_environment() -> dict[str, str]:
    """Variables that vLLM reads as it starts; what is set already is kept."""
    wanted = {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_LOGGING_LEVEL": "WARNING"}
    return {name: os.environ.get(name, value) for name, value in wanted.items()}
