"""Measuring a policy: an agent plays in the environment of an evaluation mode, or a whole suite.

Between the commands and `train.evaluation.evaluate`: `paravt eval`, `paravt demo` and the studies
come through here. Rows go to a file beside the report as they are played, so that a killed
run can be resumed. Run it with `paravt eval --evaluation.policy oracle`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

from agents.base import Agent, AgentError, ClosableAgent
from paravt_env.common.files import write_whole
from paravt_env.task import TaskSet
from paravt_env.tasksets.base import left_out, say_left_out
from paravt_env.vector import LongVideoVectorEnv
from train.common.console import printable
from train.common.errors import ConfigError
from train.config.env import EnvConfig
from train.config.evaluation import EvalConfig, Shard
from train.config.recipe import as_yaml
from train.config.run import TrainConfig
from train.config.sft import SFTConfig
from train.config.suites import SUITES
from train.evaluation.agents import AgentSource, evaluated_agent
from train.evaluation.evaluate import EvalProgress, evaluate, plan
from train.evaluation.identity import identity
from train.evaluation.row_file import RowFile, rows_path
from train.evaluation.scores import EvalReport, with_blind
from train.evaluation.shards import BLIND
from train.evaluation.suite import SetOutcome, SuiteReport, differences
from train.evaluation.token_files import TokenFiles, tokens_path

DIRECT = ("direct", "blind")
"""Modes of one turn without tools."""


def measure(
    config: TrainConfig | SFTConfig,
    agent_for: Callable[[LongVideoVectorEnv], Agent],
    path: Path,
    progress: EvalProgress | None = None,
) -> EvalReport:
    """Evaluate on `config.evaluation.split`; the whole (not a shard) is saved at `path`.

    The settings are saved beside, as `path` with the ending `.yaml`.

    Args:
        config: What is measured.
        agent_for: Makes the agent; it is closed when it has played.
        path: Of the report.
        progress: Called at the start, and after each sample.

    Raises:
        ConfigError: The rows beside `path` are of another evaluation, or in use.
    """
    settings = config.evaluation
    report = play_split(config.env, settings, agent_for, path, progress)
    whole = Shard.parse(settings.shard).count == 1
    if settings.blind and settings.mode != "blind":
        beside = path.with_name(f"{path.stem}{BLIND}.json")
        blind = replace(settings, mode="blind", frame_budgets=(0,), sweep="")
        baseline = play_split(config.env, blind, agent_for, beside, progress)
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
    report.parent.mkdir(parents=True, exist_ok=True)
    write_whole(report.with_suffix(".yaml"), as_yaml(config))


def play_split(
    env_config: EnvConfig,
    settings: EvalConfig,
    agent_for: Callable[[LongVideoVectorEnv], Agent],
    path: Path,
    progress: EvalProgress | None,
) -> EvalReport:
    """Play a split, or a shard of it, in the mode of the settings; nothing but rows is kept.

    Args:
        env_config: The environment.
        settings: Tasks, budgets, mode.
        agent_for: Makes the agent; it is closed when it has played.
        path: The rows are kept beside it (`rows_path`).
        progress: Called at the start, and after each sample.

    Raises:
        ConfigError: The environment cannot be made, or the rows there are of another evaluation.
    """
    env_config, settings = in_mode(env_config, settings)
    try:
        env = env_config.make(settings.num_envs, settings.split, settings.frame_budgets)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    try:
        tasks = env.simulation.tasks
        missing = left_out(tasks)
        whole = plan(tasks.ids, replace(settings, shard=""))
        agent = agent_for.identity() if isinstance(agent_for, AgentSource) else {}
        header = {
            "identity": identity(env_config, settings, agent, tasks, whole),
            "settings": asdict(settings),
            "shard": settings.shard or "1/1",
            "planned": len(plan(tasks.ids, settings)),
            "left_out": missing,
        }
        if missing:
            print(printable(f"  {tasks.name}: {say_left_out(missing)}"))
        shard = Shard.parse(settings.shard)
        where = rows_path(path, shard)
        rows = RowFile(where, header, settings.resume, settings.retry_errors)
        keep = -(-settings.keep_tokens // shard.count)
        tokens = TokenFiles(tokens_path(path, shard), keep, again=not rows.done)
        try:
            if rows.done:
                print(f"  {len(rows.done)} of {header['planned']} samples are in {where}")
            report = _played(agent_for(env), env, tasks, settings, progress, rows, tokens)
            rows.note_seconds(report.seconds)
            seconds = round(rows.seconds(), 3)
            return replace(report, seconds=seconds, left_out=tuple(missing))
        finally:
            rows.close()
    finally:
        env.close()


def _played(
    agent: Agent,
    env: LongVideoVectorEnv,
    tasks: TaskSet,
    settings: EvalConfig,
    progress: EvalProgress | None,
    rows: RowFile,
    tokens: TokenFiles,
) -> EvalReport:
    """The evaluation of an agent, which is closed at its end."""
    try:
        return evaluate(agent, env, tasks, settings, progress, rows, tokens)
    finally:
        if isinstance(agent, ClosableAgent):
            agent.close()


def in_mode(env: EnvConfig, settings: EvalConfig) -> tuple[EnvConfig, EvalConfig]:
    """The environment and the budgets of an evaluation's mode and sweep."""
    if settings.untagged is not None or settings.suite:
        env = replace(env, untagged_answers=settings.untagged is not False)
    if settings.sweep == "frames":
        settings = replace(settings, frame_budgets=settings.sweep_frames, budgets_per_task=None)
    if settings.mode == "sequential":
        env = replace(env, max_crops=1)
    if settings.mode in DIRECT:
        env = replace(env, max_turns=0, force_answer=True)
    if settings.mode == "blind":
        settings = replace(settings, frame_budgets=(0,), budgets_per_task=1)
    return env, settings


def measure_suite(config: TrainConfig, progress: EvalProgress | None = None) -> SuiteReport:
    """Evaluate every set of `config.evaluation.suite`; a set that is not there is an outcome too.

    Each set gets a folder in the run's, with its report; the table of all is `SUITE.json`.

    Raises:
        ConfigError: The sets are given one folder, where each has its own.
    """
    settings = config.evaluation
    given = dict(config.env.tasks_kwargs or {})
    if "root" in given:
        raise ConfigError(
            f"env.tasks_kwargs.root={given['root']} would be the folder of every set of a suite: "
            "give evaluation.suite_root, which holds a folder for each"
        )
    outcomes = []
    for entry in SUITES[settings.suite]:
        root = str(Path(settings.suite_root) / entry.tasks)
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
            outcomes.append(SetOutcome(entry, error=str(error)))
            continue
        outcomes.append(SetOutcome(entry, report))
    return SuiteReport(settings.suite, tuple(outcomes), tuple(differences(config)))
