"""Frames as video through vLLM: the learner's log-probabilities, pairs encoded once, times told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.engines import disagreement, frames, logprobs, settings
from support.video import VIDEO, assert_the_processors, metadata, processed

from agents.chat.video import clip_url, media_settings
from agents.config import Limits
from agents.model.vlm import VisionLanguageModel
from agents.text.context import TokenContext
from agents.vllm.agent import EngineSampler, VLLMAgent
from agents.vllm.engine import Prompt, cut_patches
from agents.vllm.local import InProcessEngine
from agents.vllm.server import ServerEngine
from paravt_env.protocol.tags import Role
from train.rollout.play import play
from train.rollout.starts import Start

pytest.importorskip("vllm", reason="needs the vllm extra: make test-engines")


@pytest.fixture(params=["in process", "server"])
def any_engine(request: pytest.FixtureRequest) -> InProcessEngine | ServerEngine:
    return request.getfixturevalue("engine" if request.param == "in process" else "server")


def clips(vlm: VisionLanguageModel, *counts: int, image: bool = False) -> TokenContext:
    """A prompt of several clips with text between them."""
    context = TokenContext(vlm)
    for number, count in enumerate(counts):
        context.append_text(f"part {number} ", Role.prompt)
        context.append_clip(frames(count, seed=number), 1.3 * np.arange(count), Role.prompt)
    if image:
        context.append_image(frames(1, seed=9)[0], Role.prompt)
    context.append_text("which?", Role.prompt)
    context.close_prompt()
    return context


def test_log_probabilities_agree_with_the_learner(
    any_engine: InProcessEngine | ServerEngine, vlm: VisionLanguageModel
) -> None:
    contexts = [clips(vlm, 1), clips(vlm, 5, 2), clips(vlm, 3, image=True), clips(vlm, 60)]
    prompts = [Prompt(context, 4, 12, 0.7, 7) for context in contexts]
    for context, many in zip(contexts, any_engine.generate(prompts), strict=True):
        for one in many:
            expected = logprobs(vlm, context, one.ids, 0.7)
            np.testing.assert_allclose(one.logprobs, expected, atol=1e-4)


def test_a_pair_is_encoded_once_whatever_stands_around_it(
    any_engine: InProcessEngine | ServerEngine, vlm: VisionLanguageModel
) -> None:
    any_engine.reset_caches()
    sampler = EngineSampler(any_engine)
    before = any_engine.frames()["encoded"]
    sampler.sample([clips(vlm, 7)] * 8, [4] * 8, 1.0)
    assert any_engine.frames()["encoded"] - before == 4
    sampler.sample([clips(vlm, 7, 2)], [4], 1.0)
    assert any_engine.frames()["encoded"] - before == 5


def test_an_episode_of_many_turns_agrees_with_the_learner(
    engine: InProcessEngine, vlm: VisionLanguageModel, folder: Path, make_vector: Any
) -> None:
    env = make_vector(2, frame_size=(64, 64))
    config = settings(folder, frames_as="video", evidence="frames", max_new_tokens=6)
    agent = VLLMAgent(vlm, config, engine, Limits.of(env.simulation.settings))
    rollouts = play(env, agent, [Start("colour", 5), Start("colour", 6)])
    trajectories = [one for rollout in rollouts for one in rollout.trajectories]
    assert [len(one.prompt_images) for one in trajectories] == [3, 3]
    assert disagreement(vlm, trajectories, 0.7) < 1e-4


def test_patches_of_a_pair_are_those_of_the_adapter(vlm: VisionLanguageModel) -> None:
    pair = frames(2)
    raw = cut_patches(pair, vlm.patch, vlm.merge, 2).astype(np.float32)
    found = torch.from_numpy((raw - 127.5) / 127.5)
    torch.testing.assert_close(found, vlm.patches(pair[None]), atol=1e-6, rtol=0)


def test_the_whole_processor_makes_the_same(vlm: VisionLanguageModel, folder: Path) -> None:
    """With torchvision, the processor runs from pixels to patches by itself."""
    clip, times = frames(5), [0.2, 1.1, 2.0, 7.7, 9.96]
    context = TokenContext(vlm)
    context.append_text("look ", Role.prompt)
    context.append_clip(clip, times, Role.prompt)
    assert_the_processors(folder, vlm, context, [(clip, times)], text=f"look {VIDEO}")


@pytest.mark.parametrize("kind", ["png", "jpeg"])
def test_a_chat_server_reads_the_frames_and_times_that_it_is_sent(
    vlm: VisionLanguageModel, folder: Path, kind: str
) -> None:
    from vllm.multimodal.media import MediaConnector

    clip, times = frames(3), [0.25, 4.0, 61.5]
    told = media_settings(times)["video"]
    connector = MediaConnector(media_io_kwargs={"video": told})
    (read, described) = connector.fetch_video(clip_url(clip, kind))
    assert read.shape == clip.shape and (kind == "jpeg") == bool((read != clip).any())
    expected = metadata(times)
    assert {name: described[name] for name in expected} == expected
    found = processed(folder, VIDEO, [(read, times)])["input_ids"][0].tolist()
    context = TokenContext(vlm)
    context.append_clip(clip, times, Role.prompt)
    assert found == context.ids
