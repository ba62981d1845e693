"""A vLLM server, on this machine or another one, as an engine.

One of the two engines behind `agents/vllm/agent.py`. Tokens and patches travel through vLLM's
tokens-in, tokens-out route; caches and versions through its routes for reinforcement learning.
Tests: `pytest tests/policies/test_vllm_server.py`, and `make test-engines`.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from agents.base import AgentStats, image_key
from agents.config import AgentConfig
from agents.model.vlm import VisionLanguageModel
from agents.text.context import stop_ids
from agents.vllm.arguments import checkpoint_path
from agents.vllm.engine import (
    INITIAL,
    EngineError,
    Generated,
    Prompt,
    image_items,
    placeholders,
    token_versions,
)
from agents.vllm.process import ServerProcess
from paravt_env.common.http.endpoint import EndpointError, exchange, retried

AS_LOADED = "default"
"""vLLM's version of the weights that a server started with; a push of others names another."""
PAUSES = (0.5, 2.0, 8.0)
"""Seconds before a request is repeated whose connection broke."""
MAX_ANSWER_BYTES = 2**30


class ServerEngine:
    """A vLLM server on this machine or another one.

    The server needs the arguments of `agents.vllm.process.server_command`; with an empty `url` one
    is started here and ends with this object.

    Args:
        config: The policy's checkpoint and the engine's settings.
        vlm: Its tokenizer and image geometry.
        as_loaded: The server must hold the checkpoint as it is, as no weights are pushed; one
            that runs already is left as it was found.

    Raises:
        EngineError: It does not start or answer, or holds other weights than `as_loaded` asks for.
    """

    def __init__(
        self, config: AgentConfig, vlm: VisionLanguageModel, as_loaded: bool = False
    ) -> None:
        self.vlm, self.stats = vlm, AgentStats()
        self.stop_ids = stop_ids(vlm)
        self.timeout = config.vllm.timeout
        self.as_loaded = as_loaded and bool(config.vllm.url)
        self.process = None if config.vllm.url else ServerProcess(config)
        self.url = self.process.url if self.process else config.vllm.url.rstrip("/")
        # Requests in flight at most; those of the prompts that wait are not written yet.
        self._pool = ThreadPoolExecutor(config.vllm.max_requests, "vllm")
        self._lock = threading.Lock()
        if self.as_loaded:
            self._check_weights(config.checkpoint)
        else:
            self.post("/update_weight_version", {"new_version": INITIAL})
        self.frames()

    def _check_weights(self, checkpoint: str) -> None:
        """Refuse a server of another checkpoint, and one whose weights a training run replaced."""
        models = self.get("/v1/models")
        with self._understood():
            served = {str(model.get(key)) for model in models["data"] for key in ("id", "root")}
        wanted = {checkpoint, _resolved(checkpoint_path(checkpoint))}
        if wanted.isdisjoint(map(_resolved, served)):
            raise EngineError(
                f"{self.url} serves {', '.join(sorted(served))} and not {checkpoint}: start a "
                "server of that checkpoint. If it is the same one by another path, start the "
                f"server with --served-model-name {checkpoint}"
            )
        weights = self.get("/weight_info")
        with self._understood():
            self._check_version(weights["weight_version"])

    def _check_version(self, version: str) -> None:
        if version != AS_LOADED:
            raise EngineError(
                f"a training run has replaced the weights of {self.url} (version {version}), so "
                "that they are not those of agent.checkpoint: start the server again, or leave "
                "agent.vllm.url empty and one is started for this evaluation"
            )

    def post(
        self,
        path: str,
        body: Any = None,
        timeout: float | None = None,
        pauses: Sequence[float] = (),
    ) -> Any:
        """POST a JSON body and parse the JSON answer.

        Args:
            path: Route, with its query.
            body: What is sent.
            timeout: Seconds; `agent.vllm.timeout` where None.
            pauses: Seconds before each repeat where the connection breaks: for what changes nothing
                there, and for tokens, as a request with its seed draws the same.

        Raises:
            EngineError: No answer in time, a refusal, or an answer that is no JSON.
        """
        return self._ask(path, {} if body is None else body, timeout or self.timeout, pauses)

    def get(self, path: str) -> Any:
        """GET a JSON answer; errors are those of `post`."""
        return self._ask(path, None, self.timeout, ())

    def _ask(self, path: str, body: Any, timeout: float, pauses: Sequence[float]) -> Any:
        where = self.url + path

        def attempt() -> bytes:
            return exchange(where, body, timeout=timeout, limit=MAX_ANSWER_BYTES)

        try:
            content = retried(attempt, pauses, max(pauses, default=0.0), time.sleep, _broken)
            return json.loads(content) if content else {}
        except EndpointError as error:
            how = f"refused ({error.status})" if error.status else "did not answer"
            raise EngineError(f"{where} {how}: {error}") from error
        except (ValueError, RecursionError) as error:
            raise EngineError(f"{where} answered what is no JSON: {error}") from error

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
            "sampling_params": prompt.sampling(self.stop_ids),
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
        answer = self.post("/inference/v1/generate", body, None, PAUSES)
        with self._understood():
            choices = sorted(answer["choices"], key=lambda choice: choice["index"])
            if len(choices) != body["sampling_params"]["n"]:
                raise ValueError(f"{len(choices)} completions")
            return prompt.share([self._generated(choice) for choice in choices])

    def _generated(self, choice: Any) -> Generated:
        """A completion of vLLM's.

        Raises:
            ValueError: Tokens without a log-probability.
        """
        ids = choice["token_ids"]
        logprobs = [one["logprob"] for one in choice["logprobs"]["content"]]
        if len(logprobs) != len(ids):
            raise ValueError(f"{len(ids)} tokens with {len(logprobs)} log-probabilities")
        return Generated(ids, logprobs, self._versions(choice["weight_versions"], len(ids)))

    @contextmanager
    def _understood(self) -> Iterator[None]:
        """Take an answer apart; one of another form is an error of the server's."""
        try:
            yield
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise EngineError(
                f"{self.url} answered in a form that is not vLLM 0.32's ({error!r}): start it with "
                "the arguments that docs/engines.md prints"
            ) from error

    def _versions(self, spans: Any, tokens: int) -> list[int]:
        """Version of each token; a server that was not stamped has but one."""
        if not self.as_loaded:
            return token_versions(spans, tokens)
        for span in spans or ():
            self._check_version(span["version"])
        return [int(INITIAL)] * tokens

    def frames(self) -> dict[str, int]:
        """See :class:`Engine`."""
        answer = self.post("/collective_rpc", {"method": "paravt_frames"}, None, PAUSES)
        with self._understood():
            return answer["results"][0]

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
        if self.process is not None:
            self.process.close()


def _broken(error: EndpointError) -> bool:
    """A connection that was lost, or a gateway that lost it: the same request may succeed."""
    return error.broken or error.status in (502, 503)


def _resolved(name: str) -> str:
    """A checkpoint's folder in full, or its name where there is no such folder here."""
    return os.path.realpath(name) if os.path.isdir(name) else name
