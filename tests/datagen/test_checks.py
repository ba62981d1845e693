"""What a row gives away by itself."""

import pytest

from train.config.reason import CheckConfig
from train.datagen.checks import check, form_problem, only_the_answer_is_in
from train.datagen.questions import Row
from train.datagen.refusal import Rejected
from train.datagen.videos import Film

FILM = Film("a.mp4", "/a.mp4", "0" * 32, "train", 100.0, (64, 64))


def row(question="Who opens the door?", answer="a tall man", reasoning="He opens it at 5 s.",
        wrong=("a small boy", "an old lady", "the postman"), evidence=((0.0, 10.0),)):  # fmt: skip
    return Row("id", FILM, "plot", question, reasoning, answer, wrong, (1,), evidence, "key")


def reason(**changes):
    try:
        check(row(**changes), CheckConfig())
    except Rejected as error:
        return error.reason
    return ""


def test_a_sound_row_passes():
    assert reason() == ""


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"question": "What does the caption say?"}, "cites"),
        ({"question": "Who is seen in clip 12?"}, "cites"),
        ({"reasoning": "The descriptions mention it."}, "cites"),
        ({"reasoning": "So option B is right."}, "cites"),
        ({"reasoning": "So (C) it is."}, "cites"),
        ({"reasoning": "He clips the hedge; she has no choice about it."}, ""),
        ({"evidence": ((0.0, 30.0), (40.0, 60.0))}, ""),
        ({"evidence": ((0.0, 30.0), (40.0, 60.1))}, "evidence"),
        ({"question": "Who is the tall man at the door?"}, "leak"),
        ({"question": "Is it a tall man or a small boy?"}, ""),
        ({"answer": "a very tall man in a long grey coat"}, "form"),
    ],
)
def test_each_fault_has_its_reason(changes, expected):
    assert reason(**changes) == expected


@pytest.mark.parametrize(
    ("question", "options", "leaks"),
    [
        ("When does the red car stop?", ("the RED car.", "a bus"), True),
        ("When does the red old car stop?", ("red car", "a bus"), False),
        ("Is it red or blue?", ("red", "blue", "green"), False),
        ("Is it red?", ("", "blue"), False),
    ],
)
def test_a_leak_is_the_answer_alone_word_by_word(question, options, leaks):
    assert only_the_answer_is_in(question, options) == leaks


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (("red", "light grey", "blue"), ""),
        (("a", "b" * 14, "c"), "lengths from 1 to 14"),
        (("x" * 30, "x" * 61, "y" * 30), "lengths from 30 to 61"),
        (("x" * 30, "x" * 60, "y" * 30), ""),
        (("red", "The red.", "blue"), "two options are the same"),
        (("red", "blue", "all of the above"), "is about the other options"),
        (("red", "blue", "Neither of these"), "is about the other options"),
        (("He runs.", "He walks.", "He sits"), "some end with a full stop"),
        (("12", "13", "none"), "some are numbers"),
        (("Red car", "blue car", "green car"), "the answer alone begins"),
        (("red car", "Blue car", "Green car"), "the answer alone begins"),
        (("Ada", "a boy", "Max"), ""),
        (("3 men", "4 men", "Two men"), ""),
    ],
)
def test_options_are_of_equal_length_and_form(options, problem):
    said = form_problem(options, 2.0, 12)
    assert (problem in said) if problem else said == ""
