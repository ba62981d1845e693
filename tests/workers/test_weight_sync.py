"""Weight sync without vLLM: deadlines, copies, and what a server is told in which order."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch

from agents.config import AgentConfig
from agents.model.mini import MiniConfig, build_mini
from agents.model.vlm import VisionLanguageModel
from train.workers.weight_sync import CopySync, EngineSync, ServerSync, SyncError, Weights, within

SHAPE = MiniConfig(32, 2, 2, 64, 32, 1, 2, 64, vocabulary=300, numbers=12)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory):
    return build_mini(tmp_path_factory.mktemp("mini"), ["a red scene"], SHAPE)


@pytest.fixture
def vlm(folder) -> VisionLanguageModel:
    return VisionLanguageModel.load(folder)


def test_within_returns_what_the_action_returns_and_names_what_failed() -> None:
    assert within(10, "adding", lambda: 1 + 1) == 2
    with pytest.raises(SyncError, match=r"dividing failed: .* by zero"):
        within(10, "dividing", lambda: 1 // 0)


def test_defect_30_a_sync_that_stalls_is_an_error_after_the_deadline(vlm) -> None:
    """Whatever it is that hangs: the engine's process, its server, a collective call."""
    forever = threading.Event()

    class Stalled:
        def load(self, weights, version):
            forever.wait()

    with pytest.raises(SyncError, match=r"weight sync with vLLM .* not finished after 0\.1 s"):
        EngineSync(vlm.model, Stalled(), deadline=0.1).push(1)
    forever.set()


class Server:
    """Records what it is told; `stall` never answers one route."""

    url = "http://server"

    def __init__(self, stall: str = "") -> None:
        self.told: list[str] = []
        self.stall, self.go_on = stall, threading.Event()

    def post(self, path, body=None, timeout=None):
        self.told.append(path)
        if path == self.stall:
            self.go_on.wait()
        return {"success": True}

    def reset_caches(self):
        self.told.append("caches")


class Sender:
    """Sends as vLLM's own trainer engines do."""

    def __init__(self, sync: ServerSync) -> None:
        self.client = sync.client

    def send_weights(self) -> None:
        self.client.start_weight_update()
        self.client.update_weights({})
        self.client.finish_weight_update()


def server_sync(vlm, server: Server, monkeypatch: pytest.MonkeyPatch, deadline: float = 10):
    monkeypatch.setattr(ServerSync, "_connect", lambda self, config, source: Sender(self))
    config = AgentConfig()
    config.vllm.sync_deadline = deadline
    return ServerSync(vlm.model, server, config)


def test_a_server_is_paused_filled_emptied_of_caches_stamped_and_resumed(vlm, monkeypatch) -> None:
    server = Server()
    server_sync(vlm, server, monkeypatch).push(3)
    assert server.told == [
        "/pause?mode=wait&clear_cache=false",
        "/start_weight_update",
        "/update_weights",
        "/finish_weight_update",
        "caches",
        "/update_weight_version",
        "/resume",
    ]


@pytest.mark.parametrize(
    "route", ["/pause?mode=wait&clear_cache=false", "/update_weights", "/resume"]
)
def test_defect_30_a_server_that_stalls_anywhere_is_an_error(vlm, monkeypatch, route) -> None:
    server = Server(stall=route)
    with pytest.raises(SyncError, match="weight sync with http://server has not finished"):
        server_sync(vlm, server, monkeypatch, deadline=0.1).push(1)
    server.go_on.set()


def features(vlm, image):
    with torch.no_grad():
        return vlm.features.encode([image])[0]


def test_a_copy_gets_the_weights_and_forgets_what_older_ones_encoded(vlm, folder) -> None:
    copy = VisionLanguageModel.load(folder)
    image = np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8)
    assert torch.equal(features(vlm, image), features(copy, image))
    with torch.no_grad():
        for parameter in vlm.model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    assert not torch.allclose(features(vlm, image), features(copy, image))
    CopySync(vlm, copy).push(1)
    assert torch.equal(features(vlm, image), features(copy, image))
    for one, other in zip(vlm.model.parameters(), copy.model.parameters(), strict=True):
        assert torch.equal(one, other) and one.data_ptr() != other.data_ptr()


def test_weights_can_be_gone_through_twice_and_carry_checkpoint_names(vlm) -> None:
    weights = Weights(vlm.model)
    first, second = dict(weights), dict(weights)
    assert first.keys() == second.keys() == dict(vlm.model.named_parameters()).keys()
    assert not any(tensor.requires_grad for tensor in first.values())
