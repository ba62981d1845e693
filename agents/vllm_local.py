"""vLLM in this process: the same process can train.

One of the two engines behind `agents/vllm_agent.py`. Lanes of rollouts call it from several threads
and share its batch.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from agents.base import AgentConfig, AgentStats, image_key
from agents.vllm_engine import (
    INITIAL,
    EngineError,
    Generated,
    Prompt,
    engine_arguments,
    image_items,
    placeholders,
    prepare_environment,
    token_versions,
)
from agents.vlm import VisionLanguageModel


@dataclass
class _Ticket:
    """Prompts of one caller and what has come of them; `left` requests still run."""

    prompts: Sequence[Prompt]
    results: list[list[Generated]] = field(default_factory=list)
    left: int = -1
    error: Exception | None = None

    @property
    def done(self) -> bool:
        return self.left == 0 or self.error is not None


class InProcessEngine:
    """vLLM in this process: the same process can train.

    Callers on several threads share one batch: whoever comes first drives the engine, takes in the
    requests of those who come later between two steps, and hands everybody's results out.

    Args:
        config: The policy's checkpoint and the engine's settings.
        vlm: Its tokenizer and image geometry.
    """

    def __init__(self, config: AgentConfig, vlm: VisionLanguageModel) -> None:
        os.environ.update(prepare_environment())
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
        from vllm import EngineArgs
        from vllm.v1.engine.llm_engine import LLMEngine

        arguments = EngineArgs(**engine_arguments(config), disable_log_stats=True)
        threads, set_num_threads = torch.get_num_threads(), torch.set_num_threads
        self.llm = LLMEngine.from_engine_args(arguments)
        # On CPU, vLLM takes `set_num_threads` away from the whole process.
        torch.set_num_threads = set_num_threads
        torch.set_num_threads(threads)
        self.llm.set_weight_version(INITIAL)
        self.vlm, self.stats = vlm, AgentStats()
        self.stop_id = vlm.tokenizer.eos_token_id
        self._incoming: list[_Ticket] = []
        self._running: dict[str, tuple[_Ticket, int]] = {}
        self._changed = threading.Condition()
        self._driving = False
        self._count = 0
        self.frames()

    def generate(self, prompts: Sequence[Prompt]) -> list[list[Generated]]:
        """See :class:`Engine`."""
        ticket = _Ticket(prompts)
        with self._changed:
            self._incoming.append(ticket)
            while self._driving and not ticket.done:
                self._changed.wait()
            self._driving = self._driving or not ticket.done
        while not ticket.done:
            self._drive(ticket)
        if ticket.error is not None:
            raise EngineError(f"the engine failed: {ticket.error}") from ticket.error
        return ticket.results

    def _drive(self, ticket: _Ticket) -> None:
        """Step until the caller's own requests are done, then let another caller drive."""
        began = time.perf_counter()
        try:
            while not ticket.done:
                self._step()
        except Exception as error:
            with self._changed:
                running = [owner for owner, _ in self._running.values()]
                waiting = {id(other): other for other in (*self._incoming, *running)}
                for other in (ticket, *waiting.values()):
                    other.error = error
                self._incoming.clear()
                self.llm.abort_request(list(self._running))
                self._running.clear()
        finally:
            seconds = self.stats.seconds
            seconds["engine"] = seconds.get("engine", 0.0) + time.perf_counter() - began
            with self._changed:
                self._driving = False
                self._changed.notify_all()

    def _step(self) -> None:
        with self._changed:
            incoming, self._incoming = self._incoming, []
        for ticket in incoming:
            ticket.results = [[] for _ in ticket.prompts]
            ticket.left = len(ticket.prompts)
            for place, prompt in enumerate(ticket.prompts):
                self._count += 1
                name = f"paravt-{self._count}"
                self._running[name] = (ticket, place)
                self._add(name, prompt)
        for output in self.llm.step():
            if output.finished:
                ticket, place = self._running.pop(output.request_id)
                drawn = [_generated(one) for one in output.outputs]
                ticket.results[place] = ticket.prompts[place].share(drawn)
                self.stats.tokens_sampled += sum(len(one.token_ids) for one in output.outputs)
                with self._changed:
                    ticket.left -= 1
                    self._changed.notify_all()

    def _add(self, name: str, prompt: Prompt) -> None:
        from vllm import SamplingParams
        from vllm.inputs import mm_input, tokens_input
        from vllm.multimodal.inputs import PlaceholderRange
        from vllm.sampling_params import RequestOutputKind

        context = prompt.context
        if context.images:
            ranges = [PlaceholderRange(offset=a, length=n) for a, n in placeholders(context)]
            given: Any = mm_input(
                list(context.ids),
                image_items(self.vlm, context.images),
                {"image": [image_key(image).hex() for image in context.images]},
                {"image": ranges},
            )
        else:
            given = tokens_input(list(context.ids))
        sampling = SamplingParams(
            **prompt.sampling(self.stop_id), output_kind=RequestOutputKind.FINAL_ONLY
        )
        self.llm.add_request(name, given, sampling)

    def load(self, weights: Iterable[tuple[str, torch.Tensor]], version: int) -> None:
        """Replace the weights, forget what the old ones computed, stamp what comes with `version`.

        Raises:
            EngineError: Something is being generated: its tokens would mix two versions.
        """
        with self._changed:
            if self._driving or self._incoming:
                raise EngineError("weights cannot change while completions are being drawn")
            self.llm.collective_rpc("paravt_reload", args=(iter(weights),))
            self.reset_caches()
            self.llm.set_weight_version(str(version))

    def reset_caches(self) -> None:
        """Forget all keys, values and image features."""
        self.llm.reset_encoder_cache()
        if not self.llm.reset_prefix_cache():
            raise EngineError("the prefix cache is in use and could not be reset")

    def frames(self) -> dict[str, int]:
        """See :class:`Engine`."""
        return self.llm.collective_rpc("paravt_frames")[0]

    def close(self) -> None:
        """Shut vLLM down."""
        self.llm.engine_core.shutdown()


def _generated(output: Any) -> Generated:
    """A completion of vLLM's."""
    ids = list(output.token_ids)
    logprobs = [entry[token].logprob for token, entry in zip(ids, output.logprobs, strict=True)]
    return Generated(ids, logprobs, token_versions(output.weight_versions, len(ids)))
