"""Answers without their tag: read where an evaluation asks for it, counted, never paid as form."""

import pytest

from paravt_env.protocol import parse
from paravt_env.protocol.untagged import untagged_answer
from paravt_env.rewards import FormatAnchor, Transcript, Turn
from paravt_env.task import Task
from paravt_env.wrappers import CompletionAction

CALL = '<tool_call>{"name": "crop_video", "arguments": {"start": 1, "end": 2}}</tool_call>'
RAW = [
    ("A", "A"),
    ("The answer is A.", "The answer is A."),
    ("\\boxed{A}", "\\boxed{A}"),
    ("<answer>A", "<answer>A"),
    ("<think>I look at it.</think>\nA", "A"),
    ("<think>I look at it.</think>A<|im_end|>", "A"),
    ("<think>\nThe sky is blue.\nA", "A"),
    ("<think>\nA", "A"),
]


@pytest.mark.parametrize(("text", "said"), RAW)
def test_an_untagged_answer_is_read_where_it_is_asked_for(make_env, text, said):
    for asked in (False, True):
        env = CompletionAction(make_env(untagged_answers=asked))
        env.reset(seed=0, options={"task_id": "shape"})
        _, _, terminated, _, info = env.step(text)
        if not asked:  # the forced turn comes, as ever
            assert not terminated
            info = env.step(text)[4]
        assert info["stop_reason"] == ("answered" if asked else "unanswered")
        assert info["correct"] == info["untagged"] == asked
        assert info["answer"] == (said.removeprefix("<answer>") if asked else "")
        assert not info["compliant"]


def test_a_tagged_answer_is_not_untagged_and_a_call_is_no_answer(make_env):
    env = CompletionAction(make_env(untagged_answers=True))
    env.reset(seed=0, options={"task_id": "shape"})
    assert not env.step(f"<think>I look at it.</think>A {CALL}")[2]
    info = env.step("<think>I look at it.</think><answer>A</answer> B")[4]
    assert info["answer"] == "A" and info["untagged"] is False


def test_in_the_forced_turn_the_text_beside_a_refused_call_answers(make_env):
    env = CompletionAction(make_env(untagged_answers=True, max_turns=0))
    env.reset(seed=0, options={"task_id": "shape"})
    assert env.step(f"A {CALL}")[4]["answer"] == "A"


@pytest.mark.parametrize("text", ["", " ", "<think></think>", "<|im_end|>", "<think>\n", CALL])
def test_nothing_is_no_answer(text):
    assert untagged_answer(parse(text)) == ""


def test_an_untagged_answer_has_no_form():
    task = Task("m", "/v.mp4", "Which?", "mcq", ("red", "blue"), "B")
    parsed = parse("<think>I look at the frames.</think>B")
    tagged = Transcript(task, (Turn(parsed),), "B")
    untagged = Transcript(task, (Turn(parsed),), "B", untagged=True)
    assert FormatAnchor()(untagged) == pytest.approx(0.5)
    assert FormatAnchor()(tagged) == 1.0
