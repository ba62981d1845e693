"""Open answers: what carries meaning is compared, and hedging is worth no more than a guess."""

import pytest
from support.endless import ends

from paravt_env.rewards import Answer, Transcript
from paravt_env.rewards.terms.answer import lists_alternatives, score_answer, token_overlap, tokens
from paravt_env.task import Task


def value(text, gold, **options):
    return Answer(**options)(Transcript(Task("o", "/v.mp4", "?", "open", answer=gold), (), text))


DIFFERENT = [
    ("-5", "5"), ("x > 5", "x < 5"), ("x >= 5", "x > 5"), ("A+", "A-"), ("A+", "A"), ("A-", "A"),
    ("C++", "C"), ("C#", "C"), (".5", "5"), ("0.5", "5"), ("1.5", "15"), ("1,5", "15"),
    ("AB-", "AB+"), ("50%", "50"), ("$5", "5"), ("\u22125", "5"), ("10:05", "1005"),
    ("\u5317\u4eac", "\u4e1c\u4eac"), ("a", "the"),
]  # fmt: skip
EQUAL = [
    ("0.5", "0.50"), ("3", "3.0"), ("5 km", "5km"), ("10\u201320", "10-20"), (".5", "0.5"),
    ("+5", "5"), ("\u22125", "-5"), ("12,000", "12000"), ("The red car.", "red car"),
    ("\u6211\u5728\u5317\u4eac", "\u6211 \u5728\u5317\u4eac\u3002"), ("x>5", "x > 5"),
    ("\uff15km", "5 km"), ("It\u2019s", "it's"), ("C++", "c++."), ("1.50 to 2.0", "1.5 to 2"),
]  # fmt: skip


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_different_meanings_are_not_equal(one, other):
    for text, gold in ((one, other), (other, one)):
        assert tokens(text) != tokens(gold)
        assert value(text, gold) < 1.0
        assert value(text, gold, open_metric="exact") == 0.0


@pytest.mark.parametrize(("one", "other"), EQUAL)
def test_equal_meanings_are_equal(one, other):
    for text, gold in ((one, other), (other, one)):
        assert value(text, gold) == value(text, gold, open_metric="exact") == 1.0


def test_chinese_japanese_and_korean_are_compared_by_character():
    assert tokens("東京タワー") == ["東", "京", "タ", "ワ", "ー"]
    assert value("東京", "東京タワー") == pytest.approx(4 / 7)
    assert tokens("서울 in 5분") == ["서", "울", "in", "5", "분"]


def test_more_words_than_the_gold_answer_cost_their_share():
    assert value("yes no", "yes") == 0.5
    assert value("red blue green", "red") == pytest.approx(1 / 3)
    assert value("red car", "a red car parks") == pytest.approx(0.8)
    assert token_overlap(["red", "red"], ["red", "car"]) == 0.5
    assert token_overlap(["x"], ["y"]) == 0.0


@pytest.mark.parametrize(
    "text", ["red or blue", "red/blue", "red | blue", "either red, blue", "\u7ea2\u6216\u84dd"]
)
def test_alternatives_are_no_answer(text):
    assert value(text, "red") == value(text, "red", open_metric="exact") == 0.0
    assert value(text, text) == 1.0


def test_a_fraction_or_a_rate_is_no_alternative():
    assert not lists_alternatives("3/4", "x")
    assert value("3/4 of it", "3/4 of it") == 1.0


@pytest.mark.parametrize(
    ("text", "gold", "f1"),
    [("yes no", "yes", 2 / 3), ("red red", "red car", 0.5), ("-5", "5", 1.0), ("the", "A", 1.0),
     ("red or blue", "red", 0.5), ("0.5", "05", 1.0), ("x", "y", 0.0)],
)  # fmt: skip
def test_the_released_f1_is_a_setting(text, gold, f1):
    assert value(text, gold, open_metric="published_f1") == pytest.approx(f1)


@pytest.mark.parametrize(
    "piece", ["1", "-", "+", "a+", "1,", ".5", "我", "<", "1.", "a-", ".", "or "]
)
def test_megabytes_are_read_in_time_that_grows_with_them(piece):
    task = Task("o", "/v.mp4", "?", "open", answer="red")
    with ends():
        assert 0.0 <= score_answer(task, piece * (500_000 // len(piece))) <= 1.0
