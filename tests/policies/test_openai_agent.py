"""The agent behind a chat server, against a real HTTP server that speaks chat completions."""

import base64
import doctest
import json
import re
import threading
import time
from dataclasses import asdict
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import av
import numpy as np
import pytest
from support.builders import ListTasks, act, make_task, write_manifest
from support.evaluations import Settings
from support.parses import count_parses

from agents.chat.agent import OpenAIAgent
from agents.chat.client import ChatConfig
from agents.config import AgentConfig, Limits
from paravt_env.protocol import render_completion
from paravt_env.protocol.parts import overview_parts, system_text
from paravt_env.protocol.styles import PROMPTS
from train.evaluation.evaluate import evaluate
from train.rollout.play import play
from train.rollout.starts import Start

CALL = render_completion("look there", [(10.0, 12.0), (20.0, 22.0)])
ANSWER = render_completion("it is blue", [], "B")
LIMITS = Limits(max_crops=3, max_crop_seconds=45.0, max_turns=2)


def reply(content="", **message):
    usage = {"prompt_tokens": 100, "completion_tokens": 10}
    message = {"role": "assistant", "content": content, **message}
    return 200, {"choices": [{"index": 0, "message": message}], "usage": usage}, {}


class Server(ThreadingHTTPServer):
    """Answers request n with `answers[n]` (the last one again and again), or by a function."""

    daemon_threads = True

    def __init__(self, answers):
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers, self.bodies, self.keys = answers, [], []
        self.lock, self.running, self.most = threading.Lock(), 0, 0
        self.url = f"http://127.0.0.1:{self.server_port}/v1"
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    def handle_error(self, request, address):
        """A client that gave up is part of the tests."""


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        server = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with server.lock:
            place = len(server.bodies)
            server.bodies.append(body)
            server.keys.append(self.headers.get("Authorization"))
            server.running += 1
            server.most = max(server.most, server.running)
        answers = server.answers
        found = answers(body) if callable(answers) else answers[min(place, len(answers) - 1)]
        status, content, headers = found() if callable(found) else found
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        with server.lock:
            server.running -= 1
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)
        assert self.path == "/v1/chat/completions"

    def log_message(self, *_):
        pass


@pytest.fixture
def serve(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    servers = []

    def start(*answers):
        only = answers[0]
        by_body = len(answers) == 1 and callable(only)
        servers.append(Server(only if by_body else answers))
        return servers[-1]

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def agent_of(server, config=None, limits=LIMITS, pauses=None, key_variable="", **chat):
    waited = [] if pauses is None else pauses
    config = AgentConfig(**(config or {}))
    return OpenAIAgent(server.url, "m", key_variable, config, limits, waited.append, **chat)


def pictures(message):
    return [part["image_url"]["url"] for part in message["content"] if part["type"] == "image_url"]


def words(message):
    content = message["content"]
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "[picture]") for part in content)


def decoded(url):
    head, _, data = url.partition(",")
    codec = "png" if "png" in head else "mjpeg"
    decoder = av.CodecContext.create(codec, "r")
    packet = av.Packet(base64.b64decode(data))
    frames = [*decoder.decode(packet), *decoder.decode(None)]
    return frames[0].to_ndarray(format="rgb24")


@pytest.mark.parametrize("calls", ["tags", "native"])
def test_a_chat_turn_is_parsed_once(serve, make_vector, monkeypatch, calls):
    window = {"start_time": 10, "end_time": 12}
    tool = {"function": {"name": "crop_video", "arguments": json.dumps(window)}}
    thought = f"<think>\nonly in the test of {calls}\n</think>"
    call = f'<tool_call>\n{{"name": "crop_video", "arguments": {json.dumps(window)}}}\n</tool_call>'
    texts = [f"{thought}\n{call}", f"{thought}\n<answer>B</answer>"]
    first = reply(thought, tool_calls=[tool]) if calls == "native" else reply(texts[0])
    server = serve(first, reply("a red ball"), reply(texts[1]))
    agent = agent_of(server, {"prompt_style": "tool_calling"}, calls=calls)
    counts = count_parses(monkeypatch)
    (rollout,) = play(make_vector(1, max_turns=2), agent, [Start("colour", 4)])
    assert ([turn["completion"] for turn in rollout.turns], rollout.executed) == (texts, 1)
    assert [counts[text] for text in texts] == [1, 1]


def test_an_episode_with_parallel_crops_read_by_sub_agents(serve, make_vector):
    server = serve(reply(CALL), reply("a red ball"), reply("a blue ball"), reply(ANSWER))
    agent = agent_of(server, {"temperature": 0.0}, concurrency=1)
    (rollout,) = play(make_vector(1, max_turns=2), agent, [Start("colour", 4)])
    assert (rollout.answer, rollout.correct, rollout.stop_reason) == ("B", 1.0, "answered")
    assert (rollout.calls, rollout.executed, rollout.compliant) == (2, 2, True)
    first, read, _, last = server.bodies
    assert (first["model"], first["temperature"], first["max_tokens"]) == ("m", 0.0, 2048)
    assert [message["role"] for message in first["messages"]] == ["system", "user"]
    assert words(first["messages"][0]) == system_text(PROMPTS["paravt"], 3, 45.0, 2)
    assert len(pictures(first["messages"][1])) == 4
    assert "<3.8 seconds>[picture]<11.3 seconds>[picture]" in words(first["messages"][1])
    assert words(first["messages"][1]).endswith("Which colour?\nA. red\nB. blue\nC. green")
    assert read["max_tokens"] == 512
    assert "from 10.0 to 12.0 seconds" in words(read["messages"][0])
    assert len(pictures(read["messages"][0])) == 2
    assert [message["role"] for message in last["messages"]] == [
        "system", "user", "assistant", "user",
    ]  # fmt: skip
    assert last["messages"][2]["content"] == CALL
    evidence = words(last["messages"][3])
    assert "Crop 1, 10.0-12.0 s: a red ball" in evidence
    assert "Crop 2, 20.0-22.0 s: a blue ball" in evidence
    assert rollout.usage == {
        "frames": 8.0, "prompt_tokens": 400.0, "completion_tokens": 40.0,
        "requests": 4.0, "cost": 0.0,
    }  # fmt: skip


def test_foreign_text_holds_no_special_token_and_windows_are_those_that_ran(
    serve, make_vector, clip
):
    name = "<|im_end|>"
    call = render_completion("look there", [(20.0, 5000.0)])
    server = serve(reply(call), reply(f"red {name}"), reply(ANSWER))
    tasks = ListTasks([make_task(clip, question=f"What is {name}?")])
    agent = agent_of(server, {"temperature": 0.0})
    (rollout,) = play(make_vector(1, max_turns=2, tasks=tasks), agent, [Start("colour", 4)])
    first, read, last = (words(body["messages"][-1]) for body in server.bodies)
    assert name not in json.dumps(server.bodies)
    assert "<\N{ZERO WIDTH SPACE}|im_end|>" in first and "|im_end|>" in last
    assert "from 20.0 to 30.0 seconds" in read and "Crop 1, 20.0-30.0 s: red" in last
    assert rollout.executed == 1


def test_turns_that_the_server_cut_and_their_lengths_are_counted(serve, make_vector):
    status, content, headers = reply(CALL)
    content["choices"][0]["finish_reason"] = "length"
    server = serve((status, content, headers), reply("a"), reply("b"), reply(ANSWER))
    (rollout,) = play(make_vector(1, max_turns=2), agent_of(server), [Start("colour", 4)])
    assert (rollout.cut, rollout.lengths) == (1, (10, 10))


def test_png_frames_arrive_bit_by_bit_and_jpeg_ones_look_alike(serve, make_vector):
    env = make_vector(1)
    frames = env.reset(seed=[0], options={"task_id": "colour", "frame_budget": 4})[0]["frames"][0]
    for kind, most in (("png", 0), ("jpeg", 25)):
        server = serve(reply(ANSWER))
        play(env, agent_of(server, pictures=kind), [Start("colour", 4)])
        urls = pictures(server.bodies[0]["messages"][1])
        assert urls[0].startswith(f"data:image/{kind};base64,")
        for frame, url in zip(frames, urls, strict=False):
            assert np.abs(decoded(url).astype(int) - frame).mean() <= most


def test_crops_as_frames_go_into_the_next_message(serve, make_vector):
    server = serve(reply(CALL), reply(ANSWER))
    (rollout,) = play(make_vector(1), agent_of(server, {"evidence": "frames"}), [Start("colour")])
    assert len(server.bodies) == 2
    last = server.bodies[1]["messages"][-1]
    assert (last["role"], len(pictures(last))) == ("user", 4)
    assert rollout.usage["frames"] == 8.0


def native(*arguments, name="crop_video"):
    return [
        {"id": f"id{i}", "type": "function", "function": {"name": name, "arguments": text}}
        for i, text in enumerate(arguments)
    ]


def test_native_calls_run_in_parallel_and_each_gets_its_own_answer(serve, make_vector):
    calls = native('{"start_time": 10, "end_time": 12}', '{"start_time": 50, "end_time": 60}')
    server = serve(reply(None, tool_calls=calls), reply("a red ball"), reply(ANSWER))
    agent = agent_of(server, {"prompt_style": "tool_calling"}, calls="native")
    (rollout,) = play(make_vector(1), agent, [Start("colour", 4)])
    assert [crop["status"] for crop in rollout.turns[0]["crops"]] == ["ok", "outside"]
    assert rollout.correct == 1.0
    first, read, last = server.bodies
    assert first["tools"][0]["function"]["name"] == "crop_video"
    assert "tools" not in read
    assert "<tools>" not in words(first["messages"][0])
    *_, said, one, two = last["messages"]
    assert said["tool_calls"] == calls
    assert (one["role"], one["tool_call_id"]) == ("tool", "id0")
    assert one["content"] == "Crop 1, 10.0-12.0 s: a red ball"
    assert two["tool_call_id"] == "id1"
    assert two["content"].startswith("call 2: outside: ")


def test_frames_of_native_calls_follow_their_answers(serve, make_vector):
    calls = native('{"start_time": 10, "end_time": 12}')
    server = serve(reply(None, tool_calls=calls), reply(ANSWER))
    config = {"prompt_style": "tool_calling", "evidence": "frames"}
    play(make_vector(1), agent_of(server, config, calls="native"), [Start("colour", 4)])
    *_, tool, user = server.bodies[1]["messages"]
    assert (tool["role"], tool["content"]) == ("tool", "Its frames are in the next message.")
    assert (user["role"], len(pictures(user))) == ("user", 2)


def test_defect_9_a_malformed_native_call_costs_its_neighbour_nothing(serve, make_vector):
    calls = native('{"start_time": ', '{"start_time": 10, "end_time": 12}', '{"start_time": "x"}')
    server = serve(
        reply("<think>hm", tool_calls=[*calls, *native("{}", name="rm")]),
        reply("a ball"),
        reply(ANSWER),
    )
    agent = agent_of(server, {"prompt_style": "tool_calling"}, calls="native")
    (rollout,) = play(make_vector(1), agent, [Start("colour", 4)])
    statuses = [crop["status"] for crop in rollout.turns[0]["crops"]]
    assert statuses == ["malformed", "ok", "malformed", "over_limit"]
    said, *tools = server.bodies[2]["messages"][2:]
    assert said["tool_calls"][0]["function"]["arguments"] == "{}"
    assert [tool["content"].split(":")[0] for tool in tools] == [
        "call 1", "Crop 2, 10.0-12.0 s", "call 3", "1 more",
    ]  # fmt: skip


def test_the_forced_turn_takes_no_call_and_asks_for_the_answer(serve, make_vector):
    calls = native('{"start_time": 10, "end_time": 12}')
    server = serve(reply(None, tool_calls=calls), reply("a ball"), reply(ANSWER))
    config = {"prompt_style": "tool_calling", "answer_tokens": 9}
    agent = agent_of(server, config, calls="native")
    (rollout,) = play(make_vector(1, max_turns=1), agent, [Start("colour", 4)])
    last = server.bodies[-1]
    assert (last["max_tokens"], last["tool_choice"]) == (9, "none")
    assert words(last["messages"][-1]) == PROMPTS["tool_calling"].forced_answer
    assert rollout.stop_reason == "answered"


def test_separate_reasoning_is_the_thought_of_the_turn(serve, make_vector):
    server = serve(reply("<answer>B</answer>", reasoning_content="I see </think> a blue ball"))
    (rollout,) = play(make_vector(1), agent_of(server), [Start("colour", 4)])
    said = "<think>\nI see  a blue ball\n</think>\n<answer>B</answer>"
    assert rollout.turns[0]["completion"] == said
    assert rollout.correct == 1.0
    assert rollout.compliant


def test_a_prefilled_turn_continues_the_forced_prefix(serve, make_vector):
    server = serve(reply(ANSWER.removeprefix("<think>\n")))
    (rollout,) = play(make_vector(1), agent_of(server, prefill=True), [Start("colour", 4)])
    assert rollout.turns[0]["completion"] == ANSWER
    body = server.bodies[0]
    assert body["messages"][-1] == {"role": "assistant", "content": "<think>\n"}
    assert (body["add_generation_prompt"], body["continue_final_message"]) == (False, True)


def test_failures_that_may_pass_are_asked_again_with_growing_pauses(serve, make_vector):
    server = serve(
        (500, {"error": "busy"}, {}),
        (429, {"error": "slow down"}, {"Retry-After": "7"}),
        (200, b"<html>not json", {}),
        (200, {"choices": []}, {}),
        reply(ANSWER),
    )
    waited = []
    agent = agent_of(server, pauses=waited, backoff=1.0, retries=4)
    (rollout,) = play(make_vector(1), agent, [Start("colour", 4)])
    assert (rollout.correct, rollout.error) == (1.0, "")
    assert rollout.usage["requests"] == 5.0
    assert waited[1] == 7.0
    for place, least in ((0, 1.0), (2, 4.0), (3, 8.0)):
        assert least <= waited[place] <= 1.25 * least
    assert (agent.client.total.requests, agent.client.total.failures) == (5, 0)


@pytest.mark.parametrize("asked", ["86400", "inf", formatdate(time.time() + 1e9, usegmt=True)])
def test_an_endless_retry_after_is_not_waited_for(serve, make_vector, asked):
    server = serve((429, {}, {"Retry-After": asked}), reply(ANSWER))
    waited = []
    play(make_vector(1), agent_of(server, pauses=waited), [Start("colour", 4)])
    assert waited == [60.0]


def test_parts_of_text_are_the_turn(serve, make_vector):
    server = serve(
        reply([{"type": "text", "text": part} for part in (CALL[:9], CALL[9:])]), reply(ANSWER)
    )
    (rollout,) = play(
        make_vector(1), agent_of(server, {"evidence": "frames"}), [Start("colour", 4)]
    )
    assert rollout.turns[0]["completion"] == CALL
    assert server.bodies[1]["messages"][2] == {"role": "assistant", "content": CALL}


def test_a_reply_that_a_filter_withheld_is_an_agent_error_and_no_answer(serve, make_vector):
    status, content, headers = reply(None)
    content["choices"][0]["finish_reason"] = "content_filter"
    server = serve((status, content, headers))
    (rollout,) = play(make_vector(1), agent_of(server), [Start("colour", 4)])
    assert (rollout.stop_reason, len(server.bodies)) == ("agent_error", 1)
    assert "after 1 requests: the server's content filter withheld the reply" in rollout.error


def broken_for(word):
    """A server that fails for one question for good."""

    def answer(body):
        if any(word in words(message) for message in body["messages"]):
            return 503, {"error": "overloaded"}, {}
        return reply(ANSWER)

    return answer


def test_a_row_without_a_reply_fails_alone_and_is_counted(serve, make_vector, clip):
    server = serve(broken_for("Which shape?"))
    tasks = ListTasks([make_task(clip), make_task(clip, "bad", question="Which shape?")])
    env = make_vector(2, tasks=tasks)
    report = evaluate(agent_of(server, retries=2), env, tasks, Settings())
    bad, good = report.rows
    assert (good.score, good.error) == (1.0, "")
    assert (bad.score, bad.error_kind, bad.stop_reason) == (0.0, "agent_error", "agent_error")
    assert "no reply from m at http://127.0.0.1" in bad.error
    assert "after 3 requests: HTTP status 503" in bad.error
    assert report.errors == {"agent_error": 1}
    assert report.accuracy().mean == 0.5


def test_a_crop_that_cannot_be_read_fails_its_row(serve, make_vector):
    def answer(body):
        if words(body["messages"][0]).startswith("These frames"):
            return 400, {"error": "too many pictures"}, {}
        return reply(CALL)

    server = serve(answer)
    (rollout,) = play(make_vector(1), agent_of(server), [Start("colour", 4)])
    assert (rollout.stop_reason, rollout.correct) == ("agent_error", 0.0)
    assert "HTTP status 400" in rollout.error
    assert len(rollout.turns) == 1


def test_a_server_that_hangs_is_given_up(serve, make_vector):
    release = threading.Event()

    def hang():
        release.wait(20)
        return reply(ANSWER)

    server = serve(hang, hang)
    agent = agent_of(server, timeout=0.2, retries=1)
    (rollout,) = play(make_vector(1), agent, [Start("colour", 4)])
    release.set()
    assert "after 2 requests: no reply within 0.2 s" in rollout.error


def test_a_server_that_is_not_there_is_an_agent_error(make_vector, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    agent = OpenAIAgent("http://127.0.0.1:9/v1", "m", limits=LIMITS, pause=lambda s: None)
    (rollout,) = play(make_vector(1), agent, [Start("colour", 4)])
    assert rollout.stop_reason == "agent_error"
    assert "after 5 requests: no connection" in rollout.error


@pytest.mark.parametrize(
    ("status", "error", "message"),
    [
        (401, PermissionError, "refuses the key in SECRET"),
        (403, PermissionError, "refuses the key in SECRET"),
        (404, OSError, "knows no model 'm'"),
    ],
)
def test_what_no_retry_can_help_stops_everything(
    serve, make_vector, monkeypatch, status, error, message
):
    monkeypatch.setenv("SECRET", "sesame")
    server = serve((status, {"error": "no"}, {}))
    agent = agent_of(server, key_variable="SECRET")
    with pytest.raises(error, match=message) as caught:
        play(make_vector(1), agent, [Start("colour", 4)])
    assert not isinstance(caught.value, ConnectionError | TimeoutError)
    assert len(server.bodies) == 1
    assert "sesame" not in str(caught.value)


def test_the_key_is_sent_and_never_kept_in_settings(serve, make_vector, monkeypatch):
    monkeypatch.setenv("SECRET", "sesame")
    server = serve(reply(ANSWER))
    agent = agent_of(server, key_variable="SECRET")
    play(make_vector(1), agent, [Start("colour", 4)])
    assert server.keys == ["Bearer sesame"]
    assert "sesame" not in json.dumps(asdict(agent.chat))
    monkeypatch.delenv("SECRET")
    with pytest.raises(ValueError, match="SECRET, which is not set"):
        agent_of(server, key_variable="SECRET")


def test_a_redirect_is_not_followed_with_the_key(serve, make_vector, monkeypatch):
    monkeypatch.setenv("SECRET", "sesame")
    other = serve(reply(ANSWER))
    server = serve((307, {}, {"Location": f"{other.url}/chat/completions"}))
    agent = agent_of(server, key_variable="SECRET", retries=0)
    (rollout,) = play(make_vector(1), agent, [Start("colour", 4)])
    assert "307" in rollout.error
    assert other.bodies == []


def test_no_more_requests_run_at_once_than_allowed(serve, make_vector):
    def slow():
        time.sleep(0.05)
        return reply(ANSWER)

    for concurrency in (1, 3):
        server = serve(slow, slow)
        agent = agent_of(server, concurrency=concurrency)
        play(make_vector(6), agent, [Start("colour", 4)] * 6)
        assert server.most == concurrency
        assert len(server.bodies) == 6


def test_tokens_and_prices_make_the_cost(serve, make_vector):
    server = serve(reply(ANSWER))
    agent = agent_of(server, prompt_price=2.0, completion_price=10.0)
    rollouts = play(make_vector(2), agent, [Start("colour", 4)] * 2)
    assert [one.usage["cost"] for one in rollouts] == pytest.approx([0.0003, 0.0003])
    assert agent.client.total.cost == pytest.approx(0.0006)
    assert agent.client.total.prompt_tokens == 200


def test_an_episode_starts_with_a_clean_bill_and_context(serve, make_vector):
    server = serve(reply(ANSWER))
    agent, env = agent_of(server), make_vector(1)
    for _ in range(2):
        (rollout,) = play(env, agent, [Start("colour", 4)])
        assert rollout.usage["requests"] == 1.0
    assert [len(body["messages"]) for body in server.bodies] == [2, 2]


def test_further_fields_are_sent_and_null_removes_one(serve, make_vector):
    server = serve(reply(ANSWER))
    extra = {"max_tokens": None, "max_completion_tokens": 99, "top_p": 0.5}
    play(make_vector(1), agent_of(server, extra=extra), [Start("colour", 4)])
    body = server.bodies[0]
    assert "max_tokens" not in body
    assert (body["max_completion_tokens"], body["top_p"]) == (99, 0.5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"base_url": "localhost:8000"}, "needs base_url"),
        ({"model": ""}, "needs base_url"),
        ({"calls": "natve"}, "did you mean 'native'"),
        ({"calls": "native", "config": AgentConfig()}, "use the style 'tool_calling'"),
        ({"config": AgentConfig(prompt_style="directt")}, "did you mean 'direct'"),
        ({"timeout": 0}, "timeout = 0"),
        ({"concurrency": 0}, "concurrency must be at least 1"),
    ],
)
def test_settings_that_cannot_work_are_refused_before_any_request(settings, message):
    with pytest.raises(ValueError, match=message):
        OpenAIAgent(**{"base_url": "http://127.0.0.1:9", "model": "m", **settings})


def test_native_calls_have_a_prompt_style_of_their_own_by_default():
    agent = OpenAIAgent("http://127.0.0.1:9", "m", calls="native")
    assert agent.style.name == "tool_calling"
    assert ChatConfig().calls == "tags"


def test_every_prompt_style_can_be_filled_and_asks_for_an_answer(make_env):
    env = make_env()
    for budget in (0, 4):
        observation, _ = env.reset(seed=0, options={"task_id": "colour", "frame_budget": budget})
        for name, style in PROMPTS.items():
            system = system_text(style, 5, 45.0, 3)
            assert name == style.name
            assert "{" not in system.replace('{"', "").replace('"{', "") or "crop_video" in system
            assert style.name.startswith("compact") or "<answer>...</answer>" in system
            assert "Which colour?" in str(overview_parts(style, observation)[-1])


def test_styles_without_tools_name_none_and_styles_with_tools_their_limits():
    texts = {name: system_text(style, 5, 45.0, 3) for name, style in PROMPTS.items()}
    for name in ("reasoning", "direct"):
        assert "tool" not in texts[name]
    for name in ("paravt", "qwen3vl", "longvt", "pyvision"):
        assert '{"type": "function", "function": {"name": "crop_video"' in texts[name]
    for name in ("paravt", "qwen3vl", "tool_calling"):
        assert "45 seconds" in texts[name]
        assert "5" in texts[name].replace("45", "")
    assert "<think>" not in texts["direct"]
    assert "<think>" in texts["reasoning"]
    assert '{"name": <function-name>, "arguments": <args-json-object>}' in texts["qwen3vl"]


def test_an_agent_can_be_asked_without_a_vector_environment(serve, make_env):
    server = serve(reply(ANSWER))
    agent, env = agent_of(server), make_env()
    observation, _ = env.reset(seed=0, options={"task_id": "colour"})
    batch = {
        key: {k: np.array([v]) for k, v in value.items()} if isinstance(value, dict) else [value]
        for key, value in observation.items()
    }
    agent.begin([0])
    (decision,) = agent.act(batch, [0])
    assert decision.action["answer"] == "B"
    assert decision.completion.token_ids == ()
    expected = act(answer="B")
    assert np.array_equal(decision.action["crops"], expected["crops"])
    agent.close()


PAGE = Path(__file__).parents[2] / "docs" / "plug-in-an-agent.md"


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


def test_the_page_on_plugging_in_an_agent_runs(serve, clip, tmp_path, monkeypatch):
    server = serve(reply("I think it is (B)."))
    write_manifest(Path(clip).with_name("my_videos.jsonl"), [make_task(clip), make_task(clip, "b")])
    monkeypatch.chdir(Path(clip).parent)
    agent, template, style = blocks("python")
    assert len(agent.splitlines()) < 40
    names = {"__name__": "page"}
    exec(compile(agent, "my_agent.py", "exec"), names)
    exec(compile(template, "my_api.py", "exec"), names)
    exec(compile(style, "styles.py", "exec"), names)
    names["ask"] = lambda prompt, pictures: "I think it is (B)." if len(pictures) == 4 else "?"
    names["URL"] = server.url
    session = "".join(blocks("pycon"))
    assert session.count(">>>") > 4
    test = doctest.DocTestParser().get_doctest(session, names, PAGE.name, str(PAGE), 0)
    outcome = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test)
    assert (outcome.failed, outcome.attempted) == (0, session.count(">>>"))


def test_the_page_names_every_prompt_style():
    table = PAGE.read_text(encoding="utf-8").split("## Prompts by model family")[1]
    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == list(PROMPTS)


def test_frames_as_video_are_one_video_url_with_their_times(serve, make_vector):
    call = render_completion("look", [(10.0, 12.0), (20.1, 20.2)])
    server = serve(lambda body: reply(call if len(body["messages"]) == 2 else ANSWER))
    env = make_vector(1)
    agent = agent_of(server, {"frames_as": "video"}, pictures="png")
    (rollout,) = play(env, agent, [Start("colour", 5)])
    assert agent.usage(0)["frames"] == 5 + 2 + 1 and not rollout.error
    opening, *readings, last = server.bodies
    kinds = [part["type"] for part in opening["messages"][-1]["content"]]
    assert kinds == ["text", "video_url", "text"]
    assert "seconds>" not in words(opening["messages"][-1])
    told = opening["media_io_kwargs"]["video"]
    assert told["frames_indices"] == [3000, 9000, 15000, 21000, 27000]
    assert (told["fps"], told["num_frames"], told["total_num_frames"]) == (1000.0, -1, 27001)
    assert last["media_io_kwargs"] == opening["media_io_kwargs"]
    assert last["messages"][1] == opening["messages"][1]
    counts = []
    for body in readings:
        (message,) = body["messages"]
        (url,) = [p["video_url"]["url"] for p in message["content"] if p["type"] == "video_url"]
        counts.append(len(body["media_io_kwargs"]["video"]["frames_indices"]))
        assert url.startswith("data:video/jpeg;base64,") and url.count(",") == counts[-1]
    assert counts == [2, 2]  # a single frame is sent twice


def test_several_videos_in_a_request_are_refused_before_any(serve):
    with pytest.raises(ValueError, match=r"times of one video.*set agent\.evidence=subagent"):
        agent_of(serve(reply()), {"frames_as": "video", "evidence": "frames"})
