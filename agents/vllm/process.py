"""A vLLM server as a process on this machine: its command, its variables, its start and its end.

Behind `agents/vllm/server.py` where no address is given: each process that plays starts its own.
Tests: `pytest tests/distributed/test_disaggregated.py`, and `make test-engines`.
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
import time
from pathlib import Path

from agents.config import AgentConfig
from agents.vllm.arguments import SHARED_MEMORY, engine_arguments, prepare_environment
from agents.vllm.engine import EngineError
from paravt_env.common.http.endpoint import EndpointError, exchange

TORCHRUN = (
    "RANK", "LOCAL_RANK", "GROUP_RANK", "ROLE_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE",
    "GROUP_WORLD_SIZE", "ROLE_WORLD_SIZE", "ROLE_NAME", "MASTER_ADDR", "MASTER_PORT",
)  # fmt: skip
"""What `torchrun` tells each process of a job (and `TORCHELASTIC_*`)."""


class ServerProcess:
    """A vLLM server that is started here, and ends with this process at the latest.

    Args:
        config: The policy's checkpoint, its card, and the engine's settings.

    Attributes:
        url: Its address.
        pid: Of the process.

    Raises:
        EngineError: It does not start in time; the end of its log is told.
    """

    def __init__(self, config: AgentConfig) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        descriptor, log = tempfile.mkstemp(prefix="paravt-vllm-", suffix=".log")
        with os.fdopen(descriptor, "wb") as stream:
            self._process = subprocess.Popen(
                tied(server_command(config, port)),
                stdout=stream,
                stderr=subprocess.STDOUT,
                env=server_environment(config.device),
                start_new_session=True,
            )
        self.pid = self._process.pid
        atexit.register(self.close)
        self._wait(Path(log), config.vllm.start_timeout)

    def _wait(self, log: Path, seconds: float) -> None:
        until = time.monotonic() + seconds
        while self._process.poll() is None and time.monotonic() < until:
            try:
                exchange(f"{self.url}/health", timeout=5.0)
            except EndpointError:
                time.sleep(0.2)
            else:
                log.unlink()
                return
        self.close()
        tail = log.read_text(errors="replace")[-2000:]
        raise EngineError(f"the vLLM server did not start, log {log}:\n{tail}")

    def close(self) -> None:
        """End it, with the engine behind it where it does not listen."""
        if self._process.poll() is not None:
            return
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(self.pid, signal.SIGKILL)
            self._process.wait()


def free_port() -> int:
    """A free port of this machine."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def tied(command: list[str]) -> list[str]:
    """The command, which ends with its parent, even by `kill -9` (Linux; else unchanged).

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
