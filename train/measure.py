"""Measuring a policy: the agent that a config names, in the environment of an evaluation mode.

Between the commands and `train.evaluate`: `paravt eval`, `paravt demo` and the studies come through
here. Rows go to a file beside the report as they are played, so that a run goes on where it was
killed. Run it with `paravt eval --evaluation.policy oracle`.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agents.base import Agent
from paravt_env.infos import plain
from paravt_env.vector import LongVideoVectorEnv
from train.errors import ConfigError
from train.evaluate import Progress, evaluate, plan
from train.ledger import RowFile, Shard, rows_path
from train.merge import BLIND
from train.playing import load_agent, scripted_agent
from train.scores import EvalReport, with_blind
from train.suite import SUITES, Outcome, SuiteReport, differences

if TYPE_CHECKING:
    from train.config import EnvConfig, EvalConfig, SFTConfig, TrainConfig

FREE = {
    "env": (
        "video_workers",
        "video_isolation",
        "disk_cache_bytes",
        "crop_timeout",
        "reset_timeout",
    ),
    "agent": ("device",),
    "chat": ("concurrency", "timeout", "retries", "backoff", "prompt_price", "completion_price"),
    "evaluation": (
        *("num_envs", "shard", "resume", "retry_errors", "resamples", "confidence"),
        *("blind", "suite", "suite_root"),
    ),
}
"""Settings that may differ between the sessions and the shards of one evaluation."""
SB3_POLICY = "sb3.json"
"""The file by which a checkpoint of Stable-Baselines3 is known (`agents/sb3_agent.py`)."""
DIRECT = ("direct", "blind")
"""Modes of one turn without tools."""


@dataclass(frozen=True)
class AgentSource:
    """Makes the agent under evaluation: a scripted one, a plug-in, a chat server, a checkpoint.

    Attributes:
        config: Its `evaluation` names the agent.
        checkpoint: Replaces `config.agent.checkpoint`.
    """

    config: TrainConfig | SFTConfig
    checkpoint: str = ""

    def __call__(self, env: LongVideoVectorEnv) -> Agent:
        """The agent for an environment.

        Raises:
            ConfigError: It cannot be made as configured.
        """
        settings = self.config.evaluation
        limits = env.simulation.settings
        if ":" in settings.policy:
            return _plug_in(settings.policy)(env)
        if settings.policy not in ("", "openai"):
            return scripted_agent(settings.policy, env, settings.seed)
        agent = replace(
            self.config.agent,
            temperature=settings.temperature,
            checkpoint=self.checkpoint or self.config.agent.checkpoint,
        )
        if (Path(agent.checkpoint) / SB3_POLICY).is_file():
            from agents.sb3_agent import SB3Agent

            try:
                return SB3Agent.load(Path(agent.checkpoint), env)
            except ValueError as error:
                raise ConfigError(str(error)) from error
        if limits.max_turns == 0:  # the only turn may think as long as any other
            agent = replace(agent, answer_tokens=agent.max_new_tokens)
        if settings.policy == "openai":
            from agents.base import Limits
            from agents.openai_agent import OpenAIAgent

            try:
                return OpenAIAgent(config=agent, limits=Limits.of(limits), **asdict(settings.chat))
            except ValueError as error:
                raise ConfigError(str(error)) from error
        return load_agent(agent, limits, settings.seed)

    def identity(self) -> dict[str, Any]:
        """What decides how the agent plays, as plain data."""
        settings = self.config.evaluation
        if settings.policy not in ("", "openai"):
            return {"policy": settings.policy}
        agent = _without(asdict(self.config.agent), "agent") | {"temperature": settings.temperature}
        if settings.policy == "openai":
            chat = _without(asdict(settings.chat), "chat")
            return {"policy": "openai", "agent": agent | {"checkpoint": ""}, "chat": chat}
        agent["checkpoint"] = self.checkpoint or self.config.agent.checkpoint
        return {"policy": "", "agent": agent, "weights": _weights(agent["checkpoint"])}


def evaluated_agent(config: TrainConfig | SFTConfig, checkpoint: str = "") -> AgentSource:
    """Makes the agent under evaluation: the policy of the settings, or the checkpoint."""
    return AgentSource(config, checkpoint)


def measure(
    config: TrainConfig | SFTConfig,
    agent_for: Callable[[LongVideoVectorEnv], Agent],
    path: Path,
    progress: Progress | None = None,
) -> EvalReport:
    """Evaluate on `config.evaluation.split`; the whole (not a shard) is saved at `path`.

    Raises:
        ConfigError: The rows beside `path` are of another evaluation, or in use.
    """
    settings = config.evaluation
    report = _measure(config.env, settings, agent_for, path, progress)
    shard = Shard.parse(settings.shard)
    if settings.blind and settings.mode != "blind":
        beside = path.with_name(f"{path.stem}{BLIND}.json")
        blind = replace(settings, mode="blind", frame_budgets=(0,), sweep="")
        baseline = _measure(config.env, blind, agent_for, beside, progress)
        if shard.count == 1:
            report = with_blind(report, baseline)
    if shard.count == 1:
        report.save(path)
    return report


def _measure(
    env_config: EnvConfig,
    settings: EvalConfig,
    agent_for: Callable[[LongVideoVectorEnv], Agent],
    path: Path,
    progress: Progress | None,
) -> EvalReport:
    env_config, settings = in_mode(env_config, settings)
    try:
        env = env_config.make(settings.num_envs, settings.split, settings.frame_budgets)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    try:
        tasks = env.simulation.tasks
        whole = [[start.task_id, start.frame_budget] for start in plan(
            tasks.ids, replace(settings, shard="")
        )]  # fmt: skip
        identity = {
            "env": _without(plain(asdict(env_config)), "env"),
            "evaluation": _without(plain(asdict(settings)), "evaluation"),
            "agent": agent_for.identity() if isinstance(agent_for, AgentSource) else {},
            "samples": sha256(json.dumps(whole).encode()).hexdigest(),
            "version": _version(),
        }
        header = {
            "identity": identity,
            "settings": asdict(settings),
            "shard": settings.shard or "1/1",
            "planned": len(plan(tasks.ids, settings)),
        }
        where = rows_path(path, Shard.parse(settings.shard))
        rows = RowFile(where, header, settings.resume, settings.retry_errors)
        try:
            if rows.done:
                print(f"  {len(rows.done)} of {header['planned']} samples are in {where}")
            agent = agent_for(env)
            report = evaluate(agent, env, tasks, settings, progress, rows)
            rows.note_seconds(report.seconds)
            return replace(report, seconds=round(rows.seconds(), 3))
        finally:
            rows.close()
    finally:
        env.close()


def in_mode(env: EnvConfig, settings: EvalConfig) -> tuple[EnvConfig, EvalConfig]:
    """The environment and the budgets of an evaluation's mode and sweep."""
    if settings.sweep == "frames":
        settings = replace(settings, frame_budgets=settings.sweep_frames, budgets_per_task=None)
    if settings.mode == "sequential":
        env = replace(env, max_crops=1)
    if settings.mode in DIRECT:
        env = replace(env, max_turns=0, force_answer=True)
    if settings.mode == "blind":
        settings = replace(settings, frame_budgets=(0,), budgets_per_task=1)
    return env, settings


def measure_suite(config: TrainConfig, progress: Progress | None = None) -> SuiteReport:
    """Evaluate every set of `config.evaluation.suite`; a set that is not there is an outcome too.

    Each set gets a folder in the run's, with its report; the table of all is `SUITE.json`.
    """
    settings = config.evaluation
    outcomes = []
    for entry in SUITES[settings.suite]:
        root = str(Path(settings.suite_root) / entry.tasks)
        given = dict(config.env.tasks_kwargs or {})
        part = replace(
            config,
            env=replace(
                config.env,
                tasks=entry.tasks,
                split=entry.split,
                tasks_kwargs={"root": root, **given},
                subtitles=entry.subtitles,
            ),
            agent=replace(
                config.agent, answer_tokens=max(config.agent.answer_tokens, entry.answer_tokens)
            ),
            evaluation=replace(settings, split=entry.split),
        )
        path = config.run.path / settings.suite / entry.name / "after.json"
        print(f"== {entry.name}", flush=True)
        try:
            report = measure(part, evaluated_agent(part), path, progress)
        except (ConfigError, OSError) as error:
            outcomes.append(Outcome(entry, error=str(error)))
            continue
        outcomes.append(Outcome(entry, report))
    return SuiteReport(settings.suite, tuple(outcomes), tuple(differences(config)))


def _plug_in(name: str) -> Callable[[LongVideoVectorEnv], Agent]:
    """The factory that `module:factory` or `file.py:factory` names."""
    place, _, factory = name.rpartition(":")
    try:
        if place.endswith(".py"):
            spec = importlib.util.spec_from_file_location(Path(place).stem, place)
            if spec is None or spec.loader is None:
                raise ImportError(f"{place} is no Python file")
            module = importlib.util.module_from_spec(spec)
            sys.modules[spec.name] = module
            spec.loader.exec_module(module)
        else:
            module = importlib.import_module(place)
        return getattr(module, factory)
    except (ImportError, AttributeError, FileNotFoundError) as error:
        raise ConfigError(f"no agent {name!r}: {error}; write module:factory") from error


def _without(settings: Mapping[str, Any], group: str) -> dict[str, Any]:
    hidden = (*FREE[group], "chat", "policy") if group == "evaluation" else FREE[group]
    return {name: value for name, value in settings.items() if name not in hidden}


def _weights(checkpoint: str) -> list[list[Any]]:
    """Name, size and time of a local checkpoint's files; a hub name stands for itself."""
    from agents.vlm import CHECKPOINTS

    folder = next((f for f in (Path(checkpoint), CHECKPOINTS / checkpoint) if f.is_dir()), None)
    if not checkpoint or folder is None:
        return []
    files = sorted(path for path in folder.iterdir() if path.is_file())
    return [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in files]


def _version() -> str:
    try:
        return version("paravt")
    except PackageNotFoundError:
        return ""
