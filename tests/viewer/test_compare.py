"""Two runs beside each other: what is paired, what flipped, which curves lie over each other."""

import re

import pytest
from support.evaluations import report, row
from support.viewed_runs import HOSTILE, write_run

from train.common.errors import ConfigError
from train.evaluation.compare import shared
from train.viewer.compare_page import compare_page, flipped, overlaid
from train.viewer.runs import Runs


def test_samples_of_both_are_kept_and_the_others_counted():
    first = report(row("a", 1.0), row("b", 0.0), row("c", 1.0, frame_budget=8))
    second = report(row("b", 1.0), row("c", 1.0), row("a", 0.0))
    one, other, left_out = shared(first, second)
    assert [r.task_id for r in one.rows] == ["a", "b"] and left_out == 2
    assert [r.task_id for r in other.rows] == ["b", "a"]
    with pytest.raises(ConfigError, match="share no task"):
        shared(first, report(row("z", 1.0)))


def test_rows_that_flipped_stand_with_the_lost_ones_first():
    first = report(row("a", 1.0), row("b", 0.0), row("c", 1.0), row("d", 0.0), row("e", 1.0))
    second = report(row("e", 1.0), row("d", 1.0), row("c", 0.0), row("b", 0.0))
    text = flipped(("r", "after"), ("s", "before"), [first, second])
    assert re.findall(r"<tr><td>(\w)</td>", text) == ["c", "d"]
    assert re.findall(r"n=(\d)", text) == ["2", "2", "3", "1"], "places in their own reports"
    assert text.count("run=r&amp;source=eval%3Aafter") == 2
    assert flipped(("r", "a"), ("s", "a"), [first, first]) == "<p class=soft>none</p>"


def test_curves_of_both_lie_over_each_other():
    steps = {
        "r": [{"step": 0, "reward": 1.0, "calls/K=4": 1.0, "kl": None, "mine": 1.0}],
        "s": [{"step": 0, "reward": 2.0, "calls/K=4": 2.0, "kl": None, "mine": 1.0}],
    }
    text = overlaid(steps)
    assert re.findall(r'aria-label="([^"]+)"', text) == ["reward", "calls/K=4"]
    assert "<title>r: 1</title>" in text and "<title>s: 2</title>" in text
    assert overlaid({"r": steps["r"], "s": []}) == ""


def test_the_page_pairs_two_runs_and_escapes_their_names(tmp_path):
    for name in ("one", "two"):
        write_run(tmp_path / name, "/v.mp4", 2)
    runs = Runs([tmp_path])
    text = compare_page(runs, "one:after", "two:after")
    assert "2 samples of both." in text and "0 better, 0 worse, 2 equal" in text
    assert "<td>50.0 %</td>" in text and "+0.0 [+0.0, +0.0]" in text
    assert "left out" not in text
    assert 'value="one:after" selected' in text
    chosen = compare_page(runs, "", "")
    assert "Paired" not in chosen and "<select" in chosen
    other = row(HOSTILE, 0.0, family=HOSTILE, answer=HOSTILE, gold=HOSTILE)
    same = row(HOSTILE, 1.0, family=HOSTILE, answer=HOSTILE, gold=HOSTILE)
    assert "<script>" not in flipped(("r", "x"), ("s", "x"), [report(same), report(other)])
