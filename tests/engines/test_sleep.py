"""Sleep and wake-up of vLLM in this process; on a CPU all of it but the memory that it frees."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from support.engines import conversation, frames, logprobs

from agents.model.vlm import VisionLanguageModel
from agents.vllm.engine import EngineError, Prompt
from agents.vllm.local import InProcessEngine

pytest.importorskip("vllm", reason="needs the vllm extra: make test-engines")


def distance(engine: InProcessEngine, vlm: VisionLanguageModel, images: int = 3) -> float:
    """How far the engine's log-probabilities are from the learner's."""
    context = conversation(vlm, frames(images), "which?")
    (drawn,) = engine.generate([Prompt(context, 2, 8, 0.7, 1)])
    return max(
        float(np.abs(one.logprobs - logprobs(vlm, context, one.ids, 0.7)).max()) for one in drawn
    )


@pytest.mark.parametrize("level", [1, 2])
def test_an_engine_that_slept_draws_with_the_new_weights(
    engine: InProcessEngine, vlm: VisionLanguageModel, monkeypatch: pytest.MonkeyPatch, level: int
) -> None:
    monkeypatch.setattr(engine, "level", level)
    core = engine.llm.engine_core.engine_core
    for version in (1, 2):
        assert distance(engine, vlm) < 1e-4
        engine.sleep()
        assert core.is_sleeping() and core.model_executor.is_sleeping
        assert not core.scheduler.kv_cache_manager.block_pool.cached_block_hash_to_block._cache
        with pytest.raises(EngineError, match="sleeps while the learner updates"):
            distance(engine, vlm)
        torch.manual_seed(version)
        with torch.no_grad():
            for parameter in vlm.model.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.02)
        engine.load(vlm.model.named_parameters(), version)
        assert not core.is_sleeping()
        assert distance(engine, vlm) < 1e-4


def test_memory_that_a_sleep_loses_is_restored_with_the_weights(
    engine: InProcessEngine, vlm: VisionLanguageModel, folder: Path
) -> None:
    """Neither parameter nor buffer, so vLLM does not: what is added where there is no frame."""
    worker = engine.llm.engine_core.engine_core.model_executor.driver_worker
    lost = worker.model_runner.get_model().deepstack_input_embeds
    assert lost
    for tensor in lost:
        tensor.fill_(3.0)
    assert distance(engine, vlm, images=0) > 1e-2, "the test fills the wrong memory"
    engine.load(vlm.model.named_parameters(), 1)
    assert distance(engine, vlm, images=0) < 1e-4
