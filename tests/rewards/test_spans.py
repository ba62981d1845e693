"""Spans and times as models write them."""

import math

import pytest
from support.endless import ends

from paravt_env.span import parse_span, read_time, sole_span

TEN = (10.0, 20.0)


@pytest.mark.parametrize(
    "text",
    [
        "10-20 (25 s long)",
        "10.0 - 20.0 seconds (10s long)",
        "in the 300-second video, from 10 to 20",
        "In the 300 second clip it is 10-20.",
        "Crop 1: 10-20",
        "Crop 1: 10 to 20",
        "In crop 2, from 10 until 20 s",
        "10-20, 30-40",
        "10-20 and again 30-40",
        "10-20. In all, 3 people.",
        "2 people talk from 10 to 20",
        "It lasts 10 s: 10-20",
        "The event happens in the 10.0 - 20.0 seconds.",
        "between 10 and 20 seconds",
        "start: 10, end: 20",
        "starts at 10 s and ends at 20 s",
        "00:10 --> 00:20",
        "10s\N{EN DASH}20s",
        "10 s - 20 s",
        "(10, 20)",
        "10 20",
    ],
)
def test_the_first_pair_is_the_answer(text):
    assert parse_span(text) == TEN


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("1.5 minutes to 2 minutes", (90.0, 120.0)),
        ("1 to 2 minutes", (60.0, 120.0)),
        ("90 seconds to 2 minutes", (90.0, 120.0)),
        ("90 to 2 minutes", (90.0, 120.0)),
        ("1 min 5 s to 1 min 20 s", (65.0, 80.0)),
        ("1m5s-1m20s", (65.0, 80.0)),
        ("2 minutes and 10 seconds - 3 minutes", (130.0, 180.0)),
        ("1 hour 2 minutes 3.5 seconds to 1 hour 3 minutes", (3723.5, 3780.0)),
        ("1h-2h", (3600.0, 7200.0)),
    ],
)
def test_minutes_are_minutes_and_hours_hours(text, span):
    assert parse_span(text) == span


@pytest.mark.parametrize("text", ["10-20 or 30-40", "10 or 20", "10 20 30", "10", "25 s long", ""])
def test_what_is_no_single_span(text):
    assert parse_span(text) is None


def test_a_text_that_is_a_span_and_nothing_else():
    assert sole_span("from 10 to 20 s") == TEN
    assert sole_span("10-20, 30-40") is None
    assert sole_span("red") is None


@pytest.mark.parametrize(
    ("word", "seconds"),
    [("01:30", 90.0), ("00:01:30", 90.0), ("10s", 10.0), ("10 seconds", 10.0), ("1m 30s", 90.0),
     ("2.5", 2.5), ("1 min", 60.0), ("soon", None), ("1 2", None), ("", None), ("9" * 99, None)],
)  # fmt: skip
def test_a_time_as_one_word(word, seconds):
    assert read_time(word) == seconds


@pytest.mark.parametrize(
    "piece", ["1", "1 ", "1 to ", "1:", "1 min ", "1-", "1.", "1 or ", "1m", " "]
)
def test_megabytes_are_read_in_time_that_grows_with_them(piece):
    with ends():
        span = parse_span(piece * (500_000 // len(piece)))
    assert span is None or not math.isnan(span[0])
