"""Solvers see options in every place, and read replies strictly."""

import json

import pytest
from support.builders import make_clip
from support.chat_servers import serving

from agents.chat.client import ChatClient, ChatConfig
from paravt_env.video.store.store import FrameStore
from train.config.reason import CheckConfig
from train.datagen.captions import Caption
from train.datagen.clips import Clip
from train.datagen.questions import Row
from train.datagen.solvers import (
    BLIND,
    SOLVE,
    UNKNOWN,
    blind_call,
    evidence_times,
    read_answer,
    shuffled,
    solve_call,
)
from train.datagen.videos import Film

FILM = Film("a.mp4", "/a.mp4", "0" * 32, "train", 100.0, (64, 128))
ROW = Row("a.mp4:plot-0", FILM, "plot", "Who?", "So.", "Ada", ("Bob", "Eve", "Max"), (1, 4),
          ((0.0, 10.0), (30.0, 40.0)), "key")  # fmt: skip


def test_as_many_tries_as_options_show_the_answer_at_each_place_once():
    orders = [shuffled(ROW, 0, attempt) for attempt in range(4)]
    assert sorted(order.index("Ada") for order in orders) == [0, 1, 2, 3]
    assert all(sorted(order) == ["Ada", "Bob", "Eve", "Max"] for order in orders)
    assert orders == [shuffled(ROW, 0, attempt) for attempt in range(4)]
    assert orders[0] != shuffled(ROW, 0, 4) or orders[1] != shuffled(ROW, 0, 5)


def test_a_blind_request_holds_question_and_options_alone():
    call = blind_call(ROW, ("Bob", "Ada"), 0, CheckConfig())
    system, user = call.messages()
    assert system["content"] == BLIND
    (part,) = user["content"]
    assert json.loads(part["text"]) == {"question": "Who?", "options": {"A": "Bob", "B": "Ada"}}
    assert (call.step, call.film, call.about) == ("blind", "a.mp4", "plot-0")


def test_a_solver_of_captions_sees_them_and_one_of_frames_the_evidence(tmp_path):
    path = make_clip(tmp_path)
    film = Film("a.mp4", path, "0" * 32, "train", 30.0, (64, 128))
    short = Row("a.mp4:plot-0", film, "plot", "Who?", "So.", "Ada", ("Bob",), (1,),
                ((10.0, 14.0),), "key")  # fmt: skip
    captions = [Caption(Clip(1, 10.0, 14.0), "a man", "k")]
    store = FrameStore()
    with serving("x") as endpoint:
        client = ChatClient(ChatConfig(endpoint.url, "m"))
        seen = {}
        for see in ("captions", "frames"):
            config = CheckConfig(solvers_see=see, solver_frames=2)
            call = solve_call(short, short.options, 0, captions, config, client, store, 64)
            system, user = call.messages()
            assert system["content"] == SOLVE[see]
            seen[see] = user["content"]
    store.close()
    assert json.loads(seen["captions"][0]["text"])["captions"][0]["caption"] == "a man"
    kinds = [part["type"] for part in seen["frames"]]
    assert kinds == ["text", "image_url", "text", "image_url", "text"]
    assert [seen["frames"][i]["text"] for i in (0, 2)] == ["11.0 s", "13.0 s"]


@pytest.mark.parametrize(
    ("most", "times"),
    [(2, [5.0, 35.0]), (4, [2.5, 7.5, 32.5, 37.5]), (3, [3.333, 30.0, 36.667])],
)
def test_frames_are_spread_over_the_spans_of_the_evidence(most, times):
    assert evidence_times(ROW, most).tolist() == pytest.approx(times, abs=1e-3)


def test_a_letter_of_the_options_is_an_answer_and_nothing_else_is():
    options = ("Bob", "Ada")
    assert read_answer('{"reasoning": "", "answer": "B"}', options) == "Ada"
    assert read_answer('<think>A?</think>{"answer": " a. "}', options) == "Bob"
    assert read_answer('{"answer": "?"}', options) == UNKNOWN
    for text in ("B", '{"answer": "C"}', '{"answer": "AB"}', '{"answer": ""}', '{"answer": 1}',
                 '{"answer": ["B"]}', '{"answer": "A", "answer": "B"}', "{}"):  # fmt: skip
        with pytest.raises(ValueError):
            read_answer(text, options)
