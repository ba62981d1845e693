"""Fixtures of the tests that need vLLM: one small policy, an engine in this process, a server.

`make test-engines` runs them in an environment of its own; without vLLM they are skipped.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from support.engines import SHAPE, settings

from agents.model.mini import build_mini
from agents.model.vlm import VisionLanguageModel
from agents.vllm.local import InProcessEngine
from agents.vllm.server import ServerEngine


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small ParaVT-Mini with random weights."""
    texts = ["<think> a red scene at 12 </think> <answer> B </answer>"] * 3
    return build_mini(tmp_path_factory.mktemp("mini"), texts, SHAPE)


@pytest.fixture(scope="session")
def adapter(folder: Path) -> VisionLanguageModel:
    """Tokenizer and image geometry, no weights."""
    return VisionLanguageModel.load(folder, device="meta")


@pytest.fixture(scope="session")
def _engine(folder: Path, adapter: VisionLanguageModel) -> Iterator[InProcessEngine]:
    torch.set_num_threads(1)
    engine = InProcessEngine(settings(folder), adapter)
    yield engine
    engine.close()


@pytest.fixture
def vlm(folder: Path) -> VisionLanguageModel:
    """The policy as the learner holds it."""
    return VisionLanguageModel.load(folder)


@pytest.fixture
def engine(_engine: InProcessEngine, vlm: VisionLanguageModel) -> InProcessEngine:
    """The engine in this process, with the weights of the checkpoint and empty caches."""
    _engine.load(vlm.model.named_parameters(), 0)
    return _engine


@pytest.fixture(scope="session")
def server(folder: Path, adapter: VisionLanguageModel) -> Iterator[ServerEngine]:
    """A real server on loopback, started as a run starts it."""
    engine = ServerEngine(settings(folder, engine="vllm_server"), adapter)
    yield engine
    engine.close()
