"""What a perfect reader sees of the synthetic world, what it asks for and what looking is worth."""

from __future__ import annotations

from typing import Any

import pytest

from paravt_env.task import Task
from paravt_env.tasksets.made.synthetic import oracle
from paravt_env.tasksets.made.synthetic.generate import plan_tasks
from paravt_env.tasksets.made.synthetic.stats import format_table, main, stats
from paravt_env.tasksets.made.synthetic.world import CORNERS, FAMILIES, SYMBOLS, WorldSettings


def _hand_made(family: str, **changes: Any) -> Task:
    """Four 80-second scenes: red (noon 40), light grey (120), blue (200), green (280)."""
    event = {"corner": "top left", "start": 36.0, "end": 48.0}
    scenes = [
        {"start": 0.0, "end": 80.0, "colour": "red", "events": [{**event, "symbol": "star"}]},
        {
            "start": 80.0,
            "end": 160.0,
            "colour": "light grey",
            "events": [{"symbol": "bar", "corner": "top right", "start": 110.0, "end": 122.0}],
        },
        {
            "start": 160.0,
            "end": 240.0,
            "colour": "blue",
            "events": [
                {"symbol": "star", "corner": "top left", "start": 198.0, "end": 210.0},
                {"symbol": "star", "corner": "bottom right", "start": 198.5, "end": 210.5},
            ],
        },
        {
            "start": 240.0,
            "end": 320.0,
            "colour": "green",
            "events": [{"symbol": "ring", "corner": "bottom left", "start": 270.0, "end": 282.0}],
        },
    ]
    fields: dict[str, Any] = {
        "kind": "mcq",
        "options": ("star", "bar", "ring", "circle"),
        "answer": "A",
        "asked": [0],
        "colours": ["red"],
        **changes,
    }
    metadata = {
        "duration": 320.0,
        "event_seconds": 12.0,
        "scenes": scenes,
        "asked": fields.pop("asked"),
        "colours": fields.pop("colours"),
    }
    return Task("t", "/v.mp4", "?", family=family, metadata=metadata, **fields)


def test_visible_cues_are_what_each_frame_shows() -> None:
    cues = oracle.visible_cues(_hand_made("flash"), [20.0, 36.0, 48.0, 80.0, 200.0])
    assert [(c.scene, c.colour, c.phase) for c in cues] == [
        (0, "red", 0.25),
        (0, "red", 0.45),
        (0, "red", 0.6),
        (1, "light grey", 0.0),
        (2, "blue", 0.5),
    ]
    assert [c.symbols for c in cues[:4]] == [(), (("star", "top left"),), (), ()]
    assert cues[4].symbols == (("star", "top left"), ("star", "bottom right"))


def test_cue_windows_follow_the_sun() -> None:
    flash = _hand_made("flash")
    assert oracle.cue_windows(flash, [20.4, 100.0]) == [(20.0, 60.0)]
    assert oracle.cue_windows(flash, [20.4], whole_seconds=False) == [(20.4, 60.4)]
    assert oracle.cue_windows(flash, [70.0]) == [(30.0, 70.0)]
    assert oracle.cue_windows(flash, [33.0, 70.0]) == [(33.0, 73.0)], "closest to noon"
    assert oracle.cue_windows(flash, [50.0], seconds=45) == [(5.0, 50.0)]
    assert oracle.cue_windows(flash, [48.0], seconds=60) == [(0.0, 48.0)], "clipped at 0"
    assert oracle.cue_windows(flash, [100.0]) == [], "red is not visible"
    assert oracle.cue_windows(flash, [20.0, 40.0]) == [], "the overview shows it"
    assert oracle.cue_windows(flash, [20.0, 40.0], needed_only=False) == [(20.0, 60.0)]
    when = _hand_made("when", kind="grounding", options=(), answer="36.0-48.0")
    assert oracle.cue_windows(when, [20.0, 46.0]) == [(26.0, 66.0)]
    goal = _hand_made("goal", asked=[3, 0, 2], colours=["green", "red", "blue"])
    assert oracle.cue_windows(goal, [10.0, 90.0, 220.0, 250.0]) == [
        (250.0, 290.0),
        (10.0, 50.0),
        (180.0, 220.0),
    ]


def test_after_takes_the_next_colour_that_the_overview_shows() -> None:
    after = _hand_made("after", asked=[1], answer="B")
    assert oracle.cue_windows(after, [10.0, 60.0, 90.0, 250.0]) == [(90.0, 130.0)]
    assert oracle.cue_windows(after, [10.0, 170.0]) == [(170.0, 210.0)], "grey was missed"
    assert oracle.cue_windows(after, [170.0]) == []
    misled = oracle.asked_scenes(after, oracle.visible_cues(after, [10.0, 170.0]))
    readings = oracle.read_window(after, [171.0, 200.0])
    assert oracle.possible_answers(after, readings, misled) == ("A",)
    assert oracle.possible_answers(after, readings) == ("A", "B", "C", "D")


def test_read_window_gives_symbols_and_times() -> None:
    task = _hand_made("count")
    one, two = oracle.read_window(task, [190.0, 194.0, 198.25, 202.0, 206.0, 211.0])
    assert (one.symbol, one.corner, one.colour, one.scene) == ("star", "top left", "blue", 2)
    assert (one.first, one.last, one.start, one.end) == (198.25, 206.0, 196.125, 208.5)
    assert (two.corner, two.first, two.start) == ("bottom right", 202.0, 200.125)
    (edge,) = oracle.read_window(task, [36.0, 40.0])
    assert (edge.start, edge.end) == (36.0, 40.0)
    assert oracle.read_window(task, [35.9, 48.0]) == ()


def test_answers_need_every_window() -> None:
    read = oracle.read_window
    order = _hand_made(
        "order",
        asked=[0, 3],
        colours=["red", "green"],
        options=("bar, ring", "star, ring", "star, bar", "bar, bar"),
        answer="B",
    )
    assert oracle.possible_answers(order, read(order, [40.0])) == ("B", "C")
    assert oracle.possible_answers(order, read(order, [275.0])) == ("A", "B")
    assert oracle.answer_from_readings(order, read(order, [40.0])) is None
    assert oracle.answer_from_readings(order, read(order, [40.0, 275.0])) == "B"
    goal = _hand_made(
        "goal",
        asked=[0, 2, 3],
        colours=["red", "blue", "green"],
        options=("green", "blue", "both", "neither"),
        answer="B",
    )
    assert oracle.possible_answers(goal, ()) == ("A", "B", "C", "D")
    assert oracle.possible_answers(goal, read(goal, [40.0, 205.0])) == ("B", "C")
    assert oracle.possible_answers(goal, read(goal, [40.0, 275.0])) == ("B", "D")
    assert oracle.possible_answers(goal, read(goal, [205.0, 275.0])) == ("A", "B", "D")
    assert oracle.answer_from_readings(goal, read(goal, [40.0, 205.0, 275.0])) == "B"


def test_answers_of_each_family() -> None:
    read = oracle.read_window
    where = _hand_made("where", options=CORNERS, answer="A")
    assert oracle.answer_from_readings(where, read(where, [40.0])) == "A"
    count = _hand_made("count", options=("1", "2", "3", "4"), asked=[2], colours=["blue"])
    assert oracle.answer_from_readings(count, read(count, [205.0])) == "B"
    name = _hand_made("open", kind="open", options=(), answer="star")
    assert oracle.answer_from_readings(name, read(name, [40.0])) == "star"
    assert oracle.possible_answers(name, ()) == SYMBOLS
    when = _hand_made("when", kind="grounding", options=(), answer="36.0-48.0")
    times = [30.0, 34.0, 38.0, 42.0, 46.0, 50.0]
    assert oracle.answer_from_readings(when, read(when, times)) == "36.0-48.0"
    assert oracle.answer_from_readings(when, ()) is None
    assert oracle.guess_span(when, [20.0]) == "34.0-46.0", "noon of an 80-second scene"
    assert oracle.guess_span(when, [37.0, 47.0]) == "36.0-48.0"
    assert oracle.guess_span(when, [100.0]) is None


def test_default_world_needs_tools_as_promised() -> None:
    rows = {(r.policy, r.budget): r for r in stats(plan_tasks(WorldSettings(), "test", 24))}
    assert rows["overview only", 4].accuracy <= 0.30
    assert rows["overview only", 64].accuracy >= 0.60
    for k in (16, 32, 64):
        assert rows["cue-guided crops", k].accuracy >= 0.95
        assert rows["cue-guided crops", k].crops < 1.5
    assert rows["five uniform crops", 0].accuracy <= 0.50
    assert rows["majority answer", 0].accuracy <= 0.28
    assert all(set(row.by_family) == set(FAMILIES) for row in rows.values())


def test_stats_prints_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--split", "val", "--videos", "1"])
    printed = capsys.readouterr().out
    assert printed.startswith("12 questions, 1 videos, split val")
    assert printed.count("overview only") == printed.count("cue-guided crops") == 5
    assert format_table(stats(plan_tasks(WorldSettings(), "val", 1))) in printed
