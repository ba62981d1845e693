"""vLLM in this process: the same process can train.

One of the two engines behind `agents/vllm/agent.py`. Lanes of rollouts call it from several threads
and share its batch. vLLM holds `agent.vllm.max_requests` of their requests at most; the others wait
here and their lanes with them, so no worker decodes frames for an engine that is full.

Where torchrun started several processes, each has an engine of its own. While the learner updates,
the engine sleeps; what wakes it is new weights.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist

from agents.base import AgentStats, image_key
from agents.config import AgentConfig
from agents.model.vlm import VisionLanguageModel
from agents.vllm.engine import (
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


@dataclass
class _Ticket:
    """Prompts of one caller and what has come of them; `left` requests still run."""

    prompts: Sequence[Prompt]
    results: list[list[Generated]] = field(init=False)
    left: int = field(init=False)
    error: Exception | None = None

    def __post_init__(self) -> None:
        self.results = [[] for _ in self.prompts]
        self.left = len(self.prompts)

    @property
    def done(self) -> bool:
        return self.left == 0 or self.error is not None


class InProcessEngine:
    """vLLM in this process: the same process can train.

    Callers on several threads share one batch: whoever comes first drives the engine, takes in the
    requests of those who come later between two steps, and hands everybody's results out.

    Several processes start their engines together, since each start makes process groups. That is
    all that the engines share: each has the whole policy, on the card `cuda:LOCAL_RANK`.

    Args:
        config: The policy's checkpoint and the engine's settings.
        vlm: Its tokenizer and image geometry.
    """

    def __init__(self, config: AgentConfig, vlm: VisionLanguageModel) -> None:
        os.environ.update(prepare_environment())
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
        from vllm import EngineArgs
        from vllm.v1.engine.llm_engine import LLMEngine

        self.device = torch.device(config.device)
        self.level = config.vllm.sleep if self.device.type == "cuda" else 0
        self.asleep = False
        self._guest = dist.is_initialized() and dist.get_world_size() > 1
        settings = engine_arguments(config)
        if self._guest:
            settings["distributed_executor_backend"] = "external_launcher"
        if self.level:
            settings["enable_sleep_mode"] = True
        arguments = EngineArgs(**settings, disable_log_stats=True)
        threads, set_num_threads = torch.get_num_threads(), torch.set_num_threads
        self.llm = LLMEngine.from_engine_args(arguments)
        # On CPU, vLLM takes `set_num_threads` away from the whole process.
        torch.set_num_threads = set_num_threads
        torch.set_num_threads(threads)
        self.llm.set_weight_version(INITIAL)
        self.vlm, self.stats = vlm, AgentStats()
        self.stop_id = vlm.tokenizer.eos_token_id
        self.max_requests = config.vllm.max_requests
        self._waiting: deque[tuple[_Ticket, int]] = deque()
        self._running: dict[str, tuple[_Ticket, int]] = {}
        self._changed = threading.Condition()
        self._driving = False
        self._count = 0
        self.frames()

    def generate(self, prompts: Sequence[Prompt]) -> list[list[Generated]]:
        """See :class:`Engine`.

        Raises:
            EngineError: A request was refused, or the engine sleeps.
        """
        ticket = _Ticket(prompts)
        with self._changed:
            if self.asleep:
                raise EngineError(
                    "the engine sleeps while the learner updates: it draws again once it has been "
                    "given the new weights (Players.weights_changed)"
                )
            self._waiting.extend((ticket, place) for place in range(ticket.left))
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
            self._take_card()
            while not ticket.done:
                self._step()
        except Exception as error:
            with self._changed:
                for owner, _ in (*self._waiting, *self._running.values()):
                    owner.error = error
                ticket.error = error
                self._waiting.clear()
                self.llm.abort_request(list(self._running))
                self._running.clear()
        finally:
            seconds = self.stats.seconds
            seconds["engine"] = seconds.get("engine", 0.0) + time.perf_counter() - began
            with self._changed:
                self._driving = False
                self._changed.notify_all()

    def _step(self) -> None:
        while (name := self._next()) is not None:
            ticket, place = self._running[name]
            self._add(name, ticket.prompts[place])
        for output in self.llm.step():
            if output.finished:
                ticket, place = self._running.pop(output.request_id)
                drawn = [_generated(one) for one in output.outputs]
                ticket.results[place] = ticket.prompts[place].share(drawn)
                self.stats.tokens_sampled += sum(len(one.token_ids) for one in output.outputs)
                with self._changed:
                    ticket.left -= 1
                    self._changed.notify_all()

    def _next(self) -> str | None:
        """Take in the request that has waited longest; None if there is none, or no room."""
        with self._changed:
            if not self._waiting or len(self._running) >= self.max_requests:
                return None
            self._count += 1
            name = f"paravt-{self._count}"
            self._running[name] = self._waiting.popleft()
            return name

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

        An engine that sleeps wakes: first the memory of its weights, so that the new ones find
        room, and that of keys and values when they are loaded.

        Raises:
            EngineError: Something is being generated: its tokens would mix two versions.
        """
        with self._changed:
            if self._driving or self._waiting:
                raise EngineError("weights cannot change while completions are being drawn")
            self._take_card()
            if self.asleep:
                self.llm.wake_up(["weights"])
            self.llm.collective_rpc("paravt_reload", args=(iter(weights),))
            if self.asleep:
                self.llm.wake_up(["kv_cache"])
                self.asleep = False
            self.reset_caches()
            self.llm.set_weight_version(str(version))

    def sleep(self) -> None:
        """See :class:`Engine`; :meth:`load` wakes it.

        Raises:
            EngineError: Something is being generated.
        """
        with self._changed:
            if self.asleep or not self.level:
                return
            if self._driving or self._waiting:
                raise EngineError("the engine cannot sleep while completions are being drawn")
            self._take_card()
            self.llm.sleep(self.level)
            self.asleep = True

    def _take_card(self) -> None:
        """Work on the engine's card from here on: a new thread of this process starts on card 0."""
        if self.device.type == "cuda" and self.device.index is not None:
            torch.cuda.set_device(self.device)

    def reset_caches(self) -> None:
        """Forget all keys, values and image features."""
        self.llm.reset_encoder_cache()
        if not self.llm.reset_prefix_cache():
            raise EngineError("the prefix cache is in use and could not be reset")

    def frames(self) -> dict[str, int]:
        """See :class:`Engine`."""
        return self.llm.collective_rpc("paravt_frames")[0]

    def close(self) -> None:
        """Shut vLLM down; the process groups that were there before it stay."""
        client = self.llm.engine_core
        if not self._guest:
            client.shutdown()
            return
        from vllm.distributed import parallel_state

        # Its own way out, which it would also take at the end of the process, ends all groups.
        client._finalizer.detach()
        client.engine_core.model_executor.shutdown()
        client.engine_core.scheduler.shutdown()
        parallel_state.destroy_model_parallel()
        if parallel_state._WORLD is not None:
            parallel_state._WORLD.destroy()
            parallel_state._WORLD = None


def _generated(output: Any) -> Generated:
    """A completion of vLLM's."""
    ids = list(output.token_ids)
    logprobs = [entry[token].logprob for token, entry in zip(ids, output.logprobs, strict=True)]
    return Generated(ids, logprobs, token_versions(output.weight_versions, len(ids)))
