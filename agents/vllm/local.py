"""vLLM in this process: the same process can train.

One of the two engines behind `agents/vllm/agent.py`; lanes of rollouts share its batch
(`agents/vllm/batch.py`). Where torchrun started several processes, each has an engine of its own.
While the learner updates, the engine sleeps; what wakes it is new weights. Tests: `pytest
tests/workers/test_colocated.py`, and `make test-engines`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist

from agents.base import image_key
from agents.config import AgentConfig
from agents.model.vlm import VisionLanguageModel
from agents.text.context import stop_ids
from agents.vllm.arguments import check_card, engine_arguments, prepare_environment
from agents.vllm.batch import SharedBatch
from agents.vllm.engine import (
    INITIAL,
    EngineError,
    Generated,
    Prompt,
    image_items,
    placeholders,
    token_versions,
)


class InProcessEngine(SharedBatch):
    """vLLM in this process: the same process can train; its callers share one batch.

    Several processes start their engines together, since each start makes process groups. That is
    all that the engines share: each has the whole policy, on the card `cuda:LOCAL_RANK`.

    Args:
        config: The policy's checkpoint and the engine's settings.
        vlm: Its tokenizer and image geometry.

    Raises:
        EngineError: `agent.device` is a card that vLLM would not take.
    """

    def __init__(self, config: AgentConfig, vlm: VisionLanguageModel) -> None:
        check_card(config.device)
        super().__init__(config.vllm.max_requests)
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
        self.vlm = vlm
        self.stop_ids = stop_ids(vlm)
        self.frames()

    def _ready(self) -> None:
        if self.asleep:
            raise EngineError(
                "the engine sleeps while the learner updates: it draws again once it has been "
                "given the new weights (weights_changed)"
            )

    def _take_over(self) -> None:
        self._take_card()

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
            **prompt.sampling(self.stop_ids), output_kind=RequestOutputKind.FINAL_ONLY
        )
        self.llm.add_request(name, given, sampling)

    def _step(self) -> list[tuple[str, list[Generated]]]:
        finished = [output for output in self.llm.step() if output.finished]
        return [(one.request_id, [_generated(drawn) for drawn in one.outputs]) for one in finished]

    def _abort(self, names: list[str]) -> None:
        self.llm.abort_request(names)

    def load(self, weights: Iterable[tuple[str, torch.Tensor]], version: int) -> None:
        """Replace the weights, forget what the old ones computed, stamp what comes with `version`.

        An engine that sleeps wakes: first the memory of its weights, so that the new ones find
        room, and that of keys and values when they are loaded.

        Raises:
            EngineError: Something is being generated: its tokens would mix two versions.
        """
        with self._idle("weights cannot change while completions are being drawn"):
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
        if not self.level:
            return
        with self._idle("the engine cannot sleep while completions are being drawn"):
            if not self.asleep:
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
