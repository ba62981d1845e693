"""The chat agent against a real vLLM server on loopback that serves ParaVT-Mini."""

from __future__ import annotations

import os
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from builders import ListTasks, make_task
from helpers import settings

from agents.base import AgentConfig, Limits
from agents.openai_agent import OpenAIAgent
from agents.transformers_agent import TransformersAgent
from agents.vllm_engine import prepare_environment
from agents.vllm_server import free_port, server_command
from train.rollout import Start, play

pytest.importorskip("vllm", reason="needs the vllm extra: make test-engines")

TEMPLATE = """{%- for message in messages -%}
<|im_start|>{{ message.role }}
{% if message.content is string -%}
{{ message.content }}
{%- else -%}
{%- for part in message.content -%}
{%- if part.type == 'text' -%}
{{ part.text }}
{%- else -%}
<|vision_start|><|image_pad|><|vision_end|>
{%- endif -%}
{%- endfor -%}
{%- endif -%}
<|im_end|>
{% endfor -%}
{%- if add_generation_prompt -%}
<|im_start|>assistant
{% endif -%}"""
"""ChatML with pictures; ParaVT-Mini's own code needs none."""


@pytest.fixture(scope="module")
def config() -> AgentConfig:
    """The shipped policy, greedy."""
    small = settings(Path("paravt_mini"), temperature=0.0, max_new_tokens=64, subagent_tokens=12)
    return replace(small, vllm=replace(small.vllm, max_model_len=2048))


@pytest.fixture(scope="module")
def url(config: AgentConfig, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of the server."""
    folder, port = tmp_path_factory.mktemp("server"), free_port()
    (folder / "template.jinja").write_text(TEMPLATE)
    command = server_command(config, port)
    command += ["--chat-template", str(folder / "template.jinja"), "--served-model-name", "mini"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, env={**os.environ, **prepare_environment()}
        )
    try:
        until = time.monotonic() + 300
        while True:
            assert process.poll() is None, (folder / "log").read_text()[-3000:]
            assert time.monotonic() < until, "the server did not start"
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
                break
            except OSError:
                time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait(30)


def test_a_chat_server_says_what_the_policy_says_here(
    url: str, config: AgentConfig, make_vector, clip: str
) -> None:
    """The same weights, frames and words: the same greedy turns, readings and answers."""
    starts = [Start("colour", budget, 1) for budget in (2, 4)]
    limits = Limits(3, 45.0, 3)

    def env():
        return make_vector(2, tasks=ListTasks([make_task(clip)]), frame_size=(64, 64))

    chat = OpenAIAgent(url, "mini", config=config, limits=limits, prefill=True, pictures="png")
    here = TransformersAgent.load(config, limits)
    try:
        over_http, expected = play(env(), chat, starts), play(env(), here, starts)
    finally:
        chat.close()
    assert [one.error for one in over_http] == ["", ""]
    for one, other in zip(over_http, expected, strict=True):
        said = [turn["completion"].strip() for turn in one.turns]
        assert said == [turn["completion"].strip() for turn in other.turns]
        assert one.answer == other.answer
    assert chat.usage(0)["requests"] >= 1
    assert chat.usage(0)["frames"] >= 2
    assert chat.usage(0)["completion_tokens"] > 0
