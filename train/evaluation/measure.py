"""Measuring a policy: the agent that a config names, in the environment of an evaluation mode.

Between the commands and `train.evaluation.evaluate`: `paravt eval`, `paravt demo` and the studies
come through here. Rows go to a file beside the report as they are played, so that a run goes on
where it was killed. Run it with `paravt eval --evaluation.policy oracle`.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agents.base import Agent, AgentError, ClosableAgent
from paravt_env.common.files import write_whole
from paravt_env.common.infos import plain
from paravt_env.task import TaskSet
from paravt_env.vector import LongVideoVectorEnv
from train.common.errors import ConfigError
from train.config.evaluation import Shard
from train.config.suites import SUITES
from train.evaluation.agents import load_agent, scripted_agent
from train.evaluation.digests import code_digest, samples_digest, weights_digest
from train.evaluation.evaluate import Progress, evaluate, plan
from train.evaluation.row_file import RowFile, rows_path
from train.evaluation.scores import EvalReport, with_blind
from train.evaluation.shards import BLIND
from train.evaluation.suite import Outcome, SuiteReport, differences

if TYPE_CHECKING:
    from train.config.env import EnvConfig
    from train.config.evaluation import EvalConfig
    from train.config.run import TrainConfig
    from train.config.sft import SFTConfig

FREE = {
    "env": (
        "video_workers",
        "video_isolation",
        "disk_cache_bytes",
        "crop_timeout",
        "reset_timeout",
    ),
    "agent": (
        *("device", "feature_cache_gib", "vllm.url", "vllm.max_sequences", "vllm.max_requests"),
        *("vllm.block_size", "vllm.kv_cache_gib", "vllm.gpu_memory_utilization"),
        *("vllm.tensor_parallel", "vllm.eager", "vllm.sleep", "vllm.sync", "vllm.learner_address"),
        *("vllm.sync_deadline", "vllm.timeout", "vllm.start_timeout"),
    ),
    "chat": ("concurrency", "timeout", "retries", "backoff", "prompt_price", "completion_price"),
    "evaluation": (
        *("num_envs", "shard", "resume", "retry_errors", "resamples", "confidence"),
        *("blind", "suite", "suite_root"),
    ),
}
"""Settings that may differ between the sessions and the shards of one evaluation: where and how it
runs, never what is asked or said."""
SB3_POLICY = "sb3.json"
"""The file by which a checkpoint of Stable-Baselines3 is known (`agents/sb3/agent.py`)."""
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
            from agents.sb3.agent import SB3Agent

            try:
                return SB3Agent.load(Path(agent.checkpoint), env)
            except ValueError as error:
                raise ConfigError(str(error)) from error
        if limits.max_turns == 0:  # the only turn may think as long as any other
            agent = replace(agent, answer_tokens=agent.max_new_tokens)
        if settings.policy == "openai":
            from agents.chat.agent import OpenAIAgent
            from agents.config import Limits

            try:
                return OpenAIAgent(config=agent, limits=Limits.of(limits), **asdict(settings.chat))
            except ValueError as error:
                raise ConfigError(str(error)) from error
        return load_agent(agent, limits, settings.seed)

    def identity(self) -> dict[str, Any]:
        """What decides how the agent plays, as plain data.

        Raises:
            ConfigError: The file of a plug-in is not there.
        """
        settings = self.config.evaluation
        if ":" in settings.policy:
            place, _, factory = settings.policy.rpartition(":")
            try:
                return {"policy": f"{Path(place).name}:{factory}", "code": code_digest(place)}
            except (ImportError, OSError) as error:
                raise _no_plug_in(settings.policy, error) from error
        if settings.policy not in ("", "openai"):
            return {"policy": settings.policy}
        agent = _without(asdict(self.config.agent), "agent") | {"temperature": settings.temperature}
        if settings.policy == "openai":
            chat = _without(asdict(settings.chat), "chat")
            return {"policy": "openai", "agent": agent | {"checkpoint": ""}, "chat": chat}
        name, folder = _checkpoint(self.checkpoint or self.config.agent.checkpoint)
        weights = weights_digest(folder) if folder else {}
        return {"policy": "", "agent": agent | {"checkpoint": name}, "weights": weights}


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

    The settings are saved beside, as `path` with the ending `.yaml`.

    Args:
        config: What is measured.
        agent_for: Makes the agent; it is closed when it has played.
        path: Of the report.
        progress: Called after each sample.

    Raises:
        ConfigError: The rows beside `path` are of another evaluation, or in use.
    """
    settings = config.evaluation
    report = _measure(config.env, settings, agent_for, path, progress)
    whole = Shard.parse(settings.shard).count == 1
    if settings.blind and settings.mode != "blind":
        beside = path.with_name(f"{path.stem}{BLIND}.json")
        blind = replace(settings, mode="blind", frame_budgets=(0,), sweep="")
        baseline = _measure(config.env, blind, agent_for, beside, progress)
        if whole:
            baseline.save(beside)
            report = with_blind(report, baseline)
        else:  # the blind samples of a shard are of other tasks
            report = replace(report, blind_errors=dict(baseline.errors))
    if isinstance(agent_for, AgentSource) and agent_for.checkpoint:
        config = replace(config, agent=replace(config.agent, checkpoint=agent_for.checkpoint))
    save_settings(config, path)
    if whole:
        report.save(path)
    return report


def save_settings(config: TrainConfig | SFTConfig, report: Path) -> None:
    """Write the settings of an evaluation beside its report, atomically."""
    from train.config.recipe import as_yaml

    report.parent.mkdir(parents=True, exist_ok=True)
    write_whole(report.with_suffix(".yaml"), as_yaml(config))


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
        whole = plan(tasks.ids, replace(settings, shard=""))
        identity = {
            "env": _without(plain(asdict(env_config)), "env"),
            "evaluation": _without(plain(asdict(settings)), "evaluation"),
            "agent": agent_for.identity() if isinstance(agent_for, AgentSource) else {},
            "samples": samples_digest(tasks, whole),
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
            report = _played(agent_for(env), env, tasks, settings, progress, rows)
            rows.note_seconds(report.seconds)
            return replace(report, seconds=round(rows.seconds(), 3))
        finally:
            rows.close()
    finally:
        env.close()


def _played(
    agent: Agent,
    env: LongVideoVectorEnv,
    tasks: TaskSet,
    settings: EvalConfig,
    progress: Progress | None,
    rows: RowFile,
) -> EvalReport:
    """The evaluation of an agent, which is closed at its end."""
    try:
        return evaluate(agent, env, tasks, settings, progress, rows)
    finally:
        if isinstance(agent, ClosableAgent):
            agent.close()


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
        except (ConfigError, OSError, AgentError) as error:
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
        raise _no_plug_in(name, error) from error


def _no_plug_in(name: str, error: Exception) -> ConfigError:
    return ConfigError(f"no agent {name!r}: {error}; write module:factory")


def _without(settings: Mapping[str, Any], group: str, inside: str = "") -> dict[str, Any]:
    """The settings that decide; those of `FREE` are left out, also of a group within."""
    hidden = (*FREE[group], "chat", "policy") if group == "evaluation" else FREE[group]
    return {
        name: _without(value, group, f"{inside}{name}.") if isinstance(value, dict) else value
        for name, value in settings.items()
        if inside + name not in hidden
    }


def _checkpoint(name: str) -> tuple[str, Path | None]:
    """A name that stands for itself (of the hub), or "" and the folder of the weights."""
    from agents.model.vlm import CHECKPOINTS

    folders = [folder for folder in (Path(name), CHECKPOINTS / name) if name and folder.is_dir()]
    return ("", folders[0]) if folders else (name, None)


def _version() -> str:
    try:
        return version("paravt")
    except PackageNotFoundError:
        return ""
