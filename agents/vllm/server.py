"""A vLLM server, on this machine or another one.

One of the two engines behind `agents/vllm/agent.py`. Tokens and patches travel through vLLM's
tokens-in, tokens-out route; caches and versions through its routes for reinforcement learning.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException
from pathlib import Path
from typing import Any

from agents.base import AgentStats, image_key
from agents.config import AgentConfig
from agents.model.vlm import VisionLanguageModel
from agents.vllm.engine import (
    INITIAL,
    SHARED_MEMORY,
    EngineError,
    Generated,
    Prompt,
    checkpoint_path,
    engine_arguments,
    image_items,
    placeholders,
    prepare_environment,
    token_versions,
)

TORCHRUN = (
    "RANK", "LOCAL_RANK", "GROUP_RANK", "ROLE_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE",
    "GROUP_WORLD_SIZE", "ROLE_WORLD_SIZE", "ROLE_NAME", "MASTER_ADDR", "MASTER_PORT",
)  # fmt: skip
"""What `torchrun` tells each process of a job (and `TORCHELASTIC_*`)."""
AS_LOADED = "default"
"""vLLM's version of the weights that a server started with; whoever pushes others gives another."""
PAUSES = (0.5, 2.0, 8.0)
"""Seconds before a request is asked again whose connection broke."""


class BrokenConnection(EngineError):
    """A connection that was lost, or a gateway that lost it: the same request may succeed."""


class ServerEngine:
    """A vLLM server on this machine or another one.

    The server needs the arguments of :func:`server_command`; with an empty `url` one is started
    here and ends with this object.

    Args:
        config: The policy's checkpoint and the engine's settings.
        vlm: Its tokenizer and image geometry.
        as_loaded: The server must hold the checkpoint as it is, for nobody will push weights; one
            that runs already is left as it was found.

    Raises:
        EngineError: It does not start or answer, or holds other weights than `as_loaded` asks for.
    """

    def __init__(
        self, config: AgentConfig, vlm: VisionLanguageModel, as_loaded: bool = False
    ) -> None:
        self.vlm, self.stats = vlm, AgentStats()
        self.stop_id = vlm.tokenizer.eos_token_id
        self.timeout = config.vllm.timeout
        self.process: subprocess.Popen[bytes] | None = None
        self.url = config.vllm.url.rstrip("/")
        # Requests in flight at most; those of the prompts that wait are not written yet.
        self._pool = ThreadPoolExecutor(config.vllm.max_requests, "vllm")
        self._lock = threading.Lock()
        self.as_loaded = as_loaded and bool(self.url)
        if self.as_loaded:
            self._check_weights(config.checkpoint)
        else:
            if not self.url:
                self._start(config)
            self.post("/update_weight_version", {"new_version": INITIAL})
        self.frames()

    def _start(self, config: AgentConfig) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        descriptor, log = tempfile.mkstemp(prefix="paravt-vllm-", suffix=".log")
        with os.fdopen(descriptor, "wb") as stream:
            self.process = subprocess.Popen(
                tied(server_command(config, port)),
                stdout=stream,
                stderr=subprocess.STDOUT,
                env=server_environment(config.device),
                start_new_session=True,
            )
        atexit.register(self.close)
        until = time.monotonic() + config.vllm.start_timeout
        while True:
            if self.process.poll() is not None or time.monotonic() > until:
                self.close()
                tail = Path(log).read_text(errors="replace")[-2000:]
                raise EngineError(f"the vLLM server did not start, log {log}:\n{tail}")
            try:
                urllib.request.urlopen(f"{self.url}/health", timeout=5).close()
            except OSError:
                time.sleep(0.2)
            else:
                Path(log).unlink()
                return

    def _check_weights(self, checkpoint: str) -> None:
        """Refuse a server of another checkpoint, and one whose weights a training run replaced."""
        models = self.get("/v1/models")["data"]
        served = {str(model.get(key)) for model in models for key in ("id", "root")}
        wanted = {checkpoint, _resolved(checkpoint_path(checkpoint))}
        if wanted.isdisjoint(map(_resolved, served)):
            raise EngineError(
                f"{self.url} serves {', '.join(sorted(served))} and not {checkpoint}: start a "
                "server of that checkpoint. If it is the same one by another path, start the "
                f"server with --served-model-name {checkpoint}"
            )
        self._check_version(self.get("/weight_info")["weight_version"])

    def _check_version(self, version: str) -> None:
        if version != AS_LOADED:
            raise EngineError(
                f"a training run has replaced the weights of {self.url} (version {version}), so "
                "that they are not those of agent.checkpoint: start the server again, or leave "
                "agent.vllm.url empty and one is started for this evaluation"
            )

    def post(self, path: str, body: Any = None, timeout: float | None = None) -> Any:
        """POST a JSON body and parse the JSON answer.

        Args:
            path: Route, with its query.
            body: What is sent.
            timeout: Seconds; `agent.vllm.timeout` where None.

        Raises:
            EngineError: No answer in time, or a refusal.
        """
        content = json.dumps({} if body is None else body).encode()
        return self._ask(path, content, timeout or self.timeout)

    def get(self, path: str) -> Any:
        """GET a JSON answer; errors are those of `post`."""
        return self._ask(path, None, self.timeout)

    def _ask(self, path: str, content: bytes | None, timeout: float) -> Any:
        where = self.url + path
        request = urllib.request.Request(where, content, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=timeout) as answer:
                text = answer.read()
        except urllib.error.HTTPError as error:
            said = error.read().decode(errors="replace")[:500]
            kind = BrokenConnection if error.code in (502, 503) else EngineError
            raise kind(f"{where} refused ({error.code}): {said}") from error
        except (OSError, HTTPException) as error:
            cause = getattr(error, "reason", error)
            broken = isinstance(cause, ConnectionError | HTTPException)
            gone = isinstance(cause, ConnectionRefusedError)
            kind = BrokenConnection if broken and not gone else EngineError
            raise kind(f"{where} did not answer: {error}") from error
        return json.loads(text) if text else {}

    def generate(self, prompts: Sequence[Prompt]) -> list[list[Generated]]:
        """See :class:`Engine`."""
        began = time.perf_counter()
        results = list(self._pool.map(self._request, prompts))
        with self._lock:
            seconds = self.stats.seconds
            seconds["engine"] = seconds.get("engine", 0.0) + time.perf_counter() - began
            self.stats.tokens_sampled += sum(len(one.ids) for many in results for one in many)
        return results

    def _request(self, prompt: Prompt) -> list[Generated]:
        context = prompt.context
        body: dict[str, Any] = {
            "token_ids": list(context.ids),
            "sampling_params": prompt.sampling(self.stop_id),
        }
        if context.images:
            from vllm.entrypoints.scale_out.token_in_token_out.mm_serde import (
                encode_mm_kwargs_item,
            )

            items = image_items(self.vlm, context.images)["image"]
            body["features"] = {
                "mm_hashes": {"image": [image_key(image).hex() for image in context.images]},
                "mm_placeholders": {
                    "image": [{"offset": a, "length": n} for a, n in placeholders(context)]
                },
                "kwargs_data": {"image": [encode_mm_kwargs_item(item) for item in items]},
            }
        choices = self._patiently("/inference/v1/generate", body)["choices"]
        drawn = []
        for choice in sorted(choices, key=lambda choice: choice["index"]):
            logprobs = [one["logprob"] for one in choice["logprobs"]["content"]]
            versions = self._versions(choice["weight_versions"], len(choice["token_ids"]))
            drawn.append(Generated(choice["token_ids"], logprobs, versions))
        return prompt.share(drawn)

    def _patiently(self, path: str, body: Any) -> Any:
        """Post again where the connection broke: what is asked for here changes nothing there.

        A request for tokens has its seed and draws the same.
        """
        for pause in PAUSES:
            try:
                return self.post(path, body)
            except BrokenConnection:
                time.sleep(pause)
        return self.post(path, body)

    def _versions(self, spans: Any, tokens: int) -> list[int]:
        """Version of each token; a server that was not stamped has but one."""
        if not self.as_loaded:
            return token_versions(spans, tokens)
        for span in spans or ():
            self._check_version(span["version"])
        return [int(INITIAL)] * tokens

    def frames(self) -> dict[str, int]:
        """See :class:`Engine`."""
        return self._patiently("/collective_rpc", {"method": "paravt_frames"})["results"][0]

    def reset_caches(self) -> None:
        """Forget all keys, values and image features."""
        self.post("/reset_encoder_cache")
        if not self.post("/reset_prefix_cache")["success"]:
            raise EngineError("the server's prefix cache is in use and could not be reset")

    def sleep(self) -> None:
        """See :class:`Engine`; a server has its own card and stays awake."""

    def close(self) -> None:
        """End the server if it was started here."""
        self._pool.shutdown(wait=False)
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)  # with the engine behind it
                self.process.wait()


def _resolved(name: str) -> str:
    """A checkpoint's folder in full, or its name where there is no such folder here."""
    return os.path.realpath(name) if os.path.isdir(name) else name


def free_port() -> int:
    """A port of this machine that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def tied(command: list[str]) -> list[str]:
    """The command, ended with whoever starts it, even by `kill -9` (Linux; else as it is).

    A server that outlived a process of a job would keep its card when the job starts again. The
    thread that starts it must stay: to Linux its end is the parent's.
    """
    if sys.platform != "linux":
        return command
    ask = "import ctypes, os, signal, sys; ctypes.CDLL(None).prctl(1, signal.SIGTERM)"
    return [sys.executable, "-c", f"{ask}; os.execvp(sys.argv[1], sys.argv[1:])", *command]


def server_environment(device: str) -> dict[str, str]:
    """Variables of a server that is started here: no process of a `torchrun` job, on one card.

    Args:
        device: Of the agent; `cuda:1` is the second of the cards that this process may see.
    """
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in TORCHRUN and not name.startswith("TORCHELASTIC_")
    }
    kind, _, index = device.partition(":")
    if kind == "cuda" and index:
        seen = environment.get("CUDA_VISIBLE_DEVICES")
        environment["CUDA_VISIBLE_DEVICES"] = seen.split(",")[int(index)] if seen else index
    return {**environment, **prepare_environment(), "VLLM_SERVER_DEV_MODE": "1"}


def server_command(config: AgentConfig, port: int) -> list[str]:
    """The command of a server that `vllm_server` can use; `VLLM_SERVER_DEV_MODE=1` goes with it."""
    backend = "nccl" if config.vllm.sync == "nccl" else SHARED_MEMORY
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--enable-scale-out"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    command += ["--weight-transfer-config", json.dumps({"backend": backend})]
    for name, value in engine_arguments(config).items():
        flag = "--" + name.replace("_", "-")
        if isinstance(value, bool):
            command.append(flag if value else flag.replace("--", "--no-", 1))
        elif isinstance(value, list):
            command += [flag, *value]
        else:
            command += [flag, json.dumps(value) if isinstance(value, dict) else str(value)]
    return command
