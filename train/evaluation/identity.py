"""What tells one evaluation from another: the settings that decide, the agent, what is asked.

Under `train.evaluation.measure`, whose row files start with an identity: rows of another evaluation
are refused rather than mixed in. Tests: `pytest tests/evaluation/test_evaluate_command.py`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from paravt_env.common.doors import is_door
from paravt_env.common.infos import plain
from paravt_env.task import TaskSet
from train.common.errors import ConfigError
from train.config.env import EnvConfig
from train.config.evaluation import EvalConfig
from train.config.run import TrainConfig
from train.config.sft import SFTConfig
from train.evaluation.digests import code_digest, samples_digest, weights_digest
from train.rollout.starts import Start

FILE_DOOR = re.compile(r"[^:]+\.py:\w+")
"""A name that leads to a Python file of the user's own."""
_ASKING = (
    *("key_variable", "concurrency", "timeout", "retries", "backoff"),
    *("prompt_price", "completion_price"),
)
"""How a chat server is asked, and what that costs."""
FREE = {
    "env": (
        "video_workers",
        "video_isolation",
        "disk_cache_bytes",
        "crop_timeout",
        "reset_timeout",
        *(f"reward.judge.{name}" for name in ("url", "log", *_ASKING)),
        "on_video_error",  # an evaluation asks for its tasks by id
    ),
    "agent": (
        *("device", "feature_cache_gib", "vllm.url", "vllm.max_sequences", "vllm.max_requests"),
        *("vllm.block_size", "vllm.kv_cache_gib", "vllm.gpu_memory_utilization"),
        *("vllm.tensor_parallel", "vllm.eager", "vllm.sleep", "vllm.sync", "vllm.learner_address"),
        *("vllm.sync_deadline", "vllm.timeout", "vllm.start_timeout"),
    ),
    "chat": ("base_url", *_ASKING),
    "evaluation": (
        *("num_envs", "shard", "resume", "retry_errors", "resamples", "confidence"),
        *("blind", "suite", "suite_root", "stop_after_errors", "keep_tokens"),
    ),
}
"""Settings that may differ between the sessions and the shards of one evaluation: where and how it
runs, never what is asked or said."""


def identity(
    env: EnvConfig,
    settings: EvalConfig,
    agent: Mapping[str, Any],
    tasks: TaskSet,
    starts: list[Start],
) -> dict[str, Any]:
    """What decides an evaluation, as plain data.

    Args:
        env: Settings of the environment.
        settings: Those of the evaluation.
        agent: From `agent_identity`; empty where only the caller knows.
        tasks: What is asked.
        starts: All planned samples, those of other shards too.
    """
    return {
        "env": _deciding(plain(asdict(env)), "env"),
        "evaluation": _deciding(plain(asdict(settings)), "evaluation"),
        "agent": dict(agent),
        "samples": samples_digest(tasks, starts),
        "version": _version(),
        **_own_code({"env": plain(asdict(env)), "agent": agent}),
    }


def agent_identity(config: TrainConfig | SFTConfig, checkpoint: str = "") -> dict[str, Any]:
    """What decides how the agent of an evaluation plays, as plain data.

    Args:
        config: Its `evaluation` names the agent.
        checkpoint: Replaces `config.agent.checkpoint`.

    Raises:
        ConfigError: The file of an agent of the user's own is not there.
    """
    settings = config.evaluation
    if is_door(settings.policy):
        place, _, factory = settings.policy.rpartition(":")
        try:
            return {"policy": f"{Path(place).name}:{factory}", "code": code_digest(place)}
        except (ImportError, OSError) as error:
            raise ConfigError(
                f"agent {settings.policy!r}: {error}; give file.py:name or package.module:name"
            ) from error
    if settings.policy not in ("", "openai"):
        return {"policy": settings.policy}
    agent = _deciding(asdict(config.agent), "agent") | {"temperature": settings.temperature}
    if settings.policy == "openai":
        chat = _deciding(asdict(settings.chat), "chat")
        return {"policy": "openai", "agent": agent | {"checkpoint": ""}, "chat": chat}
    name, folder = _checkpoint(checkpoint or config.agent.checkpoint)
    weights = weights_digest(folder) if folder else {}
    return {"policy": "", "agent": agent | {"checkpoint": name}, "weights": weights}


def _own_code(settings: Any) -> dict[str, dict[str, str]]:
    """Digests of the files that the settings' doors (`file.py:name`) lead to, under `code`."""
    files = {text.rpartition(":")[0] for text in _texts(settings) if FILE_DOOR.fullmatch(text)}
    found = {Path(file).name: code_digest(file) for file in sorted(files) if Path(file).is_file()}
    return {"code": found} if found else {}


def _texts(value: Any) -> Iterator[str]:
    """All strings among nested plain settings."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _texts(inner)


def changed(there: Any, here: Any, name: str = "") -> Iterator[str]:
    """Where two nested plain settings differ, by dotted name.

    >>> list(changed({"seed": 0, "env": {"fps": 1}}, {"seed": 1, "env": {"fps": 1}}))
    ['seed: 0 there, 1 here']
    """
    if isinstance(there, Mapping) and isinstance(here, Mapping):
        for key in dict.fromkeys((*there, *here)):
            inner = f"{name}.{key}" if name else str(key)
            yield from changed(there.get(key), here.get(key), inner)
    elif there != here:
        yield f"{name}: {there!r} there, {here!r} here"


def _deciding(settings: Mapping[str, Any], group: str, inside: str = "") -> dict[str, Any]:
    """The settings that decide; those of `FREE` are left out, also of a group within."""
    hidden = (*FREE[group], "chat", "policy") if group == "evaluation" else FREE[group]
    return {
        name: _deciding(value, group, f"{inside}{name}.") if isinstance(value, dict) else value
        for name, value in settings.items()
        if inside + name not in hidden
    }


def _checkpoint(name: str) -> tuple[str, Path | None]:
    """A name that stands for itself (of the hub), or "" and the folder of the weights."""
    from agents.model.vlm import CHECKPOINTS  # torch, which other policies do not need

    folders = [folder for folder in (Path(name), CHECKPOINTS / name) if name and folder.is_dir()]
    return ("", folders[0]) if folders else (name, None)


def _version() -> str:
    try:
        return version("paravt")
    except PackageNotFoundError:
        return ""
