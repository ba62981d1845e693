"""Engines without vLLM: its own as `agents/vllm/local.py` sees it, and one for an agent."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from agents.base import AgentStats
from agents.model.vlm import VisionLanguageModel
from agents.vllm.engine import Generated, Prompt
from paravt_env.protocol import render_completion

CALL = render_completion("Look.", [(2.0, 12.0)], "").removeprefix("<think>\n")
VLM = SimpleNamespace(tokenizer=SimpleNamespace(eos_token_id=2))


def prompts(*numbers: int) -> list[Prompt]:
    """One-token contexts that tell themselves apart."""
    return [Prompt(SimpleNamespace(ids=[n], images=[]), 1, 4, 1.0, n) for n in numbers]


class FakeLLM:
    """Finishes one request a step, the newest first; draws the context's own token."""

    def __init__(self) -> None:
        self.held: dict[str, int] = {}
        self.most, self.refused = 0, -1

    def set_weight_version(self, version: str) -> None:
        self.version = int(version)

    def collective_rpc(self, method: str) -> list[dict[str, int]]:
        return [{"encoded": 0, "held": 0}]

    def add_request(self, name: str, ids: list[int], sampling: object) -> None:
        if ids[0] == self.refused:
            raise ValueError("too long")
        self.held[name] = ids[0]
        self.most = max(self.most, len(self.held))

    def abort_request(self, names: list[str]) -> None:
        for name in names:
            self.held.pop(name, None)

    def step(self) -> list[SimpleNamespace]:
        name, token = self.held.popitem()
        span = SimpleNamespace(start=0, end=1, version=self.version)
        drawn = SimpleNamespace(
            token_ids=[token],
            logprobs=[{token: SimpleNamespace(logprob=-0.5)}],
            weight_versions=[span],
        )
        return [SimpleNamespace(finished=True, request_id=name, outputs=[drawn])]


def install(monkeypatch: pytest.MonkeyPatch, fake: Any) -> Any:
    """Let `InProcessEngine` start `fake`; the arguments that it gives are `fake.arguments`."""

    def module(name: str, **members: object) -> None:
        made = ModuleType(name)
        vars(made).update(members)
        monkeypatch.setitem(sys.modules, name, made)

    def start(arguments: dict[str, object]) -> Any:
        fake.arguments = arguments
        return fake

    module("vllm", EngineArgs=dict, SamplingParams=dict)
    module("vllm.v1")
    module("vllm.v1.engine")
    module("vllm.v1.engine.llm_engine", LLMEngine=SimpleNamespace(from_engine_args=start))
    module("vllm.inputs", mm_input=None, tokens_input=lambda ids: ids)
    module("vllm.multimodal")
    module("vllm.multimodal.inputs", PlaceholderRange=None)
    module("vllm.sampling_params", RequestOutputKind=SimpleNamespace(FINAL_ONLY=0))
    return fake


class FakeEngine:
    """Calls in every turn and reads a crop in two tokens.

    Attributes:
        asked: Kind, tokens and limit of each prompt.
    """

    def __init__(self, vlm: VisionLanguageModel) -> None:
        self.stats, self.asked = AgentStats(), []
        self.call = vlm.tokenizer(CALL, add_special_tokens=False)["input_ids"]

    def frames(self) -> dict[str, int]:
        return {"encoded": 0, "held": 0}

    def generate(self, prompts):
        results = []
        for p in prompts:
            self.asked.append((p.context.kind, len(p.context.ids), p.limit))
            ids = (self.call if p.context.kind == "main" else [5, 6])[: p.limit]
            results.append([Generated(ids, [0.0] * len(ids), [0] * len(ids))] * p.count)
        return results

    def close(self) -> None:
        pass
