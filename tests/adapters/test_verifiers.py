"""The real engine of verifiers plays; skipped where it is not installed."""

import asyncio
import json
import math
import os
import sys
import threading
from pathlib import Path

import pytest
from support.builders import SIZE, make_task, write_manifest
from support.chat_servers import Endpoint

from paravt_env.env import LongVideoEnv
from paravt_env.protocol import action_from_completion
from train.adapters.tool_calling import Played, ToolCallingGame, turn_text

pytest.importorskip("verifiers")
import verifiers.v1 as vf
from verifiers.v1.clients import ModelContext
from verifiers.v1.envs.single_agent import SingleAgentEnvConfig
from verifiers.v1.harnesses.null import NullHarnessConfig
from verifiers.v1.runtimes.base import Runtime
from verifiers.v1.utils.loaders import load_environment, load_taskset

from train.adapters.verifiers import LongVideoConfig

ROOT = Path(__file__).parents[2]
SMALL = {"frame_size": list(SIZE), "max_crops": 2, "frames_per_crop": 2, "frame_budget": 3}


@pytest.fixture
def config(tmp_path, clip, monkeypatch):
    """Two questions, one about a video that is not there, found by the published package's id."""
    monkeypatch.syspath_prepend(str(ROOT / "examples" / "verifiers_environment"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    os.link(clip, tmp_path / "clip.mp4")
    broken = tmp_path / "gone.mp4"
    broken.write_bytes(b"no video")
    tasks = [make_task(str(tmp_path / "clip.mp4")), make_task(str(broken), "broken")]
    manifest = write_manifest(tmp_path / "tasks.jsonl", tasks)
    return LongVideoConfig(id="paravt-longvideo", tasks=manifest, settings=SMALL, seed=3)


def test_tasks_are_prompts_with_pictures_and_no_answer(config):
    tasks = list(load_taskset(config))
    assert [task.data.task_id for task in tasks] == ["colour", "broken"]
    (message,) = tasks[0].data.prompt
    urls = [part.image_url.url for part in message.content if part.type == "image_url"]
    assert len(urls) == 3 and all(url.startswith("data:image/jpeg;base64,") for url in urls)
    assert "Which colour?" in tasks[0].data.prompt_text
    assert "crop_video" in tasks[0].data.system_prompt
    assert tasks[1].data.prompt_text == "The video cannot be read."
    said = tasks[0].data.model_dump_json(exclude={"prompt"})
    assert "answer" not in json.loads(said)
    assert tasks[0].data.frame_budget == 3
    assert [t.data.seed for t in load_taskset(config)] == [t.data.seed for t in tasks]


def call(start, end, number=0):
    arguments = json.dumps({"start_time": start, "end_time": end})
    function = {"name": "crop_video", "arguments": arguments}
    return {"id": f"call_{number}", "type": "function", "function": function}


def said(content, calls=(), thought=None):
    message = {"role": "assistant", "content": content, "reasoning_content": thought}
    return message | ({"tool_calls": list(calls)} if calls else {})


def streamed(message):
    """A server's reply with this message, as the engine asks for it: in one chunk and an end."""
    calls = [{**one, "index": i} for i, one in enumerate(message.get("tool_calls", []))]
    delta = {**message, "tool_calls": calls} if calls else message
    head = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "scripted"}
    usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
    chunks = [
        {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]},
        {**head, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "usage": usage},
    ]
    lines = [f"data: {json.dumps(chunk)}\n\n" for chunk in chunks]
    return "".join([*lines, "data: [DONE]\n\n"]).encode(), {"Content-Type": "text/event-stream"}


LOOK = said("", [call(10, 14), call(9, 3, 1)], "a look at the middle")
SAY = said("<answer>B</answer>", thought="it was the blue one")


def run(config, replies, monkeypatch, place=0):
    """One episode of the real engine, tool server and chat program; the model is scripted."""

    async def prepare(self, script, env=None, *, activate=True):
        # as uv would, but with the packages of this environment
        path = f"{self.scripts_dir}/program.py"
        await self.write(path, script.encode() if isinstance(script, str) else script)
        return [sys.executable, path]

    monkeypatch.setattr(Runtime, "prepare_uv_script", prepare)
    monkeypatch.setenv("SCRIPTED_KEY", "none")
    endpoint = Endpoint([streamed(one) for one in replies])
    threading.Thread(target=endpoint.server.serve_forever, daemon=True).start()
    local = vf.AgentConfig(
        harness=NullHarnessConfig(id="null"), runtime=vf.SubprocessConfig(), max_turns=9
    )
    env = load_environment(SingleAgentEnvConfig(taskset=config, agent=local))
    client = vf.EvalClientConfig(base_url=endpoint.url, api_key_var="SCRIPTED_KEY")
    context = ModelContext(client=client, model="scripted", sampling=vf.SamplingConfig())

    async def play():
        async with env.serving():
            return await env.run_episode(list(env.taskset)[place], context)

    try:
        return asyncio.run(play()), endpoint
    finally:
        endpoint.server.shutdown()
        endpoint.server.server_close()


def test_a_rollout_looks_answers_and_earns_the_environments_terms(config, monkeypatch):
    episode, endpoint = run(config, [LOOK, SAY], monkeypatch)
    assert episode.ok, episode.errors + [e for t in episode.traces for e in t.errors]
    (trace,) = episode.traces
    (tool,) = endpoint.bodies[0]["tools"]
    assert tool["function"]["name"] == "crop_video"
    assert set(tool["function"]["parameters"]["required"]) == {"start_time", "end_time"}
    good, bad = [m for m in endpoint.bodies[1]["messages"] if m["role"] == "tool"]
    pictures = [part for part in good["content"] if part["type"] == "image_url"]
    assert len(pictures) == 2 and "10.0-14.0 s" in json.dumps(good["content"])
    assert "reversed" in json.dumps(bad["content"])
    env = LongVideoEnv(config.tasks, **SMALL)
    env.reset(seed=1, options={"task_id": "colour", "frame_budget": 3})
    for one in (LOOK, SAY):
        text = turn_text(one)
        *_, info = env.step(action_from_completion(text, 2))
    env.close()
    expected = {k: v for k, v in info["reward_terms"].items() if k != "total"}
    assert {name: reward.score for name, reward in trace.rewards.items()} == expected
    assert [reward.weight for reward in trace.rewards.values()] == [1.0, 1.0, 1.0]
    assert trace.reward == pytest.approx(info["reward_terms"]["total"])
    assert trace.info["paravt"] == {"stop_reason": "answered", "error": ""}
    saved = json.loads(trace.model_dump_json())
    assert all(math.isfinite(one["score"]) for one in saved["rewards"].values())


def test_calls_beyond_all_turns_get_no_more_pictures(config, monkeypatch):
    config = config.model_copy(update={"settings": {**SMALL, "max_turns": 2, "max_crops": 1}})
    turns = [said("", [call(n, n + 1)]) for n in range(3)]
    _, endpoint = run(config, [*turns, SAY], monkeypatch)
    told = [m for m in endpoint.bodies[-1]["messages"] if m["role"] == "tool"]
    counts = [str(m["content"]).count("image_url'") for m in told]
    assert [bool(count) for count in counts] == [True, True, False]
    assert "final answer" in str(told[2]["content"])


def test_a_video_that_cannot_be_read_is_an_error_and_no_reward(config, monkeypatch):
    episode, _ = run(config, [SAY], monkeypatch, place=1)
    assert not episode.ok
    (trace,) = episode.traces
    assert "is not scored" in str(trace.errors[-1]) and not trace.rewards


def test_a_judge_that_fails_records_nothing(config, monkeypatch):
    failed = Played({}, "judge_error", "no verdict")
    monkeypatch.setattr(ToolCallingGame, "score", lambda *_: [failed])
    episode, _ = run(config, [SAY], monkeypatch)
    (trace,) = episode.traces
    assert not episode.ok and "no verdict" in str(trace.errors[-1]) and not trace.rewards
