"""Requests to chat servers that are slow, broken or hostile, and the client that repeats them."""

import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate
from itertools import islice

import pytest
from support.chat_servers import completion, serving, trickle

from paravt_env.common.http import endpoint as endpoint_module
from paravt_env.common.http.client import ClientSettings, RetryingClient, Usage, chat
from paravt_env.common.http.endpoint import EndpointError, exchange, retried


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")


# The deadline


def test_the_deadline_is_for_the_whole_reply():
    with (
        serving(trickle) as endpoint,
        pytest.raises(EndpointError, match="no reply within") as raised,
    ):
        chat(endpoint.url, {}, timeout=0.3)
    assert raised.value.temporary


def test_the_deadline_is_for_the_headers_too():
    """Ninety lines, each soon after the last, and then a good reply: nobody waits for that."""
    sent, content = [], json.dumps(completion("yes")).encode()

    def headers_trickle(handler):
        handler.send_response(200)
        handler.flush_headers()
        for place in range(90):
            time.sleep(0.05)
            handler.send_header(f"X-{place}", "a")
            handler.flush_headers()
            sent.append(place)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content)

    with (
        serving(lambda body: headers_trickle) as endpoint,
        pytest.raises(EndpointError, match=r"no reply within 0\.3 s") as raised,
    ):
        chat(endpoint.url, {}, timeout=0.3)
    assert raised.value.temporary
    assert len(sent) < 90


def test_the_deadline_is_for_the_handshake_too():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"https://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(EndpointError, match=r"no reply within 0\.2 s"):
            exchange(url, timeout=0.2)


def test_the_deadline_is_for_a_reply_in_pieces_too():
    """Each piece is whole, and soon after the last; there would be one more for ever."""

    def pieces(handler):
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        for _ in range(90):
            handler.wfile.write(b"1\r\n \r\n")
            handler.wfile.flush()
            time.sleep(0.05)

    with (
        serving(lambda body: pieces) as endpoint,
        pytest.raises(EndpointError, match=r"no reply within 0\.3 s"),
    ):
        exchange(endpoint.url, timeout=0.3)


# What a model wrote


@pytest.mark.parametrize(
    ("message", "finish", "text"),
    [
        ({"content": "yes"}, "stop", "yes"),
        ({"content": "ye"}, "content_filter", "ye"),
        (
            {"content": [{"type": "text", "text": "y"}, "e", {"type": "text", "text": "s"}]},
            "",
            "yes",
        ),
        ({"content": [{"type": "refusal", "refusal": "I cannot"}]}, "stop", "I cannot"),
        ({"content": None, "refusal": "I cannot"}, "stop", "I cannot"),
        ({"refusal": "I cannot"}, "content_filter", "I cannot"),
        ({"content": None, "tool_calls": [{}]}, "tool_calls", ""),
        ({"tool_calls": [{}]}, "tool_calls", ""),
        ({"content": None, "reasoning": "hm"}, "length", ""),
        ({"content": "", "refusal": None}, "stop", ""),
    ],
)
def test_what_a_model_wrote_is_read_in_every_form_of_reply(message, finish, text):
    with serving({"choices": [{"message": message, "finish_reason": finish}]}) as endpoint:
        reply = chat(endpoint.url, {})
    assert (reply.content, reply.message) == (text, message)


@pytest.mark.parametrize(
    ("message", "finish", "problem", "temporary"),
    [
        ({"content": None}, "content_filter", "filter withheld the reply", False),
        ({"content": ""}, "content_filter", "filter withheld the reply", False),
        ({"content": 7}, "stop", "neither text nor parts of text: 7", True),
        ({"content": False}, "stop", "neither text nor parts of text: False", True),
        ({"content": {"text": "yes"}}, "stop", "neither text nor parts of text: {'text'", True),
        ({"content": [{"type": "image_url"}]}, "stop", "parts of text: {'type': 'image_url'", True),
        (
            {"content": [{"type": "text", "text": 1}]},
            "stop",
            "neither text nor parts of text",
            True,
        ),
        ({"content": None, "refusal": True}, "stop", "neither text nor parts of text: True", True),
        ({"role": "assistant"}, "stop", "not a chat completion", True),
    ],
)
def test_a_reply_of_another_form_is_no_empty_answer(message, finish, problem, temporary):
    with (
        serving({"choices": [{"message": message, "finish_reason": finish}]}) as endpoint,
        pytest.raises(EndpointError, match=problem) as raised,
    ):
        chat(endpoint.url, {})
    assert raised.value.temporary == temporary


@pytest.mark.parametrize(
    ("asked", "least", "most"),
    [
        ("7", 7, 7),
        ("1.5", 1.5, 1.5),
        ("-3", 0, 0),
        ("nan", 0, 0),
        ("soon", 0, 0),
        ("Sun, 06 Nov 1994 08:49:37 GMT", 0, 0),
        ("Sun, 06 Nov 99999999999 08:49:37 GMT", 0, 0),
        (formatdate(time.time() + 1e6, usegmt=True), 9e5, 1e6),
        (time.asctime(time.gmtime(time.time() + 1e6)), 9e5, 1e6),
    ],
)
def test_a_server_may_ask_to_wait_in_seconds_or_until_a_date(asked, least, most):
    with (
        serving((429, {"Retry-After": asked})) as endpoint,
        pytest.raises(EndpointError, match="429") as raised,
    ):
        chat(endpoint.url, {})
    assert least <= raised.value.retry_after <= most


def test_an_endless_reply_is_cut(monkeypatch):
    monkeypatch.setattr(endpoint_module, "MAX_REPLY_BYTES", 1000)
    with (
        serving("x" * 2000) as endpoint,
        pytest.raises(EndpointError, match="more than 1000 bytes"),
    ):
        chat(endpoint.url, {})


# Other replies


def test_an_exchange_posts_json_or_gets_and_gives_the_bytes():
    with serving(b"as it is") as endpoint:
        assert exchange(endpoint.url + "/a?b=1", {"c": 2}, key="sesame") == b"as it is"
        assert exchange(endpoint.url + "/d") == b"as it is"
    assert endpoint.bodies == [{"c": 2}, None]
    assert [one["path"] for one in endpoint.headers] == ["/v1/a?b=1", "/v1/d"]
    assert endpoint.headers[0]["Authorization"] == "Bearer sesame"
    assert "Authorization" not in endpoint.headers[1]


def test_the_longest_reply_is_the_caller_s_to_say():
    with serving(b"12345") as endpoint:
        assert exchange(endpoint.url, limit=5) == b"12345"
        with pytest.raises(EndpointError, match="more than 4 bytes") as raised:
            exchange(endpoint.url, limit=4)
    assert not raised.value.temporary


def test_a_reply_that_is_cut_is_a_broken_connection_and_no_reply():
    def cut(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", "9")
        handler.end_headers()
        handler.wfile.write(b"{}")

    with (
        serving(lambda body: cut) as endpoint,
        pytest.raises(EndpointError, match=r"connection broke: .*2 bytes read, 7 more") as raised,
    ):
        exchange(endpoint.url)
    assert (raised.value.broken, raised.value.temporary) == (True, True)


def test_no_reply_is_a_broken_connection_and_no_server_is_none():
    with serving(None) as endpoint, pytest.raises(EndpointError, match="broke") as raised:
        exchange(endpoint.url)
    assert (raised.value.broken, raised.value.temporary) == (True, True)
    with pytest.raises(EndpointError, match="no connection") as raised:
        exchange(endpoint.url)
    assert (raised.value.broken, raised.value.temporary) == (False, True)


@pytest.mark.parametrize("url", ["http://[1", "http://a..b/", "http://x:port/", "what"])
def test_an_address_that_none_can_be_is_an_endpoint_error(url):
    with pytest.raises(EndpointError, match="nothing can be sent to") as raised:
        exchange(url)
    assert not raised.value.temporary


def test_a_redirect_is_an_error_status():
    with serving("yes") as other:
        moved = (307, {"Location": other.url})
        with serving(moved) as endpoint, pytest.raises(EndpointError) as raised:
            chat(endpoint.url, {}, key="sesame")
    assert (raised.value.status, raised.value.temporary, other.bodies) == (307, False, [])


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"<html>",
        b"\xff\xfe",
        b"[" * 100_000,
        b"[]",
        b'{"choices": []}',
        b'{"choices": [7]}',
        b'{"choices": [{"message": "yes"}]}',
        b'{"choices": [{"message": {"content": "yes"}}], "usage": [1]}',
        b'{"choices": [{"message": {"content": "yes"}}], "usage": {"prompt_tokens": "many"}}',
        b'{"choices": [{"message": {"content": "yes"}}], "usage": {"prompt_tokens": -5}}',
        b'{"choices": [{"message": {"content": "yes"}}], "usage": {"completion_tokens": 1e999}}',
        b'{"choices": [{"message": {"content": "yes"}}], "usage": {"prompt_tokens": %d}}' % 10**400,
    ],
)
def test_what_is_no_chat_completion_is_asked_for_again(content):
    with (
        serving(content) as endpoint,
        pytest.raises(EndpointError, match="not a chat completion") as raised,
    ):
        chat(endpoint.url, {})
    assert raised.value.temporary


# Repeats


def failing(*errors):
    """An attempt that raises each of `errors` and then gives "yes"."""
    left = list(errors)

    def attempt():
        if left:
            raise left.pop(0)
        return "yes"

    return attempt


def passing(wait=0.0):
    return EndpointError("busy", temporary=True, retry_after=wait)


def test_a_wait_is_the_longer_of_ours_and_the_server_s_and_never_endless():
    waited = []
    attempt = failing(passing(), passing(3.0), passing(float("inf")))
    assert retried(attempt, [1.0, 2.0, 4.0], 9.0, waited.append) == "yes"
    assert waited == [1.0, 3.0, 9.0]


def test_the_last_error_is_the_one_that_is_told():
    waited, last = [], EndpointError("at last", temporary=True)
    with pytest.raises(EndpointError, match="at last"):
        retried(failing(passing(), last), [1.0], 9.0, waited.append)
    assert waited == [1.0]


def test_whoever_asks_may_say_what_is_worth_a_repeat():
    def asked(error, waited):
        return retried(failing(error), [1.0], 9.0, waited.append, again=lambda e: e.broken)

    waited = []
    assert asked(EndpointError("cut", temporary=False, broken=True), waited) == "yes"
    assert waited == [1.0]
    with pytest.raises(EndpointError, match="busy"):
        asked(passing(), waited)
    assert waited == [1.0]


# The client


def client(endpoint, waited=None, **settings):
    pause = (lambda seconds: None) if waited is None else waited.append
    return RetryingClient(endpoint.url, ClientSettings(**{"timeout": 5.0, **settings}), pause)


def number(reply):
    return int(reply.content)


def test_a_reply_that_is_not_what_was_asked_for_is_asked_for_again_and_paid():
    one, both = Usage(), Usage(requests=10)
    with serving("no number", 500, "7") as endpoint:
        asking = client(endpoint, prompt_price=2.0, completion_price=10.0)
        assert asking.ask({"model": "m"}, number, one, both) == 7
    assert endpoint.bodies == [{"model": "m"}] * 3
    cost = pytest.approx(2 * (100 * 2 + 10 * 10) / 1e6)
    assert one == Usage(3, 0, 200, 20, cost)
    assert both == Usage(13, 0, 200, 20, cost)


def test_a_question_without_a_reply_raises_the_last_problem_and_is_counted():
    bill = Usage()
    with (
        serving(500, "what") as endpoint,
        pytest.raises(EndpointError, match=r"invalid literal for int.*'what'"),
    ):
        client(endpoint, retries=2).ask({}, number, bill)
    assert (bill.requests, bill.failures, bill.prompt_tokens) == (3, 1, 200)


def test_what_will_not_get_better_costs_one_request():
    bill = Usage()
    with serving(400) as endpoint, pytest.raises(EndpointError, match="HTTP status 400"):
        client(endpoint).ask({}, number, bill)
    assert (bill.requests, bill.failures, len(endpoint.bodies)) == (1, 1, 1)


def test_an_error_of_ours_is_not_taken_for_the_server_s():
    with serving("7") as endpoint, pytest.raises(ZeroDivisionError):
        client(endpoint).ask({}, lambda reply: 1 // 0)
    assert len(endpoint.bodies) == 1


def test_pauses_double_with_a_random_share_on_top_and_obey_the_server():
    waited = []
    replies = 500, (429, {"Retry-After": "7"}), 500, 500, (503, {"Retry-After": "9999"}), 500
    with serving(*replies) as endpoint, pytest.raises(EndpointError):
        client(endpoint, waited, retries=6, backoff=1.0).ask({}, number)
    assert (waited[1], waited[4]) == (7.0, 60.0)
    for place in (0, 2, 3, 5):
        assert 2**place < waited[place] <= 1.25 * 2**place


def test_a_slow_server_costs_its_deadline_once_an_attempt():
    with (
        serving(trickle) as endpoint,
        pytest.raises(EndpointError, match=r"no reply within 0\.2 s"),
    ):
        client(endpoint, timeout=0.2, retries=2).ask({}, number)
    assert len(endpoint.bodies) == 3


def test_bills_that_many_threads_share_lose_nothing():
    shared = Usage()
    with serving("7") as endpoint, ThreadPoolExecutor(8) as pool:
        asking = client(endpoint)
        bills = [Usage() for _ in range(200)]
        numbers = list(pool.map(lambda bill: asking.ask({}, number, bill, shared), bills))
    assert numbers == [7] * 200
    assert bills == [Usage(1, 0, 100, 10)] * 200
    assert shared == Usage(200, 0, 20_000, 2_000)


# Settings


def test_endless_retries_have_pauses_too():
    settings = ClientSettings(retries=10**9, backoff=1.0)
    assert list(islice(settings.pauses(), 2000))[:8] == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]


@pytest.mark.parametrize("key", ["sesame\n", "ses\tame", "s\u00e9same"])
def test_a_key_that_no_header_can_hold_is_refused_and_not_told(monkeypatch, key):
    monkeypatch.setenv("SECRET", key)
    with pytest.raises(ValueError, match="chat key in the environment variable SECRET") as raised:
        RetryingClient("http://x", ClientSettings(key_variable="SECRET"))
    assert "same" not in str(raised.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"timeout": 0}, "chat timeout = 0"),
        ({"timeout": float("nan")}, "chat timeout must be at least 0"),
        ({"backoff": float("inf")}, "chat backoff must be .* finite"),
        ({"retries": -1}, "chat retries must be at least 0"),
        ({"retries": 1.5}, "whole number"),
        ({"retries": True}, "whole number"),
        ({"prompt_price": -0.1}, "chat prompt_price"),
        ({"completion_price": "2"}, "chat completion_price"),
        ({"extra": ["x"]}, "chat extra must map"),
    ],
)
def test_settings_that_cannot_work_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        ClientSettings(**change)
