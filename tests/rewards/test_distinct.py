"""Calls that count in the accumulative tool term: those that differ."""

from __future__ import annotations

import pytest
from support.builders import make_task

from paravt_env.crop import NO_WINDOW, CodeRun, CropResult, CropStatus
from paravt_env.rewards import Transcript, Turn
from paravt_env.rewards.terms.distinct import distinct_code, words_of
from paravt_env.rewards.terms.tool_gain import ToolGain

COUNTED = ToolGain(gain="accumulative")


def run(code, seen, status=CropStatus.ok):
    return CropResult(NO_WINDOW, None, status, ran=CodeRun(code, "", ((1.0, 2.0),), seen))


def paid(crops, correct=1.0):
    turns = tuple(Turn(None, (crop,)) for crop in crops)
    return COUNTED(Transcript(make_task("/v.mp4"), turns, "A", correct=correct))


def test_fifteen_equal_crops_count_once():
    crop = CropResult((3.0, 9.0), (3.0, 9.0), CropStatus.ok)
    assert paid([crop] * 15) == pytest.approx(0.1)
    other = CropResult((9.0, 12.0), (9.0, 12.0), CropStatus.ok)
    assert paid([crop] * 15 + [other]) == pytest.approx(0.2)


def test_code_counts_by_what_it_says_and_by_what_it_brings():
    same_code = [run("show(a)  # 1", b"1"), run("show(a)  # 2", b"2")]
    same_result = [run("show(a)", b"1"), run("show( b )", b"1")]
    both_new = [run("show(a)", b"1"), run("show(b)", b"2")]
    assert [paid(runs) for runs in (same_code, same_result, both_new)] == pytest.approx(
        [0.1, 0.1, 0.2]
    )


def test_nothing_is_paid_for_errors_or_wrong_answers():
    failed = run("1/0", b"1", CropStatus.code_error)
    assert paid([failed]) == 0.0
    assert paid([run("show(a)", b"1")], correct=0.5) == 0.0


def test_seconds_that_code_looked_at_are_evidence_and_no_crops():
    transcript = Transcript(make_task("/v.mp4"), (Turn(None, (run("x", b"1"),)),))
    assert transcript.windows == [(1.0, 2.0)] and transcript.turns[0].cropped == []


def test_layout_makes_no_other_code():
    assert words_of("if x:\n  y = 1\n\n") == words_of("if x :\n    y=1 # now")
    assert words_of("x = 1") != words_of("x = 2")
    assert words_of("def f(:'") == ("def", "f(:'")
    assert distinct_code([]) == 0
