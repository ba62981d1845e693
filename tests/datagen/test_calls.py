"""Calls are asked once, kept as they were answered, and never beyond the budget."""

import json

import pytest
from support.chat_servers import completion, serving

from agents.chat.client import ChatClient, ChatConfig
from train.common.errors import ConfigError
from train.config.reason import ReasonConfig
from train.datagen.calls import Call, Calls
from train.datagen.refusal import BudgetSpent, Rejected


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")


def call(text="?", tokens=10, step="solve"):
    messages = [{"role": "user", "content": text}]
    return Call(step, "a.mp4", "row", {"messages": messages}, lambda: messages, tokens, {})


def client(endpoint, **changes):
    return ChatClient(ChatConfig(endpoint.url, "m", **{"backoff": 0.0, "retries": 0, **changes}))


def word(text):
    if not text.isalpha():
        raise ValueError(f"no word: {text}")
    return text.upper()


def test_a_call_is_asked_once_and_read_from_the_file_after(tmp_path):
    path = tmp_path / "calls.jsonl"
    with serving("first", "second") as endpoint:
        calls = Calls(path)
        answer, key = calls.ask(client(endpoint), call(), word)
        assert (answer, len(key)) == ("FIRST", 32)
        assert calls.ask(client(endpoint), call(), word) == ("FIRST", key)
        assert calls.ask(client(endpoint), call("!"), word)[0] == "SECOND"
        calls.close()
        again = Calls(path)
        assert again.ask(client(endpoint), call(), str.lower) == ("first", key), "kept as written"
        assert len(endpoint.bodies) == 2 and again.known == {"a.mp4"}
        assert (again.total.requests, again.total.prompt_tokens) == (2, 200)
        again.close()


def test_what_makes_it_another_call(tmp_path):
    with serving("x") as endpoint:
        plain = client(endpoint)
        keys = {
            one.key(server)
            for one, server in (
                (call(), plain),
                (call("other"), plain),
                (call(tokens=11), plain),
                (call(), client(endpoint, extra={"top_p": 0.5})),
                (call(), ChatClient(ChatConfig(endpoint.url, "n"))),
            )
        }
        assert len(keys) == 5
        moved = ChatClient(ChatConfig("http://elsewhere/v1", "m", retries=9))
        assert call().key(moved) == call().key(plain) == call(step="blind").key(plain)


def test_the_budget_counts_what_earlier_runs_spent(tmp_path):
    path = tmp_path / "calls.jsonl"
    with serving("x") as endpoint:  # 100 tokens sent, 10 sampled each
        calls = Calls(path, max_tokens=220)
        for text in "abc"[:2]:
            calls.ask(client(endpoint), call(text), word)
        assert not calls.over
        with pytest.raises(BudgetSpent):
            calls.ask(client(endpoint), call("c"), word)
        assert calls.over and calls.ask(client(endpoint), call("a"), word)[0] == "X"
        calls.close()
        dear = {"prompt_price": 10_000.0}  # a request costs 1
        calls = Calls(path, max_cost=1.5)
        for text in "cd":
            calls.ask(client(endpoint, **dear), call(text), word)
        with pytest.raises(BudgetSpent):
            calls.ask(client(endpoint, **dear), call("e"), word)
        assert calls.total.cost == pytest.approx(2.0) and len(endpoint.bodies) == 4
        calls.close()


def test_a_budget_needs_a_server_that_counts(tmp_path):
    with serving(completion("x", usage=None)) as endpoint:
        calls = Calls(tmp_path / "calls.jsonl", max_cost=1.0)
        assert calls.ask(client(endpoint), call("free"), word)[0] == "X", "it has no price"
        with pytest.raises(ConfigError, match="does not say how many tokens"):
            calls.ask(client(endpoint, prompt_price=1.0), call("dear"), word)
        calls.close()
        calls = Calls(tmp_path / "calls.jsonl", max_tokens=1)
        with pytest.raises(ConfigError, match="set max_cost and max_tokens to 0"):
            calls.ask(client(endpoint), call("counted"), word)
        calls.close()
        assert Calls(tmp_path / "calls.jsonl").total.requests == 3, "and it is counted all the same"
    with pytest.raises(ValueError, match="needs a server with a prompt_price"):
        ReasonConfig(max_cost=1.0)
    paid = ChatConfig("http://x/v1", "m", completion_price=1.0)
    assert ReasonConfig(max_cost=1.0, solvers=(paid,)).max_cost == 1.0


def test_a_failure_is_kept_with_what_it_cost(tmp_path):
    path = tmp_path / "calls.jsonl"
    with serving("12", "34", 400, 500, "fine") as endpoint:
        calls = Calls(path)
        with pytest.raises(Rejected, match="no word: 34") as nonsense:
            calls.ask(client(endpoint, retries=1), call("a"), word)
        with pytest.raises(Rejected, match="400") as refused:
            calls.ask(client(endpoint), call("b"), word)
        with pytest.raises(Rejected, match="500") as silent:
            calls.ask(client(endpoint), call("c"), word)
        reasons = [one.value.reason for one in (nonsense, refused, silent)]
        assert reasons == ["nonsense", "refused", "no_reply"]
        assert calls.total.completion_tokens == 20 and calls.total.failures == 3
        with pytest.raises(Rejected):
            calls.ask(client(endpoint), call("a"), word)
        assert calls.ask(client(endpoint), call("c"), word)[0] == "FINE", "no reply is asked again"
        calls.close()
        assert json.loads(path.read_text().splitlines()[0])["reply"] == "34"
        calls = Calls(path, ask_again=True)
        assert calls.ask(client(endpoint), call("a"), word)[0] == "FINE"
        assert calls.ask(client(endpoint), call("c"), word)[0] == "FINE"
        assert len(endpoint.bodies) == 6
        calls.close()


def test_a_reply_that_no_longer_serves_is_nonsense_not_a_crash(tmp_path):
    with serving("fine") as endpoint:
        calls = Calls(tmp_path / "calls.jsonl")
        calls.ask(client(endpoint), call(), word)
        with pytest.raises(Rejected, match="invalid literal") as error:
            calls.ask(client(endpoint), call(), int)
        assert error.value.reason == "nonsense"
        calls.close()


def test_a_torn_last_line_is_cut_off_and_another_one_is_an_error(tmp_path):
    path = tmp_path / "calls.jsonl"
    with serving("x") as endpoint:
        calls = Calls(path)
        calls.ask(client(endpoint), call(), word)
        calls.close()
        whole = path.read_bytes()
        path.write_bytes(whole + b'{"key": "ab')
        calls = Calls(path)
        calls.close()
        assert path.read_bytes() == whole
        for bad in (b"torn\n", b"[1]\n", b'{"key": "x"}\n', whole.replace(b'"cost"', b'"costs"')):
            path.write_bytes(whole + bad)
            with pytest.raises(ConfigError, match="line 2: not a call of ours"):
                Calls(path)


def test_one_process_at_a_time(tmp_path):
    calls = Calls(tmp_path / "calls.jsonl")
    with pytest.raises(ConfigError, match="another process is making a set"):
        Calls(tmp_path / "calls.jsonl")
    calls.close()
