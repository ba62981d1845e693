"""Training with an engine: log-probabilities before and after each sync, caches, deadlines."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from support.builders import ListTasks, make_task
from support.engines import conversation, disagreement, frames, logprobs, settings
from support.learning import config as learner_config

from agents.algorithm.credit import Batch
from agents.config import AgentConfig, Limits
from agents.model.vlm import VisionLanguageModel
from agents.vllm.agent import VLLMAgent
from agents.vllm.engine import EngineError, Prompt
from agents.vllm.local import InProcessEngine
from agents.vllm.server import ServerEngine
from train.config.learner import LoraConfig
from train.learner import lora
from train.learner.learner import Learner
from train.rollout.play import play
from train.rollout.starts import Start
from train.workers.weight_sync import ServerSync, SyncError, WeightSync, connect

pytest.importorskip("vllm", reason="needs the vllm extra: make test-engines")

TEMPERATURE = 0.7


@pytest.fixture(params=["vllm", "vllm_server"])
def player(
    request: pytest.FixtureRequest, folder, vlm: VisionLanguageModel
) -> tuple[AgentConfig, InProcessEngine | ServerEngine, WeightSync]:
    """An engine that holds the weights of `vlm`, with its caches empty, and the way to it."""
    name = "engine" if request.param == "vllm" else "server"
    engine, config = request.getfixturevalue(name), settings(folder, engine=request.param)
    sync = connect(config, vlm.model, engine)
    sync.push(0)
    return config, engine, sync


def distance(engine: InProcessEngine | ServerEngine, vlm: VisionLanguageModel, seed: int) -> float:
    """How far the engine's log-probabilities are from the learner's, on one prompt with frames."""
    context = conversation(vlm, frames(5, seed), "which of these frames was it, and when?")
    (drawn,) = engine.generate([Prompt(context, 4, 8, TEMPERATURE, seed)])
    return max(
        float(np.abs(one.logprobs - logprobs(vlm, context, one.ids, TEMPERATURE)).max())
        for one in drawn
    )


def shake(vlm: VisionLanguageModel, part: str, scale: float = 0.02) -> None:
    """Move the weights whose name holds `part`."""
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in vlm.model.named_parameters():
            if part in name:
                parameter.add_(torch.randn_like(parameter) * scale)


def test_ten_steps_of_training_agree_before_and_after_each_sync(
    player, vlm: VisionLanguageModel, make_vector, clip: str
) -> None:
    config, engine, sync = player
    env = make_vector(8, tasks=ListTasks([make_task(clip)]), frame_size=(64, 64))
    agent = VLLMAgent(vlm, config, engine, Limits(3))
    learner = Learner(
        vlm,
        learner_config(groups=2, group_size=4, loss="tis", learning_rate=1e-3, max_grad_norm=1.0),
    )
    rng = np.random.default_rng(0)
    for step in range(10):
        rollouts = play(env, agent, [Start("colour", 2, step)] * 4 + [Start("colour", 4, step)] * 4)
        played = [one for rollout in rollouts for one in rollout.trajectories]
        assert {one.version for one in played} == {step}
        assert disagreement(vlm, played, TEMPERATURE) < 1e-4
        advantages = [rng.normal(size=len(t.branch_ids)).astype(np.float32) for t in played]
        metrics = learner.update(Batch(played, advantages, [i % 2 for i in range(len(played))]))
        assert metrics["behaviour_mismatch_max"] < 1e-4
        assert metrics["behaviour_weight"] == pytest.approx(1.0, abs=1e-4)
        assert distance(engine, vlm, seed=1) > 1e-3, "the policy moved and the engine did not"
        sync.push(step + 1)
        agent.weights_changed(step + 1)
        assert distance(engine, vlm, seed=1) < 1e-4


def test_trained_adapters_reach_the_engine_merged(
    player, vlm: VisionLanguageModel, make_vector, clip: str
) -> None:
    config, engine, _ = player
    adapted = lora.add(vlm, LoraConfig(rank=4))
    sync = connect(config, adapted.model, engine)
    env = make_vector(4, tasks=ListTasks([make_task(clip)]), frame_size=(64, 64))
    agent = VLLMAgent(adapted, config, engine, Limits(3))
    learner = Learner(
        adapted,
        learner_config(groups=1, group_size=4, loss="tis", learning_rate=0.05, max_grad_norm=1.0),
    )
    rng = np.random.default_rng(0)
    for step in range(2):
        rollouts = play(env, agent, [Start("colour", 2, step)] * 4)
        played = [one for rollout in rollouts for one in rollout.trajectories]
        assert disagreement(adapted, played, TEMPERATURE) < 1e-4
        advantages = [rng.normal(size=len(t.branch_ids)).astype(np.float32) for t in played]
        learner.update(Batch(played, advantages, [0] * len(played)))
        assert distance(engine, adapted, seed=4) > 1e-3, "the adapters moved nothing"
        sync.push(step + 1)
        agent.weights_changed(step + 1)
        assert distance(engine, adapted, seed=4) < 1e-4


def test_a_missing_cache_reset_is_caught(
    player, vlm: VisionLanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, engine, sync = player
    assert distance(engine, vlm, seed=2) < 1e-4
    shake(vlm, "model")
    with monkeypatch.context() as patch:
        patch.setattr(engine, "reset_caches", lambda: None)
        sync.push(1)
    assert distance(engine, vlm, seed=2) > 1e-3, "stale keys and values went unnoticed"
    engine.reset_caches()
    assert distance(engine, vlm, seed=2) < 1e-4


def test_defect_29_no_frozen_copy_embeds_the_prompt(player, vlm: VisionLanguageModel) -> None:
    """What turns frames and words into embeddings is the policy's own, and moves with it."""
    _, engine, sync = player
    for version, part in enumerate(("visual", "embed_tokens"), 1):
        assert distance(engine, vlm, seed=3) < 1e-4
        shake(vlm, part)
        assert distance(engine, vlm, seed=3) > 1e-4
        sync.push(version)
        assert distance(engine, vlm, seed=3) < 1e-4


def test_defect_30_a_server_that_hangs_is_an_error_after_the_deadline(
    server: ServerEngine, folder, vlm: VisionLanguageModel
) -> None:
    config = settings(folder, engine="vllm_server")
    config = replace(config, vllm=replace(config.vllm, sync_deadline=1.5))
    sync = ServerSync(vlm.model, server, replace(config, vllm=replace(config.vllm)))
    assert server.process is not None
    os.kill(server.process.pid, signal.SIGSTOP)
    try:
        with pytest.raises(SyncError, match=r"weight sync with http.*(1\.5 s|did not answer)"):
            sync.push(1)
    finally:
        os.kill(server.process.pid, signal.SIGCONT)
    connect(settings(folder, engine="vllm_server"), vlm.model, server).push(2)


def test_defect_31_nothing_is_kept_from_batch_to_batch(player, vlm: VisionLanguageModel) -> None:
    """After every update the encoder cache is empty, however many new frames were seen."""
    _, engine, sync = player
    for version in range(1, 6):
        for i in range(3):
            context = conversation(vlm, frames(8, seed=100 * version + i), "q")
            engine.generate([Prompt(context, 2, 2, 1.0, 0)])
        assert engine.frames()["held"] > 0
        sync.push(version)
        assert engine.frames()["held"] == 0
        if isinstance(engine, InProcessEngine):
            scheduler = engine.llm.engine_core.engine_core.scheduler
            assert scheduler.encoder_cache_manager.cached == {}
            assert not scheduler.kv_cache_manager.block_pool.cached_block_hash_to_block._cache


def test_weights_cannot_change_under_a_completion(
    engine: InProcessEngine, vlm: VisionLanguageModel
) -> None:
    engine._driving = True
    try:
        with pytest.raises(EngineError, match="while completions are being drawn"):
            engine.load(vlm.model.named_parameters(), 1)
    finally:
        engine._driving = False


def test_readings_of_all_rows_are_one_batch_and_rows_of_a_group_one_request(
    engine: InProcessEngine, folder, vlm: VisionLanguageModel, make_vector, clip: str
) -> None:
    calls: list[list[Prompt]] = []

    class Spy:
        stats, frames = engine.stats, staticmethod(engine.frames)

        @staticmethod
        def generate(prompts):
            calls.append(list(prompts))
            return engine.generate(prompts)

    env = make_vector(4, tasks=ListTasks([make_task(clip)]), frame_size=(64, 64))
    agent = _Caller(vlm, settings(folder), Spy, Limits(3))
    (first, *_) = play(env, agent, [Start("colour", 2, 7)] * 4)
    turns, readings, *_ = calls
    assert [(p.count, p.context.kind) for p in turns] == [(4, "main")]
    assert {p.context.kind for p in readings} == {"subagent"}
    assert sum(p.count for p in readings) == 4 * 2
    assert [t.kind for t in first.trajectories] == ["main", "subagent", "subagent"]


class _Caller(VLLMAgent):
    """Says two calls in its first turn, whatever the policy drew."""

    def draw(self, turns):
        drawn = super().draw(turns)
        if self._rows[turns[0].row].action is not None:
            return drawn
        from paravt_env.protocol import render_completion

        text = render_completion("Look.", [(2.0, 4.0), (8.0, 10.0)], "")
        ids = self.vlm.tokenizer(text.removeprefix("<think>\n"))["input_ids"]
        return [type(one)(ids, [0.0] * len(ids)) for one in drawn]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    torch.set_num_threads(1)
    yield
