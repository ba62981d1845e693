"""The engine and the agent over it: tokens in and out, log-probabilities, groups, caches."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch
from support.engines import conversation, frames, logprobs, settings

from agents.model.vlm import VisionLanguageModel
from agents.vllm.agent import EngineSampler
from agents.vllm.engine import EngineError, Prompt, cut_patches
from agents.vllm.local import InProcessEngine
from agents.vllm.server import ServerEngine

pytest.importorskip("vllm", reason="needs the vllm extra: make test-engines")


@pytest.fixture(params=["in process", "server"])
def any_engine(request: pytest.FixtureRequest) -> InProcessEngine | ServerEngine:
    return request.getfixturevalue("engine" if request.param == "in process" else "server")


@pytest.mark.parametrize("temperature", [0.7, 0.0])
def test_log_probabilities_agree_with_the_learner(
    any_engine: InProcessEngine | ServerEngine, vlm: VisionLanguageModel, temperature: float
) -> None:
    contexts = [conversation(vlm, frames(3), "which?"), conversation(vlm, frames(0), "no frame")]
    prompts = [Prompt(context, 4, 12, temperature, 7) for context in contexts]
    for context, many in zip(contexts, any_engine.generate(prompts), strict=True):
        assert len(many) == 4
        for one in many:
            assert 0 < len(one.ids) == len(one.logprobs) == len(one.versions) <= 12
            expected = logprobs(vlm, context, one.ids, temperature)
            np.testing.assert_allclose(one.logprobs, expected, atol=1e-4)
        if temperature == 0.0:
            assert all(one.ids == many[0].ids for one in many)
        else:
            assert len({tuple(one.ids) for one in many}) > 1


def test_a_group_encodes_each_frame_once(
    any_engine: InProcessEngine | ServerEngine, vlm: VisionLanguageModel
) -> None:
    any_engine.reset_caches()
    sampler = EngineSampler(any_engine)
    images = frames(6, seed=5)
    before = any_engine.frames()["encoded"]
    reused = sampler.stats.frames_reused
    group = [conversation(vlm, images, "q") for _ in range(8)]
    sampler.sample(group, [4] * 8, 1.0)
    assert any_engine.frames()["encoded"] - before == 6
    assert sampler.stats.frames_reused - reused == 7 * 6
    sampler.sample([conversation(vlm, images[::-1], "another question")], [4], 1.0)
    assert any_engine.frames()["encoded"] - before == 6


def test_equal_contexts_are_one_request_and_others_are_not(vlm: VisionLanguageModel) -> None:
    class Recorder:
        def frames(self):
            return {"encoded": 0, "held": 0}

        def generate(self, prompts):
            self.prompts = prompts
            return [[object() for _ in range(prompt.count)] for prompt in prompts]

    recorder = Recorder()
    recorder.stats = type("Stats", (), {"frames_encoded": 0, "frames_reused": 0})()
    sampler = EngineSampler(recorder)
    images = frames(2)
    contexts = [conversation(vlm, images, "q"), conversation(vlm, images[::-1], "q")]
    sampler.sample([*contexts, contexts[0], contexts[0]], [4, 4, 4, 5], 1.0)
    assert [(p.count, p.limit) for p in recorder.prompts] == [(2, 4), (1, 4), (1, 5)]
    assert len({prompt.seed for prompt in recorder.prompts}) == 3


def test_vision_tokens_are_never_sampled(engine: InProcessEngine, vlm: VisionLanguageModel) -> None:
    """Even by a policy that wants nothing else."""
    context = conversation(vlm, frames(1), "q")
    hot = dict(vlm.model.named_parameters())
    embedding = "model.language_model.embed_tokens.weight"
    with torch.no_grad():
        hot[embedding][list(vlm.forbidden_ids)] *= 50
    engine.load(hot.items(), 1)
    for temperature in (1.0, 0.0):
        (drawn,) = engine.generate([Prompt(context, 16, 16, temperature, 3)])
        assert not {i for one in drawn for i in one.ids} & set(vlm.forbidden_ids)
        for one in drawn[:2]:
            expected = logprobs(vlm, context, one.ids, temperature)
            np.testing.assert_allclose(one.logprobs, expected, atol=1e-4)


def test_the_stop_token_ends_a_completion_and_belongs_to_it(
    engine: InProcessEngine, vlm: VisionLanguageModel
) -> None:
    stop = vlm.tokenizer.eos_token_id
    (drawn,) = engine.generate([Prompt(conversation(vlm, frames(1), "q"), 64, 200, 2.0, 3)])
    ended = [one for one in drawn if len(one.ids) < 200]
    assert ended and all(one.ids.index(stop) == len(one.ids) - 1 for one in ended)


def test_what_a_request_draws_depends_on_its_seed_alone(
    engine: InProcessEngine, vlm: VisionLanguageModel
) -> None:
    one = Prompt(conversation(vlm, frames(2), "q"), 2, 8, 1.0, 11)
    other = Prompt(conversation(vlm, frames(1), "another"), 3, 8, 1.0, 12)
    alone = engine.generate([one])[0]
    together = engine.generate([other, one])[1]
    assert [g.ids for g in alone] == [g.ids for g in together]


def test_more_prompts_than_fit_into_one_step_are_drawn_like_each_alone(
    any_engine: InProcessEngine | ServerEngine, vlm: VisionLanguageModel
) -> None:
    prompts = [Prompt(conversation(vlm, frames(8, i), "q"), 2, 6, 1.0, i) for i in range(40)]
    assert sum(len(prompt.context.ids) for prompt in prompts) > 2 * 1024
    together = any_engine.generate(prompts)
    for i in (0, 17, 39):
        alone = any_engine.generate([prompts[i]])[0]
        assert [g.ids for g in alone] == [g.ids for g in together[i]]


def test_requests_past_the_bound_wait_and_are_drawn_like_each_alone(
    engine: InProcessEngine, vlm: VisionLanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = [Prompt(conversation(vlm, frames(1, i), "q"), 2, 8, 1.0, i) for i in range(8)]
    expected = engine.generate(prompts)
    held, step = [], engine.llm.step

    def counting():
        held.append(engine.llm.get_num_unfinished_requests())
        return step()

    monkeypatch.setattr(engine.llm, "step", counting)
    monkeypatch.setattr(engine, "max_requests", 3)
    drawn = engine.generate(prompts)
    assert max(held) == 3 * 2  # vLLM counts the completions of a request one by one
    assert [[g.ids for g in many] for many in drawn] == [[g.ids for g in e] for e in expected]


def test_callers_on_several_threads_share_the_engine(
    engine: InProcessEngine, vlm: VisionLanguageModel
) -> None:
    prompts = [Prompt(conversation(vlm, frames(1, i), "q"), 2, 12, 1.0, i) for i in range(6)]
    expected = [engine.generate([prompt])[0] for prompt in prompts]
    results: dict[int, list] = {}

    def call(i: int) -> None:
        results[i] = engine.generate([prompts[i]])[0]

    threads = [threading.Thread(target=call, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [[g.ids for g in results[i]] for i in range(6)] == [[g.ids for g in e] for e in expected]


def test_a_request_that_the_engine_refuses_is_an_error_and_the_next_one_runs(
    engine: InProcessEngine, vlm: VisionLanguageModel
) -> None:
    long = conversation(vlm, frames(0), "a word " * 2000)
    with pytest.raises(EngineError, match=r"maximum|length"):
        engine.generate([Prompt(long, 1, 4, 1.0, 0)])
    assert engine.generate([Prompt(conversation(vlm, frames(1), "q"), 1, 4, 1.0, 0)])


def test_patches_are_those_of_the_learner(vlm: VisionLanguageModel) -> None:
    (image,) = np.random.default_rng(0).integers(0, 255, (1, 64, 96, 3), dtype=np.uint8)
    raw = cut_patches(image, vlm.patch, vlm.merge, 2)
    assert raw.dtype == np.uint8
    normalised = (torch.from_numpy(raw).float() / 255 - 0.5) / 0.5
    np.testing.assert_allclose(normalised, vlm.patches(image[None]), atol=1e-6)


def test_bfloat16_drifts_from_the_learner_and_the_drift_is_bounded(
    folder, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """What importance correction is for: small, not zero."""
    vlm = VisionLanguageModel.load(folder, "bfloat16")
    engine = InProcessEngine(settings(folder, dtype="bfloat16"), vlm)
    try:
        context = conversation(vlm, frames(3), "which?")
        (drawn,) = engine.generate([Prompt(context, 8, 16, 0.7, 1)])
        apart = np.concatenate(
            [np.abs(one.logprobs - logprobs(vlm, context, one.ids, 0.7)) for one in drawn]
        )
        assert 1e-5 < apart.mean() < 0.05 and apart.max() < 0.3
    finally:
        engine.close()


def test_without_a_start_the_log_is_shown(folder) -> None:
    broken = settings(folder, engine="vllm_server", dtype="float12")
    with pytest.raises(EngineError, match=r"(?s)did not start.*float12"):
        ServerEngine(broken, VisionLanguageModel.load(folder, device="meta"))
