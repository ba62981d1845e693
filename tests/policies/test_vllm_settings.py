"""What an agent over vLLM refuses, and what it does when its engine is full or gone; no vLLM."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
from support.builders import ListTasks, make_task
from support.fake_vllm import CALL, FakeEngine

from agents.base import AgentError
from agents.config import AgentConfig, Limits, VLLMConfig
from agents.model.agent import TransformersAgent
from agents.model.mini import MiniConfig, build_mini
from agents.model.vlm import VisionLanguageModel
from agents.vllm.agent import VLLMAgent
from agents.vllm.arguments import check_shared_memory, engine_arguments
from agents.vllm.engine import EngineError
from paravt_env.settings import EnvSettings
from train.common.errors import ConfigError
from train.config.evaluation import EvalConfig
from train.config.recipe import load
from train.config.run import TrainConfig
from train.evaluation.agents import load_agent
from train.evaluation.evaluate import evaluate
from train.rollout.play import AGENT_ERROR, play
from train.rollout.starts import Start
from train.workers.rollout_workers import make_workers

SHAPE = MiniConfig(32, 2, 2, 64, 32, 1, 2, 64, vocabulary=300, numbers=12)


@pytest.fixture
def vlm(tmp_path) -> VisionLanguageModel:
    return VisionLanguageModel.load(build_mini(tmp_path, [CALL] * 3, SHAPE))


@pytest.fixture
def rows(make_vector, clip):
    def make(count: int, **settings):
        tasks = ListTasks([make_task(clip)])
        budget = {"kind": "choice", "values": [2, 32]}
        size = (64, 64)
        return make_vector(count, tasks=tasks, frame_size=size, frame_budget=budget, **settings)

    return make


class Gone(FakeEngine):
    """Does not answer."""

    def generate(self, prompts):
        raise EngineError("the server did not answer")


CONFIG = AgentConfig(
    engine="vllm", prompt_style="compact", max_new_tokens=200, answer_tokens=4, subagent_tokens=4
)


def make_agent(vlm, env, engine, longest=8192) -> VLLMAgent:
    settings = replace(CONFIG, vllm=VLLMConfig(max_model_len=longest))
    return VLLMAgent(vlm, settings, engine, Limits.of(env.simulation.settings))


def asked_at(vlm, env, budget):
    """What an engine with room is asked in an episode, and the tokens of its main conversation."""
    engine = FakeEngine(vlm)
    (one,) = play(env, make_agent(vlm, env, engine), [Start("colour", budget, 0)])
    assert one.error == "" and one.executed == 1
    return engine.asked, len(one.trajectories[0])


def test_a_conversation_that_does_not_fit_fails_its_row_and_no_other(rows, vlm) -> None:
    env, engine = rows(2, max_turns=1), FakeEngine(vlm)
    _, enough = asked_at(vlm, env, 2)
    (_, longest, _), *_ = asked_at(vlm, env, 32)[0]
    assert enough < longest
    agent = make_agent(vlm, env, engine, longest)
    short, long = play(env, agent, [Start("colour", 2, 0), Start("colour", 32, 0)])
    assert short.error == "" and short.executed == 1
    assert long.stop_reason == AGENT_ERROR and long.trajectories == ()
    assert f"main conversation of {longest} tokens leaves no room in {longest}" in long.error
    assert "agent.vllm.max_model_len" in long.error
    assert {tokens for _, tokens, _ in engine.asked}.isdisjoint({longest})
    assert all(tokens + limit <= longest for _, tokens, limit in engine.asked)


def test_a_turn_is_cut_where_its_conversation_is_full(rows, vlm) -> None:
    env, engine = rows(1, max_turns=1), FakeEngine(vlm)
    ((_, begins, limit), *_), _ = asked_at(vlm, env, 2)
    assert limit == 200
    play(env, make_agent(vlm, env, engine, begins + 3), [Start("colour", 2, 0)])
    assert engine.asked == [("main", begins, 3)]


def test_a_crop_that_no_conversation_holds_fails_its_row(rows, vlm) -> None:
    env, engine = rows(1, max_turns=1, frames_per_crop=32, crop_fps=4.0), FakeEngine(vlm)
    asked, whole = asked_at(vlm, env, 0)
    (reading,) = [tokens for kind, tokens, _ in asked if kind == "subagent"]
    assert asked[0][1] < whole < reading
    (one,) = play(env, make_agent(vlm, env, engine, reading), [Start("colour", 0, 0)])
    assert one.stop_reason == AGENT_ERROR
    assert f"subagent conversation of {reading} tokens leaves no room" in one.error
    assert [kind for kind, *_ in engine.asked] == ["main"]


def test_the_rule_is_the_same_through_transformers(rows, vlm) -> None:
    env = rows(1, max_turns=1)
    config = replace(CONFIG, engine="transformers", max_new_tokens=4)
    agent = TransformersAgent(vlm, config, Limits.of(env.simulation.settings))
    assert agent.longest == vlm.model.config.text_config.max_position_embeddings
    assert play(env, agent, [Start("colour", 2, 0)])[0].error == ""
    agent.longest = 10
    (one,) = play(env, agent, [Start("colour", 2, 0)])
    assert one.stop_reason == AGENT_ERROR and "leaves no room in 10" in one.error


def test_an_engine_that_is_gone_is_counted_in_an_evaluation(rows, vlm) -> None:
    env = rows(2, max_turns=1)
    agent = make_agent(vlm, env, Gone(vlm))
    settings = EvalConfig(frame_budgets=(2,), resamples=10)
    report = evaluate(agent, env, env.simulation.tasks, settings)
    assert report.errors == {"agent_error": 1}
    assert "the server did not answer" in report.rows[0].error


@pytest.mark.parametrize("lanes", [1, 2])
def test_an_engine_that_is_gone_ends_training(rows, vlm, monkeypatch, lanes) -> None:
    monkeypatch.setattr("train.workers.rollout_workers.start_engine", lambda config, vlm: Gone(vlm))
    sync = SimpleNamespace(push=lambda version: None)
    monkeypatch.setattr("train.workers.rollout_workers.connect", lambda *given: sync)
    workers = make_workers(CONFIG, vlm, [rows(2, max_turns=1) for _ in range(lanes)], seed=0)
    with pytest.raises(EngineError, match="the server did not answer"):
        workers.play([Start("colour", 2, 0)] * 4, 2)


def test_an_engine_that_does_not_start_ends_an_evaluation(vlm, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    config = replace(CONFIG, checkpoint="paravt_mini")
    with pytest.raises(EngineError, match="needs vLLM"):
        load_agent(config, EnvSettings())
    assert issubclass(EngineError, AgentError)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["--agent.vllm.tensor_parallel=2"], "agent.engine=vllm_server"),
        (["--agent.vllm.gpu_memory_utilization=0"], "above 0 and at most 1: 0"),
        (["--agent.vllm.gpu_memory_utilization=1.5"], "above 0 and at most 1: 1.5"),
        (["--agent.vllm.kv_cache_gib=0"], "kv_cache_gib must be positive: 0"),
    ],
)
def test_settings_that_vllm_here_cannot_have_are_refused(overrides, said) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        load(TrainConfig, None, ["--agent.engine=vllm", *overrides])


@pytest.mark.parametrize(
    "overrides",
    [
        ["--agent.engine=vllm", "--agent.device=cuda:0"],
        ["--agent.engine=vllm_server", "--agent.device=cuda:1"],
        ["--agent.engine=vllm_server", "--agent.vllm.tensor_parallel=2"],
        ["--agent.device=cuda:1"],
    ],
)
def test_settings_that_work_are_left_alone(overrides) -> None:
    load(TrainConfig, None, overrides)


def test_the_share_of_the_card_reaches_vllm() -> None:
    settings = VLLMConfig(gpu_memory_utilization=0.25, kv_cache_gib=2)
    arguments = engine_arguments(AgentConfig(engine="vllm", vllm=settings))
    assert arguments["gpu_memory_utilization"] == 0.25
    assert arguments["kv_cache_memory_bytes"] == 2 * 2**30


def test_weights_that_shared_memory_cannot_hold_are_refused(tmp_path, monkeypatch) -> None:
    """Writing past its end would end the process without a word."""
    usage = SimpleNamespace(free=3 * 2**29)
    monkeypatch.setattr("agents.vllm.arguments.shutil.disk_usage", lambda folder: usage)
    check_shared_memory(3 * 2**29, str(tmp_path))
    with pytest.raises(EngineError, match=r"16.0 GiB .* has 1.5 GiB free.*--shm-size=17g"):
        check_shared_memory(16 * 2**30, str(tmp_path))
    check_shared_memory(16 * 2**30, str(tmp_path / "no shared memory here"))
