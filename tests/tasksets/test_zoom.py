"""The zoom world: its answers are in its pictures, from near alone, and its files are made once."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest

from paravt_env.task import OPTION_LETTERS, TaskError
from paravt_env.tasksets import load_tasks
from paravt_env.tasksets.made.zoom.generate import make_tasks, plan_tasks
from paravt_env.tasksets.made.zoom.stats import majority, measured
from paravt_env.tasksets.made.zoom.world import Cell, ZoomSettings, draw, ink, plan_picture

DIALS = ZoomSettings()


def test_every_answer_is_what_the_plan_shows():
    for index in range(12):
        plan = plan_picture(DIALS, "train", index)
        shown = {cell.colour: cell.symbol for cell in plan.framed}
        assert len(shown) == 6
        for task in make_tasks(plan, DIALS, index):
            gold = task.options[OPTION_LETTERS.index(task.answer)]
            if task.family == "inside":
                assert shown[task.question.split()[5]] == gold
            else:
                asked = task.question.split()[-1].rstrip("?")
                assert [colour for colour, symbol in shown.items() if symbol == asked] == [gold]


def test_gold_letters_are_balanced_and_questions_differ():
    tasks = plan_tasks(DIALS, "train", 60)
    letters = Counter(task.answer for task in tasks)
    assert {*letters} == {*"ABCD"} and max(letters.values()) / len(tasks) < 0.33
    assert len({(task.images, task.question) for task in tasks}) == len(tasks) > 200


def test_splits_share_no_picture():
    train, test = (plan_picture(DIALS, split, 0) for split in ("train", "test"))
    assert train.cells != test.cells
    assert not np.array_equal(draw(train, DIALS), draw(test, DIALS))
    assert np.array_equal(draw(train, DIALS), draw(plan_picture(DIALS, "train", 0), DIALS))


def test_all_symbols_have_the_same_ink():
    shares = [float(ink(symbol, 64).mean()) for symbol in ("circle", "cross", "star", "bar")]
    assert shares == pytest.approx([0.3] * 4, abs=0.01)


def test_a_box_holds_its_symbol_and_no_frame():
    plan = plan_picture(DIALS, "train", 1)
    picture = draw(plan, DIALS).astype(int)
    for cell in plan.cells:
        left, top, right, bottom = cell.box(DIALS)
        inside = picture[top:bottom, left:right]
        assert (np.ptp(inside, axis=2) == 0).all()  # grey: no frame
        assert (inside < 60).any()  # and a symbol
    assert Cell(0, 1, "star", "red").box(DIALS) == (240, 48, 336, 144)


def test_files_are_made_once_and_tasks_lead_to_them(tmp_path):
    tasks = load_tasks("zoom", split="val", videos=2, root=tmp_path, progress=False)
    assert len(tasks) >= 6 and tasks[0].video == ""
    (path,) = tasks[0].images
    before = (tmp_path / path).stat().st_mtime_ns
    load_tasks("zoom", split="val", videos=2, root=tmp_path, progress=False)
    assert (tmp_path / path).stat().st_mtime_ns == before
    (manifest,) = tmp_path.glob("zoom/*/val-2.jsonl")
    assert "video" not in json.loads(manifest.read_text().splitlines()[0])


def test_what_looking_is_worth():
    lines = measured(DIALS, "test", 12).splitlines()
    rows = {line[:14].strip(): line[14:].split() for line in lines[1:]}
    assert rows[""] == ["holds", "inside", "all"]
    assert rows["blind"] == ["25.0"] * 3 and rows["zoom"] == ["100.0"] * 3
    assert float(rows["from afar   64"][2]) < 60 < float(rows["from afar  256"][2])


def test_the_majority_is_that_of_a_family():
    tasks = plan_tasks(DIALS, "train", 8)
    best = {
        family: max(Counter(t.answer for t in tasks if t.family == family).values())
        for family in ("inside", "holds")
    }
    assert sum(majority(tasks)) == sum(best.values())


@pytest.mark.parametrize(
    "dials",
    [{"framed": 9}, {"framed": 3}, {"size": 100}, {"symbol": 4}, {"families": ["x"]}, {"grid": 0}],
)
def test_dials_that_do_not_go_together(dials):
    with pytest.raises(TaskError, match="zoom"):
        ZoomSettings.from_dials(dials)
