"""Scores: spans, categories, errors, baselines, usage; every row in every denominator."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from support.builders import make_task
from support.evaluations import report, rollout, row

from agents.base import Trajectory
from paravt_env.task import Task
from train.evaluation.bootstrap import macro_interval
from train.evaluation.row import MAX_COMPLETION, EvalRow, duration_group, make_row
from train.evaluation.scores import EvalReport, with_blind
from train.rollout.starts import Start


def grounding(task_id, iou, **changes):
    return row(task_id, iou, kind="grounding", span_iou=iou, **changes)


def made(task, **changes):
    start = Start(task.id, 4)
    best, weights = {task.family: task.answer}, {"answer": 2.0, "form": 0.5}
    return make_row(rollout(start, **changes), task, best, start, weights)


WHEN = Task("when", "/v.mp4", "When?", "grounding", answer="10.0-20.0", family="when")


def test_mean_iou_and_recall_at_three_thresholds():
    found = report(
        grounding("a", 0.3), grounding("b", 0.5), grounding("c", 0.7), grounding("d", 0.0)
    ).grounding()
    assert {name: item.mean for name, item in found.items()} == pytest.approx(
        {"mIoU": 1.5 / 4, "R@0.3": 0.75, "R@0.5": 0.5, "R@0.7": 0.25}
    )


def test_a_grounding_row_without_a_span_counts_as_zero():
    assert made(WHEN, answer="10-20").span_iou == 1.0
    assert made(WHEN, answer="15-25").span_iou == pytest.approx(1 / 3)
    assert made(WHEN, answer="in the middle").span_iou == 0.0
    assert made(WHEN, answer="10-20", error="gone", stop_reason="agent_error").span_iou == 0.0
    assert made(make_task("/v.mp4")).span_iou is None


def test_rows_of_other_kinds_are_not_in_the_mean_iou():
    found = report(grounding("a", 0.5), row("b", 1.0))
    assert found.grounding()["mIoU"].mean == 0.5
    assert report(row("b")).grounding() == {}
    assert report(row("b")).summary()["grounding"] == {}


def test_the_macro_mean_counts_every_category_once_and_the_micro_mean_every_row():
    rows = [row(f"n{i}", 1.0, category="needle") for i in range(3)]
    mixed = report(*rows, row("c", 0.0, category="count"))
    assert mixed.accuracy().mean == 0.75
    assert mixed.macro().mean == 0.5
    assert mixed.summary()["macro"]["mean"] == 0.5


def test_the_macro_interval_resamples_within_its_groups():
    sure = macro_interval({"a": ([1.0] * 8, list("12345678")), "b": ([0.0], ["9"])}, seed=3)
    assert (sure.mean, sure.low, sure.high, sure.rows, sure.clusters) == (0.5, 0.5, 0.5, 9, 9)
    values = [0.0, 1.0] * 4
    wide = macro_interval({"a": (values, list("12345678")), "b": ([0.0], ["9"])}, resamples=500)
    assert wide.mean == 0.25
    assert 0.0 < wide.low < 0.25 < wide.high < 0.5
    with pytest.raises(ValueError, match="at least one group"):
        macro_interval({})


def test_a_video_with_rows_in_several_categories_is_drawn_with_all_of_them():
    """Two categories over the same three videos, all three of which differ."""
    values = [0.0, 0.5, 1.0]
    both = macro_interval({"x": (values, list("abc")), "y": (values, list("abc"))}, seed=1)
    assert (both.mean, both.rows, both.clusters) == (0.5, 6, 3)
    assert (both.low, both.high) == (0.0, 1.0)  # each end with a chance of 1/27; apart 1/729
    apart = macro_interval({"x": (values, list("abc")), "y": (values, list("def"))}, seed=1)
    assert apart.low > 0.0 and apart.high < 1.0
    gone = macro_interval({"x": ([1.0, 0.0], ["a", "b"]), "y": ([1.0], ["a"])})
    assert (gone.mean, gone.low, gone.high) == (0.75, 0.0, 1.0)  # b twice: no row of y


def test_the_categories_of_a_report_keep_their_videos_together():
    def of(videos):
        rows = [row(f"{v}{c}", s, video=v, category=c)
                for v, s in zip(videos, (0.0, 0.5, 1.0), strict=True) for c in "xy"]  # fmt: skip
        return report(*rows).macro()

    assert (of("abc").low, of("abc").high, of("abc").clusters) == (0.0, 1.0, 3)
    alone = of("aaa")  # of one video: its tasks are resampled
    assert alone.low > 0.0 and alone.high < 1.0


@pytest.mark.parametrize("kind", ["video_error", "agent_error", "judge_error"])
def test_errors_are_counted_by_kind_and_stay_in_the_denominator(kind):
    bad = made(make_task("/v.mp4"), error="why", stop_reason=kind, correct=math.nan)
    assert (bad.score, bad.reward, bad.compliant, bad.error_kind) == (0.0, 0.0, False, kind)
    both = report(bad, row("b", 1.0))
    assert both.errors == {kind: 1}
    assert both.accuracy().mean == 0.5
    assert both.summary()["overall"]["errors"] == 1


def test_a_report_from_before_errors_had_kinds_counts_by_stop_reason():
    assert report(row(error="x", stop_reason="video_error")).errors == {"video_error": 1}


def test_the_tool_rate_counts_rows_and_calls_count_calls():
    part = report(row("a", calls=3), row("b", calls=0)).summary()["overall"]
    assert (part["tool_rate"], part["calls"]) == (0.5, 1.5)


def test_usage_is_averaged_over_the_rows_that_tell():
    part = report(
        row("a", usage={"visual_tokens": 10.0, "cost": 0.5}), row("b", usage={"visual_tokens": 30})
    ).summary()["overall"]
    assert part["usage"] == {"visual_tokens": 20.0, "cost": 0.5}
    assert report(row()).summary()["overall"]["usage"] == {}


def test_what_the_agent_used_and_the_video_lasts_is_in_the_row():
    made_row = made(make_task("/v.mp4"), usage={"frames": 9.0}, duration=1000.0)
    assert (made_row.usage, made_row.duration) == ({"frames": 9.0}, 1000.0)
    assert made_row.duration_group == "15-60 min"


@pytest.mark.parametrize(
    ("seconds", "group"),
    [
        (0.0, ""),
        (119.0, "under 2 min"),
        (120.0, "2-15 min"),
        (3599.0, "15-60 min"),
        (3600.0, "over 60 min"),
    ],
)
def test_durations_without_a_name_are_grouped_by_seconds(seconds, group):
    assert duration_group(make_task("/v.mp4"), seconds) == group


def test_durations_that_the_source_names_keep_its_names():
    named = {"duration": "medium"}
    assert duration_group(make_task("/v.mp4", metadata=named), 300.0) == "medium"
    assert duration_group(make_task("/v.mp4", metadata={"duration": "300"}), 300.0) == "2-15 min"
    assert duration_group(make_task("/v.mp4", metadata={"duration_group": 15}), 9.0) == "15"
    summary = report(row("a", duration_group="short"), row("b", duration_group="long")).summary()
    assert list(summary["duration_group"]) == ["long", "short"]


def test_the_blind_score_stands_beside_every_row_of_its_task():
    seen = report(row("a", 1.0), row("a", 1.0, frame_budget=8), row("b", 0.0))
    both = with_blind(seen, report(row("b", 0.0, frame_budget=0), row("a", 1.0, frame_budget=0)))
    assert [r.blind for r in both.rows] == [1.0, 1.0, 0.0]
    assert both.summary()["overall"]["blind"] == pytest.approx(2 / 3)
    assert seen.summary()["overall"]["blind"] is None
    assert not both.failed
    lost = row("b", 0.0, frame_budget=0, error="gone", error_kind="agent_error")
    both = with_blind(seen, report(row("a", 1.0, frame_budget=0), lost))
    assert both.failed and both.blind_errors == {"agent_error": 1} and not both.errors
    assert both.summary()["blind_errors"] == {"agent_error": 1}
    with pytest.raises(ValueError, match="1 tasks have no blind row, such as 'b'"):
        with_blind(seen, report(row("a")))


def test_megabytes_of_text_are_cut_and_the_cut_is_counted():
    crops = ({"completion": "x" * (MAX_COMPLETION + 7), "crops": []},)
    (turn,) = made(make_task("/v.mp4"), turns=crops).turns
    assert turn["completion"].endswith("x [7 more characters]")
    assert len(turn["completion"]) < MAX_COMPLETION + 40
    whole = ({"completion": "x" * MAX_COMPLETION, "crops": []},)
    assert made(make_task("/v.mp4"), turns=whole).turns == whole


def test_new_fields_survive_saving(tmp_path):
    rows = (
        row("a", usage={"cost": 0.1}, span_iou=0.5, blind=0.0, duration=9.5, duration_group="x"),
        row("b", error="e", error_kind="judge_error"),
    )
    original = replace(report(*rows), blind_errors={"agent_error": 2})
    original.save(tmp_path / "after.json")
    assert EvalReport.load(tmp_path / "after.json") == original


WRITTEN = """{"task_id": "t", "video": "/w.mp4", "family": "count", "category": "plot",
"kind": "mcq", "frame_budget": 8, "question": "How many?", "gold": "C",
"evidence": [[304.75, 317.0]], "score": 0.5, "majority": 1.0, "reward": 2.8, "compliant": true,
"calls": 3, "executed": 2, "parallel": 1, "frames_seen": 44, "evidence_recall": 0.25,
"stop_reason": "answered", "answer": "C", "error": "", "turns": [{"completion": "", "crops": [
{"window": [null, 103.9], "status": "ok", "message": "", "frames": 8}]}], "error_kind": "",
"duration": 814.0, "duration_group": "2-15 min", "usage": {"cost": 0.5}, "span_iou": null,
"blind": 1.0, "untagged": true, "lapses": {"quotes": 1}, "terms": {"answer": 0.5, "form": 2.3}}"""
"""A row as reports and row files hold it."""


def test_the_layout_of_a_row_on_disk():
    fields = json.loads(WRITTEN)
    read = EvalRow.from_json(fields)
    assert (read.task_id, read.video, read.family, read.category) == (
        "t",
        "/w.mp4",
        "count",
        "plot",
    )
    assert (read.score, read.rollout.correct, read.reward) == (0.5, 0.5, 2.8)
    assert (read.calls, read.executed, read.parallel, read.frames_seen) == (3, 2, 1, 44)
    assert (read.evidence, read.evidence_recall) == (((304.75, 317.0),), 0.25)
    assert (read.usage, read.blind, read.called) == ({"cost": 0.5}, 1.0, True)
    written = json.dumps(read.as_json())
    assert written == json.dumps(fields)  # the same keys in the same order
    assert (
        EvalRow.from_json({**fields, "evidence_recall": None}).as_json()["evidence_recall"] is None
    )
    for changes in ({"other": 1}, {"turns": None}, {"evidence": [[1.0]]}):
        with pytest.raises((TypeError, ValueError)):
            EvalRow.from_json({**fields, **changes})


def test_a_failed_row_says_why_by_its_stop_reason():
    lost = {**json.loads(WRITTEN), "error": "gone", "stop_reason": "agent_error"}
    assert EvalRow.from_json({**lost, "error_kind": "agent_error"}).error_kind == "agent_error"
    del lost["error_kind"]
    assert EvalRow.from_json(lost).error_kind == "agent_error"


def test_a_row_keeps_weighted_terms_that_add_up_and_no_trajectories():
    tokens = np.zeros(2, np.int64)
    one = Trajectory(tokens, tokens, tokens, tokens, tokens)
    terms = {"answer": 1.0, "form": 1.0, "total": 2.5}
    kept = made(make_task("/v.mp4"), trajectories=(one,), terms=terms, reward=2.25)
    assert (kept.rollout.trajectories, kept.rollout.terms) == ((), {})
    assert kept.terms == {"answer": 2.0, "form": 0.5, "other": -0.25}
    lost = made(make_task("/v.mp4"), terms=terms, error="gone", stop_reason="agent_error")
    assert (lost.terms, lost.reward) == ({}, 0.0)


def test_a_row_of_an_old_report_can_be_read():
    fields = {**row().as_json(), "evidence": [[1.0, 2.0]], "turns": []}
    for name in ("error_kind", "duration", "duration_group", "usage", "span_iou", "blind", "terms"):
        del fields[name]
    assert EvalReport((replace(row()),)).rows[0] == row().from_json(fields)
    del fields["error"]
    with pytest.raises(KeyError, match="error"):
        row().from_json(fields)


def test_a_rollout_without_a_sampled_budget_keeps_the_asked_one():
    task = make_task("/v.mp4")
    best = {task.family: "B"}
    sampled = make_row(rollout(Start(task.id, 8)), task, best, Start(task.id, None), {})
    assert sampled.frame_budget == 8
    asked = make_row(rollout(Start(task.id, 8)), task, best, Start("x", 4), {})
    assert asked.frame_budget == 4
