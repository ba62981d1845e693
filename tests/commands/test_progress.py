"""Progress of long work: the estimate, and a line at least every half minute."""

import io

import pytest

from paravt_env.common.progress import Pace, Progress, counted, in_words
from train.common.console import Plain, Work


class Clock:
    """Seconds that a test moves."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self):
        return True


@pytest.fixture
def clock():
    return Clock()


def told(clock, steps, make, stream):
    """The lines of work that takes 10 s an item, shown after each."""
    work = make(stream, Pace(steps, clock=clock))
    for done in range(1, steps + 1):
        clock.now += 10
        work(done)
    return stream.getvalue().splitlines()


def test_a_line_is_told_at_the_start_the_end_and_every_half_minute(clock):
    def make(stream, pace):
        return Work("evaluated", 8, stream=stream, pace=pace).show

    assert told(clock, 8, make, io.StringIO()) == [
        "  evaluated 1/8, about 1 min left",
        "  evaluated 4/8, about 40 s left",
        "  evaluated 7/8, about 10 s left",
        "  evaluated 8/8",
    ]


def test_videos_tell_the_same(clock):
    def make(stream, pace):
        bar = Progress("videos", 4, stream=stream, pace=pace)
        return lambda done: bar.show(done, f"{done}/4")

    assert told(clock, 4, make, io.StringIO()) == [
        "videos [######..................] 1/4, about 30 s left",
        "videos [########################] 4/4",
    ]


def test_a_terminal_is_redrawn_in_place(clock):
    stream = Terminal()
    bar = Progress("videos", 2, stream=stream, pace=Pace(2, clock=clock))
    bar.show(0, "0/2")
    clock.now += 70
    bar.show(1, "1/2")
    bar.show(2, "2/2")
    assert stream.getvalue().count("\r") == 3 and stream.getvalue().count("\n") == 1
    assert "1/2, about 1 min left" in stream.getvalue()
    assert not Progress("x", 1, shown=False, stream=stream).show(1, "never")
    assert "never" not in stream.getvalue()


def test_what_was_there_before_says_nothing_about_the_speed(clock):
    pace = Pace(10, done=8, clock=clock)
    assert pace.left(8) == ""
    clock.now += 20
    assert pace.left(9) == "about 20 s left"
    assert pace.left(10) == ""


def test_an_estimate_rests_on_enough_of_the_work(clock):
    pace = Pace(576, clock=clock)
    clock.now += 3
    assert [bool(pace.left(done)) for done in (0, 1, 11, 12)] == [False, False, False, True]
    assert pace.left(12) == "about 2 min left"
    long = Pace(10_000, done=100, clock=clock)
    clock.now += 1
    assert [bool(long.left(done)) for done in (115, 116)] == [False, True]


def test_what_is_counted_comes_through_and_is_told():
    stream = io.StringIO()
    assert list(counted("cells", iter("abc"), stream)) == ["a", "b", "c"]
    first, *_, last = stream.getvalue().splitlines()
    assert first.endswith("] 0/3") and last.endswith("] 3/3")
    assert list(counted("cells", [], stream)) == []


def test_a_terminal_shows_a_bar_with_its_note():
    stream = Terminal()
    work = Work("evaluated", 2, stream=stream)
    work.show(1, "accuracy 0.500 [b]")
    work.show(2, "accuracy 1.000")
    assert "accuracy 1.000" in stream.getvalue() and "2/2" in stream.getvalue()


def test_a_step_of_training_says_what_is_left_and_what_validation_found():
    stream = io.StringIO()
    shown = Plain(4, stream)
    shown.start(0)
    shown.show(0, {"reward": 1.0, "validation/accuracy": 0.25})
    assert stream.getvalue().startswith("step 1/4  reward 1.000  validation/accuracy 0.250  about")


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.4, "0 s"), (59.4, "59 s"), (60, "1 min"), (3599, "1 h 0 min"), (5400, "1 h 30 min")],
)
def test_durations_in_words(seconds, words):
    assert in_words(seconds) == words
