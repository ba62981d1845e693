"""What the client of a vLLM server asks first, repeats and refuses; the server is a fake one."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from support.fake_vllm import VLM, prompts

from agents.config import AgentConfig, VLLMConfig
from agents.model.vlm import CHECKPOINTS
from agents.vllm import server as vllm_server
from agents.vllm.agent import VLLMAgent
from agents.vllm.engine import EngineError
from agents.vllm.server import ServerEngine

GENERATE, STAMP = "/inference/v1/generate", "/update_weight_version"


class FakeServer(ThreadingHTTPServer):
    """Answers as vLLM does; draws the context's own token.

    Attributes:
        root: Path of the checkpoint that it was started with.
        version: Of its weights.
        faults: Happen to the next requests for tokens, one each: a status, "reset" (no reply),
            "short" (a part of one), "hang" (none until `release`).
        asked: Routes, in order.
        forged: What it answers in place of completions; bytes go out as they are.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.root, self.name, self.version = "", "served", "default"
        self.faults: list[int | str] = []
        self.asked: list[str] = []
        self.forged: Any = None
        self.lock, self.release = threading.Lock(), threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, *_: object) -> None:
        """A client that gave up is part of the tests."""

    def answer(self, path: str, body: Any) -> Any:
        if path == "/v1/models":
            return {"data": [{"id": self.name, "root": self.root}]}
        if path == "/weight_info":
            return {"weight_version": self.version}
        if path == STAMP:
            self.version = body["new_version"]
        if path == GENERATE:
            return self.forged or {"choices": [self.draw(body["token_ids"])]}
        return {"results": [{"encoded": 0, "held": 0}]}

    def draw(self, ids: list[int]) -> dict[str, Any]:
        return {
            "index": 0,
            "token_ids": ids,
            "logprobs": {"content": [{"logprob": -0.5}] * len(ids)},
            "weight_versions": [{"start": 0, "end": len(ids), "version": self.version}],
        }


class Handler(BaseHTTPRequestHandler):
    server: FakeServer

    def do_GET(self) -> None:
        self.do_POST()

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or "{}")
        with self.server.lock:
            self.server.asked.append(self.path)
            drawing = self.path == GENERATE and self.server.faults
            fault = self.server.faults.pop(0) if drawing else None
        if fault == "hang":
            self.server.release.wait(20)
        if fault == "reset":
            self.close_connection = True
            return
        answer = self.server.answer(self.path, body)
        content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(fault if isinstance(fault, int) else 200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[:5] if fault == "short" else content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeServer]:
    """On loopback."""
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(vllm_server, "PAUSES", (0.0, 0.0, 0.0))
    fake = FakeServer()
    threading.Thread(target=fake.serve_forever, args=(0.01,), daemon=True).start()
    yield fake
    fake.shutdown()
    fake.server_close()


def config(server: FakeServer, checkpoint: str = "") -> AgentConfig:
    vllm = VLLMConfig(url=server.url, timeout=30.0, max_requests=1)
    return AgentConfig(checkpoint=checkpoint, engine="vllm_server", vllm=vllm)


@pytest.fixture
def folder(tmp_path: Path) -> str:
    """A checkpoint's folder."""
    (tmp_path / "step_30").mkdir()
    return str(tmp_path / "step_30")


def drawn(engine: ServerEngine, *numbers: int) -> list[tuple[list[int], list[int]]]:
    """Tokens and versions of each completion."""
    results = engine.generate(prompts(*numbers))
    engine.close()
    return [(one.ids, one.versions) for (one,) in results]


def test_an_evaluation_uses_a_server_of_its_checkpoint_and_leaves_it_as_it_was(
    server: FakeServer, folder: str
) -> None:
    server.root = folder + "/../step_30"
    for _ in range(2):
        engine = ServerEngine(config(server, folder), VLM, as_loaded=True)
        assert drawn(engine, 5) == [([5], [0])]
    assert (server.version, server.asked.count(STAMP)) == ("default", 0)


@pytest.mark.parametrize("checkpoint", ["hub/name", "paravt_mini"])
def test_a_server_on_another_machine_is_known_by_the_name_it_was_given(
    server: FakeServer, checkpoint: str
) -> None:
    server.root, server.name = "/there/step_30", checkpoint
    ServerEngine(config(server, checkpoint), VLM, as_loaded=True).close()


def test_an_evaluation_refuses_a_server_of_another_checkpoint(
    server: FakeServer, folder: str
) -> None:
    server.root = "/there/step_20"
    message = rf"serves /there/step_20, served and not {folder}: .*--served-model-name {folder}"
    with pytest.raises(EngineError, match=message):
        ServerEngine(config(server, folder), VLM, as_loaded=True)
    assert server.asked == ["/v1/models"]


def test_an_evaluation_refuses_weights_that_a_training_run_left(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of its first push too, whose version is 0."""
    monkeypatch.setitem(sys.modules, "vllm", ModuleType("vllm"))
    server.root = str(CHECKPOINTS / "paravt_mini")
    VLLMAgent.load(config(server, "paravt_mini")).close()
    training = ServerEngine(config(server, "somewhere"), VLM)
    assert (server.version, drawn(training, 5)) == ("0", [([5], [0])])
    for version in ("0", "30"):
        server.version = version
        with pytest.raises(EngineError, match=rf"replaced .* \(version {version}\), .*start the"):
            VLLMAgent.load(config(server, "paravt_mini"))
        assert server.version == version


def test_weights_that_are_replaced_under_an_evaluation_are_noticed(
    server: FakeServer, folder: str
) -> None:
    server.root = folder
    engine = ServerEngine(config(server, folder), VLM, as_loaded=True)
    server.version = "0"
    with pytest.raises(EngineError, match="replaced"):
        drawn(engine, 5)


@pytest.mark.parametrize("fault", [502, 503, "reset", "short"])
def test_a_broken_connection_costs_a_repeat_and_no_batch(
    server: FakeServer, fault: int | str
) -> None:
    engine = ServerEngine(config(server), VLM)
    server.faults = [fault]
    assert drawn(engine, 5, 6) == [([5], [0]), ([6], [0])]
    assert server.asked.count(GENERATE) == 3


def test_a_connection_that_stays_broken_is_an_error_after_a_few_repeats(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(vllm_server, "PAUSES", (0.5, 2.0, 8.0))
    monkeypatch.setattr(vllm_server.time, "sleep", pauses.append)
    engine = ServerEngine(config(server), VLM)
    server.faults = [503, "reset", "short", 502]
    with pytest.raises(EngineError, match=r"refused \(502\)"):
        drawn(engine, 5)
    assert (server.faults, pauses) == ([], [0.5, 2.0, 8.0])


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (400, r"refused \(400\)"),
        (500, r"refused \(500\)"),
        ("hang", r"did not answer: no reply within 0\.2 s"),
    ],
)
def test_a_refusal_and_a_timeout_are_not_asked_again(
    server: FakeServer, fault: int | str, message: str
) -> None:
    engine = ServerEngine(config(server), VLM)
    server.faults = [fault]
    engine.timeout = 0.2 if fault == "hang" else 30.0
    with pytest.raises(EngineError, match=message):
        drawn(engine, 5)
    server.release.set()
    assert server.asked.count(GENERATE) == 1


SPAN = {"start": 0, "end": 2, "version": "0"}
CHOICE = {
    "index": 0,
    "token_ids": [5, 6],
    "logprobs": {"content": [{"logprob": -0.5}] * 2},
    "weight_versions": [SPAN],
}


@pytest.mark.parametrize(
    ("forged", "message"),
    [
        (b"<html>", "no JSON"),
        (b"[" * 100_000, "no JSON"),
        ([1], "not vLLM 0.32's"),
        ({"error": "no"}, "not vLLM 0.32's"),
        ({"choices": [1]}, "not vLLM 0.32's"),
        ({"choices": [CHOICE, CHOICE | {"index": 1}]}, "2 completions"),
        ({"choices": [CHOICE | {"token_ids": [5]}]}, "1 tokens with 2 log-probabilities"),
        ({"choices": [CHOICE | {"logprobs": None}]}, "not vLLM 0.32's"),
        ({"choices": [CHOICE | {"weight_versions": [{"start": 0}]}]}, "not vLLM 0.32's"),
        ({"choices": [CHOICE | {"weight_versions": []}]}, "which weights drew a token"),
        ({"choices": [CHOICE | {"weight_versions": [SPAN | {"end": 10**9}]}]}, "not the tokens'"),
    ],
)
def test_an_answer_of_another_form_is_an_engine_error(
    server: FakeServer, forged: Any, message: str
) -> None:
    engine = ServerEngine(config(server), VLM)
    server.forged = forged
    with pytest.raises(EngineError, match=message):
        engine.generate(prompts(5))
    server.forged = {"choices": [CHOICE]}
    assert drawn(engine, 5) == [([5, 6], [0, 0])]
