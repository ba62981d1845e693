"""Evaluation: denominators, baselines, intervals, pairing."""

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from support.builders import ListTasks, make_task
from support.evaluations import report, rollout, row

import train.evaluation.evaluate as evaluation
from train.config.evaluation import EvalConfig
from train.evaluation.bootstrap import interval, video_clusters
from train.evaluation.evaluate import evaluate, majority_answers, plan
from train.evaluation.scores import EvalReport, paired_difference
from train.rollout.starts import Start


def one_of(rows):
    """The part of an environment that `evaluate` reads."""
    weighed = SimpleNamespace(preset=SimpleNamespace(weights={"answer": 1.0}))
    return SimpleNamespace(num_envs=rows, simulation=weighed)


def run(monkeypatch, tasks, settings, outcome=rollout, num_envs=2):
    batches = []

    def play(env, agent, starts, finished):
        batches.append(list(starts))
        for place, start in enumerate(starts):
            finished(place, outcome(start))

    monkeypatch.setattr(evaluation, "play", play)
    result = evaluate(None, one_of(num_envs), tasks, settings)
    return result, batches


TASKS = ListTasks(
    [make_task("/v.mp4", name, answer=gold) for name, gold in zip("abc", "BBA", strict=True)]
)
SETTINGS = EvalConfig(frame_budgets=(4, 8), budgets_per_task=None, resamples=50)


def test_every_task_is_played_once_at_every_budget(monkeypatch):
    result, batches = run(monkeypatch, TASKS, SETTINGS)
    assert [len(batch) for batch in batches] == [2, 2, 2]
    assert sorted((r.task_id, r.frame_budget) for r in result.rows) == [
        (name, budget) for name in "abc" for budget in (4, 8)
    ]
    first = result.rows[0]
    assert (first.calls, first.executed, first.parallel, first.frames_seen) == (2, 1, 2, 7)
    assert first.turns[0]["crops"][0]["window"] == [None, 1.0]


def test_defect_21_an_unreadable_video_stays_in_the_denominator(monkeypatch):
    def outcome(start):
        if start.task_id != "b":
            return rollout(start)
        return rollout(start, correct=math.nan, stop_reason="video_error", error="truncated")

    result, _ = run(monkeypatch, TASKS, SETTINGS, outcome)
    assert len(result.rows) == 6
    assert result.accuracy().mean == pytest.approx(2 / 3)
    assert result.errors == {"video_error": 2}
    assert [r.error_kind for r in result.rows if r.task_id == "b"] == ["video_error"] * 2
    assert result.summary()["overall"]["errors"] == 2


def test_defect_20_an_unreadable_video_is_never_correct_even_with_an_answer(monkeypatch):
    def outcome(start):
        return rollout(start, correct=1.0, reward=1.0, error="no frame could be decoded")

    result, _ = run(monkeypatch, TASKS, SETTINGS, outcome)
    assert {(r.score, r.reward, r.compliant) for r in result.rows} == {(0.0, 0.0, False)}
    assert all(r.error == "no frame could be decoded" for r in result.rows)


def test_defect_21_rows_that_vanish_are_an_error(monkeypatch):
    def first_only(env, agent, starts, finished):
        finished(0, rollout(starts[0]))

    monkeypatch.setattr(evaluation, "play", first_only)
    with pytest.raises(RuntimeError, match="3 rows of 6 samples; lost"):
        evaluate(None, one_of(2), TASKS, SETTINGS)


def test_a_rollout_of_another_task_is_a_bug_of_ours(monkeypatch):
    def swapped(env, agent, starts, finished):
        finished(0, rollout(starts[-1]))

    monkeypatch.setattr(evaluation, "play", swapped)
    settings = replace(SETTINGS, frame_budgets=(4,))
    with pytest.raises(RuntimeError, match="asked for 'a', played 'b'"):
        evaluate(None, one_of(2), TASKS, settings)


def test_the_plan_depends_on_ids_and_settings_alone():
    ids = [f"t{i}" for i in range(40)]
    settings = EvalConfig(frame_budgets=(4, 8, 16), tasks=30, seed=3)
    starts = plan(ids, settings)
    assert starts == plan(ids, settings)
    assert starts != plan(ids, replace(settings, seed=4))
    assert len({start.task_id for start in starts}) == 30
    assert [sum(s.frame_budget == k for s in starts) for k in (4, 8, 16)] == [10, 10, 10]
    assert all(start.seed == 3 + int(start.task_id[1:]) for start in starts)


def test_a_cycle_of_families_is_not_tied_to_a_cycle_of_budgets():
    ids = [f"t{i}" for i in range(40)]
    starts = plan(ids, EvalConfig(frame_budgets=(4, 8)))
    even = [start.frame_budget for start in starts if int(start.task_id[1:]) % 2 == 0]
    assert set(even) == {4, 8}


def test_without_budgets_the_environment_draws():
    assert plan(["a"], EvalConfig(frame_budgets=(), seed=5)) == [Start("a", None, 5)]


def test_the_majority_is_counted_family_by_family(monkeypatch):
    tasks = ListTasks(
        [
            *TASKS.tasks,
            make_task("/v.mp4", "d", answer="C", family="shape"),
            make_task("/v.mp4", "e", kind="open", options=(), answer="Ada", family="name"),
        ]
    )
    assert majority_answers(tasks) == {"colour": "B", "shape": "C", "name": "Ada"}
    result, _ = run(monkeypatch, TASKS, EvalConfig(frame_budgets=(4,), resamples=50))
    assert {r.task_id: r.majority for r in result.rows} == {"a": 1.0, "b": 1.0, "c": 0.0}
    assert result.summary()["family"]["colour"]["majority"] == pytest.approx(2 / 3)


def test_tables_by_family_category_kind_and_budget():
    summary = report(
        row("a", 1.0), row("a", 0.0, frame_budget=8), row("b", 0.5, family="shape", calls=3)
    ).summary()
    assert summary["overall"]["accuracy"]["mean"] == 0.5
    assert summary["frame_budget"]["4"]["accuracy"]["mean"] == 0.75
    assert summary["frame_budget"]["4"]["calls"] == 2.0
    assert summary["frame_budget"]["8"]["accuracy"]["rows"] == 1
    assert list(summary["family"]) == ["colour", "shape"]
    assert list(summary["category"]) == ["spatial"]
    assert list(summary["kind"]) == ["mcq"]


def test_saved_and_loaded_reports_are_equal(tmp_path):
    original = report(row(turns=({"completion": "x", "crops": []},)), row("b", evidence=()))
    original.save(tmp_path / "deep" / "after.json")
    assert EvalReport.load(tmp_path / "deep" / "after.json") == original


def test_the_paired_difference_is_after_minus_before():
    before = report(row("a", 0.0), row("b", 1.0), row("c", 0.0))
    after = report(row("b", 1.0), row("c", 1.0), row("a", 1.0))
    change = paired_difference(before, after)
    assert change.mean == pytest.approx(2 / 3)
    assert change.clusters == 3
    assert not change.excludes_zero
    calls = paired_difference(before, after, lambda r: r.calls, lambda r: r.frame_budget <= 8)
    assert (calls.mean, calls.low, calls.high) == (0.0, 0.0, 0.0)


def test_pairing_is_tighter_than_two_independent_intervals():
    rng = np.random.default_rng(0)
    hard = rng.random(80) < 0.5
    before = report(*(row(f"t{i}", float(not h)) for i, h in enumerate(hard)))
    after = report(*(row(f"t{i}", float(not h or i % 5 == 0)) for i, h in enumerate(hard)))
    change = paired_difference(before, after)
    assert change.excludes_zero
    assert before.accuracy().high > after.accuracy().low


def test_evaluations_of_different_tasks_are_not_compared():
    with pytest.raises(ValueError, match=r"cannot be paired.*'c'"):
        paired_difference(report(row("a")), report(row("a"), row("c")))


def test_the_interval_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(1)
    inside = 0
    for trial in range(200):
        values = (rng.random(60) < 0.3).astype(float)
        found = interval(values, list(map(str, range(60))), resamples=300, seed=trial)
        inside += found.low <= 0.3 <= found.high
    assert 0.88 <= inside / 200 <= 0.99


def test_rows_of_one_task_do_not_count_as_independent():
    values = [0.0, 1.0] * 20
    apart = interval(values, list(map(str, range(40))))
    together = interval(values, ["a", "b"] * 20)
    assert together.high - together.low > 2 * (apart.high - apart.low)
    assert (together.low, together.high, together.clusters) == (0.0, 1.0, 2)


def test_questions_of_one_video_do_not_count_as_independent():
    """Where videos differ in difficulty, 95 % means 95 % over videos, and far less over tasks."""
    rng = np.random.default_rng(2)
    videos, questions, trials = 40, 12, 200
    tasks = [f"t{i:03d}" for i in range(videos * questions)]
    names = video_clusters(tasks, [f"v{i // questions}" for i in range(len(tasks))])
    inside = {"video": 0, "task": 0}
    for trial in range(trials):
        chance = np.repeat(rng.uniform(0.0, 0.9, videos), questions)
        values = (rng.random(len(tasks)) < chance).astype(float)
        for what, clusters in (("video", names), ("task", tasks)):
            found = interval(values, clusters, resamples=200, seed=trial)
            inside[what] += found.low <= 0.45 <= found.high
    assert 0.88 <= inside["video"] / trials <= 0.99
    assert inside["task"] / trials < 0.8


def test_reports_draw_videos_with_all_their_questions():
    def of(video_of, offset=0.0):
        scores = [0.0, 0.0, 1.0, 1.0]
        named = zip("abcd", video_of, scores, strict=True)
        return report(
            *(row(task, score * (1 - offset), video=video) for task, video, score in named)
        )

    two = of("vvww").accuracy()
    assert (two.low, two.high, two.clusters) == (0.0, 1.0, 2)
    change = paired_difference(of("vvww", 1.0), of("vvww"))
    assert (change.mean, change.low, change.high, change.clusters) == (0.5, 0.0, 1.0, 2)
    apart = of("wxyz").accuracy()
    assert apart == interval([0.0, 0.0, 1.0, 1.0], list("abcd"), resamples=200)
    assert apart == of("zyxw").accuracy() == of("vvvv").accuracy()
    assert apart.clusters == 4


def test_rows_of_a_task_stay_together_wherever_its_video_lies():
    assert video_clusters(["b", "a", "a"], ["v", "v", "w"]) == ["b", "a", "a"]
    assert video_clusters([], []) == []


def test_the_interval_is_seeded_and_widens_with_confidence():
    values, tasks = [0.0, 0.0, 1.0, 1.0, 1.0, 0.0, 1.0], list("abcdefg")
    assert interval(values, tasks, seed=1) == interval(values, tasks, seed=1)
    half = interval(values, tasks, confidence=0.5)
    most = interval(values, tasks, confidence=0.95)
    assert most.low < half.low < half.high < most.high
    assert half.mean == pytest.approx(4 / 7)


@pytest.mark.parametrize("values", [[], [math.nan], [1.0, math.inf]])
def test_an_interval_of_nothing_or_of_nan_is_refused(values):
    with pytest.raises(ValueError, match="finite"):
        interval(values, ["t"] * len(values))
