"""Places where the grammar of a turn asked for a tag and something else was written."""

import pytest

from paravt_env.protocol import parse, render_completion
from paravt_env.protocol.due import due_places

CALL = '<tool_call>{"name": "crop_video", "arguments": {"start": 1, "end": 2}}</tool_call>'
THOUGHT = "<think>\nlook\n</think>\n"


@pytest.mark.parametrize(
    "text",
    [
        render_completion("look 1; 2\nand again", [(1, 2), (3, 4)]),
        render_completion("it is red star", answer="star"),
        THOUGHT + CALL + CALL + "\n",
        "<think>a</think><think>b</think><answer>B</answer>",
    ],
)
def test_a_turn_in_its_form_misses_no_tag(text):
    assert due_places(parse(text)) == ()


@pytest.mark.parametrize(
    ("text", "places"),
    [
        ("look 1\n" + CALL, {0: "look 1"}),  # a thought should have opened
        (CALL, {0: "<tool_"}),
        ("it is red\nstar", {0: "it is ", 10: "star", 14: ""}),  # and where it answers
        ("star", {0: "star", 4: ""}),
        (" " + THOUGHT + CALL, {}),
        ("so " + THOUGHT + CALL, {0: "so <th"}),
        ("<think>\nit is red\nstar", {18: "star", 22: ""}),  # a thought should have closed
        ("<think>\nit is red", {17: ""}),
        ("<think>\n", {8: ""}),
        ("<think>\nlook\n" + CALL, {13: "<tool_", 13 + len(CALL): ""}),
        ("<think>\nlook\n<answer>B</answer>", {13: "<answer>"[:6], 31: ""}),
        (THOUGHT + "star", {22: "star", 26: ""}),  # an answer should have opened
        (THOUGHT + "\n", {23: ""}),  # the turn stopped early
        (THOUGHT + "<answer>star", {34: ""}),  # an answer should have closed
        (THOUGHT + "<answer>star</think>", {34: "</thin", 42: ""}),
        (THOUGHT + '<tool_call>{"name', {39: ""}),
        (THOUGHT + CALL + " and", {}),
        ("", {0: ""}),
        (" \n", {2: ""}),
    ],
)
def test_a_missing_tag_has_the_place_where_it_was_due(text, places):
    found = due_places(parse(text))
    assert {place: text[place : place + 6] for place in found} == places
    assert list(found) == sorted(found)


def test_no_word_of_a_thought_that_closes_is_such_a_place():
    text = "<think>\n" + "so\nit is\n" * 50 + "</think> B"
    end = text.index("</think>")
    assert all(place > end for place in due_places(parse(text)))
