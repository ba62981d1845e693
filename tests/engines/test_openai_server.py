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
from support.builders import ListTasks, make_task
from support.engines import settings

from agents.chat.agent import OpenAIAgent
from agents.config import AgentConfig, Limits
from agents.model.agent import TransformersAgent
from agents.text.conversation import Sampled
from agents.vllm.arguments import prepare_environment
from agents.vllm.process import free_port, server_command
from paravt_env.protocol import render_completion
from train.rollout.play import play
from train.rollout.starts import Start

pytest.importorskip("vllm", reason="needs the vllm extra: make test-engines")

TEMPLATE = """{%- for message in messages -%}
<|im_start|>{{ 'user' if message.role == 'tool' else message.role }}
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
{%- for call in message.tool_calls or [] %}
<tool_call>
{{ {'name': call.function.name, 'arguments': call.function.arguments} | tojson }}
</tool_call>
{%- endfor -%}
<|im_end|>
{% endfor -%}
{%- if add_generation_prompt -%}
<|im_start|>assistant
{% endif -%}"""
"""ChatML with pictures and calls; ParaVT-Mini's own code needs none."""
FORCED = render_completion("Look.", [(2.0, 4.0), (8.0, 10.0)])
PLAN = "<think>\nlook 1 red LEFT 10 12; 2 blue RIGHT 20 24"
"""The beginning of a thought after which ParaVT-Mini calls."""
LIMITS = Limits(3, 45.0, 3)


class CallsOverHTTP(OpenAIAgent):
    """Says two calls in its first turn, whatever the server replied."""

    def _decide(self, row, reply):
        if self._rows[row].action is None:
            reply = reply._replace(content=FORCED.removeprefix(self.config.forced_prefix))
        return super()._decide(row, reply)


class CallsHere(TransformersAgent):
    """The same, and asks the policy from its second turn on."""

    def draw(self, turns):
        if self._rows[turns[0].row].action is not None:
            return super().draw(turns)
        text = FORCED.removeprefix(self.config.forced_prefix)
        ids = self.vlm.tokenizer(text, add_special_tokens=False)["input_ids"]
        return [Sampled(ids, [0.0] * len(ids)) for _ in turns]


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
    command += ["--enable-auto-tool-choice", "--tool-call-parser", "hermes"]
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


def compare(url, config, make_vector, clip, over_http, here, **chat):
    """One task played over HTTP and here: both agents, then the rollouts of each."""
    starts = [Start("colour", budget, 1) for budget in (2, 4)]

    def env():
        return make_vector(2, tasks=ListTasks([make_task(clip)]), frame_size=(64, 64))

    agent = over_http(
        url, "mini", config=config, limits=LIMITS, prefill=True, pictures="png", **chat
    )
    own = here.load(replace(config, engine="transformers"), LIMITS)
    try:
        played, expected = play(env(), agent, starts), play(env(), own, starts)
    finally:
        agent.close()
    assert [one.error for one in played] == ["", ""]
    return agent, own, played, expected


@pytest.mark.parametrize(
    ("over_http", "here", "calls"),
    [(OpenAIAgent, TransformersAgent, 0), (CallsOverHTTP, CallsHere, 2)],
    ids=["as it is", "with two calls"],
)
def test_a_chat_server_says_what_the_policy_says_here(
    url: str, config: AgentConfig, make_vector, clip: str, over_http, here, calls: int
) -> None:
    """The same weights, frames and words: the same greedy turns, readings and answers."""
    agent, own, played, expected = compare(url, config, make_vector, clip, over_http, here)
    for row, (one, other) in enumerate(zip(played, expected, strict=True)):
        said = [turn["completion"].strip() for turn in one.turns]
        assert said == [turn["completion"].strip() for turn in other.turns]
        assert (one.answer, one.executed) == (other.answer, other.executed)
        assert one.executed >= calls
        assert len(one.turns) > (calls > 0)
        assert one.usage["requests"] == len(one.turns) + one.executed
        assert one.usage["frames"] == other.usage["frames"] >= 2
        assert one.usage["completion_tokens"] > 0
        if calls:
            readings = [t for t in other.trajectories if t.kind == "subagent"][:calls]
            texts = [
                own.vlm.tokenizer.decode(t.branch_ids, skip_special_tokens=True).strip()
                for t in readings
            ]
            evidence = agent._rows[row].messages[2]["content"]
            assert evidence.startswith("".join(f"{i} {t}\n" for i, t in enumerate(texts, 1)))


def test_a_server_reads_the_calls_of_the_policy_and_takes_the_evidence_back(
    url: str, config: AgentConfig, make_vector, clip: str
) -> None:
    """vLLM's parser makes native calls of the tags that the policy writes; here they are text."""
    config = replace(config, forced_prefix=PLAN, max_new_tokens=96)
    agent, _, played, expected = compare(
        url, config, make_vector, clip, OpenAIAgent, TransformersAgent, calls="native"
    )
    one, other = played[0], expected[0]
    windows = [crop["window"] for crop in one.turns[0]["crops"]]
    assert len(windows) == 2, "the policy wrote no two calls after this thought: choose another"
    assert windows == [crop["window"] for crop in other.turns[0]["crops"]]
    assert one.executed >= 2
    assert len(one.turns) > 1
    _, said, *evidence = agent._rows[0].messages
    identities = [call["id"] for call in said["tool_calls"]]
    assert len({*identities}) == 2
    assert [message["role"] for message in evidence[:2]] == ["tool", "tool"]
    assert [message["tool_call_id"] for message in evidence[:2]] == identities
    assert [message["content"][:2] for message in evidence[:2]] == ["1 ", "2 "]
