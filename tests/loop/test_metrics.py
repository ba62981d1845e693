"""Metrics of rollouts, and the logger that writes them."""

import io
import json
import math
from types import SimpleNamespace

import pytest

from train.common.metrics_file import read_metrics
from train.loop.metrics import MetricsLogger, acted, aggregate_rollouts, written


def rollout(**changes):
    base = {
        "task_id": "t",
        "frame_budget": 4,
        "reward": 1.0,
        "terms": {"answer": 1.0, "total": 1.0},
        "stop_reason": "answered",
        "correct": 1.0,
        "compliant": True,
        "calls": 0,
        "executed": 0,
        "parallel": 0,
        "frames_seen": 4,
        "evidence_recall": math.nan,
        "error": "",
        "turns": (),
        "part": "",
    }
    return SimpleNamespace(**(base | changes))


def unreadable(**changes):
    return rollout(
        **{"reward": 0.0, "terms": {}, "stop_reason": "video_error", "correct": math.nan}
        | {"compliant": False, "error": "truncated", "frames_seen": 0}
        | changes
    )


def test_means_by_hand():
    metrics = aggregate_rollouts(
        [
            rollout(reward=1.5, terms={"answer": 1.0, "tool_gain": 0.5}, calls=3, parallel=2),
            rollout(reward=0.5, terms={"answer": 0.25, "tool_gain": 0.25}, correct=0.25),
            rollout(reward=1.0, calls=1, parallel=1, executed=1, evidence_recall=0.5),
        ]
    )
    assert metrics["reward"] == 1.0
    assert metrics["reward/answer"] == 0.75
    assert metrics["reward/tool_gain"] == 0.375
    assert metrics["calls"] == pytest.approx(4 / 3)
    assert metrics["called"] == pytest.approx(2 / 3)
    assert metrics["parallel_calls"] == 1.5
    assert metrics["executed_calls"] == pytest.approx(1 / 3)
    assert metrics["accuracy"] == 0.75
    assert metrics["evidence_recall"] == 0.5
    assert "reward/total" not in metrics


def test_how_turns_were_written_is_counted_turn_by_turn():
    one = {"lengths": (10, 30), "cut": 1, "lapses": {"quotes": 2}, "untagged": True}
    other = {"lengths": (20,), "cut": 0, "lapses": {}, "untagged": False}
    assert written([rollout(**one), rollout(**other)]) == {
        "completion_tokens": 20.0,
        "completion_tokens/longest": 30.0,
        "turns/cut": pytest.approx(1 / 3),
        "lapses/quotes": 1.0,
        "untagged": 0.5,
    }
    assert written([rollout(lengths=(), cut=0, lapses={}, untagged=False)]) == {}


def test_a_term_acts_in_the_groups_in_which_it_differs():
    def of(form, **changes):
        return rollout(terms={"answer": 1.0, "format_anchor": form, "total": 9.0}, **changes)

    groups = [
        [of(1.0), of(1.0)],
        [of(1.0), of(0.9), of(1.0)],
        [of(1.0), unreadable()],
        [unreadable(), unreadable()],
    ]
    assert acted(groups) == {
        "groups/acted/answer": 0.0,
        "groups/acted/format_anchor": pytest.approx(1 / 3),
    }


def test_tool_necessity_gap_of_each_budget():
    metrics = aggregate_rollouts(
        [
            rollout(frame_budget=4, calls=1, correct=0.75),
            rollout(frame_budget=4, calls=2, correct=0.25),
            rollout(frame_budget=4, calls=0, correct=0.125),
            rollout(frame_budget=8, calls=0, correct=1.0),
        ]
    )
    assert metrics["tng/K=4"] == 0.375
    assert "tng/K=8" not in metrics
    assert (metrics["calls/K=4"], metrics["calls/K=8"]) == (1.0, 0.0)
    assert metrics["accuracy/K=4"] == 0.375


def test_rows_that_were_not_scored_are_on_neither_side_of_the_necessity_gap():
    rows = [rollout(calls=1, correct=0.75), rollout(calls=0, correct=0.25)]
    lost = [unreadable(calls=0), unreadable(calls=2, stop_reason="agent_error")]
    assert aggregate_rollouts([*rows, *lost])["tng/K=4"] == 0.5
    assert aggregate_rollouts([*rows, *lost])["accuracy/K=4"] == 0.25
    assert "tng/K=4" not in aggregate_rollouts([rows[0], *lost])


def test_defect_21_failed_rows_stay_in_the_denominator():
    metrics = aggregate_rollouts([rollout(reward=2.0), unreadable()])
    assert metrics["accuracy"] == 0.5
    assert metrics["compliance"] == 0.5
    assert metrics["accuracy/K=4"] == 0.5
    assert metrics["errors"] == 1.0
    assert metrics["stop/video_error"] == 0.5


def test_defect_20_a_row_that_was_not_scored_has_no_part_in_the_reward():
    metrics = aggregate_rollouts([rollout(reward=2.0), unreadable()])
    assert metrics["reward"] == 2.0
    assert aggregate_rollouts([unreadable()])["accuracy"] == 0.0
    assert "reward" not in aggregate_rollouts([unreadable()])


def test_defect_25_calls_that_failed_are_counted():
    metrics = aggregate_rollouts([rollout(calls=3, executed=1), rollout(calls=1, executed=0)])
    assert metrics["calls"] == 2.0
    assert metrics["executed_calls"] == 0.5


def test_no_rollouts_is_a_mistake_of_ours():
    with pytest.raises(ValueError, match="no rollouts"):
        aggregate_rollouts([])


def test_each_step_is_a_line_on_disk_before_the_next(tmp_path):
    console = io.StringIO()
    with MetricsLogger(tmp_path, total_steps=5, console=console) as logger:
        logger.log(0, {"reward": 0.5, "kl": math.nan})
        assert read_metrics(tmp_path) == [{"step": 0, "reward": 0.5, "kl": None}]
        logger.log(1, {"reward": 1})
    assert [line["step"] for line in read_metrics(tmp_path)] == [0, 1]
    assert console.getvalue().splitlines()[1].startswith("step 2/5  reward 1.000  about ")


def test_a_resumed_run_writes_no_step_twice(tmp_path):
    with MetricsLogger(tmp_path, console=io.StringIO()) as logger:
        for step in range(4):
            logger.log(step, {"reward": float(step)})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "rew')
    with MetricsLogger(tmp_path, first_step=2, console=io.StringIO()) as logger:
        logger.log(2, {"reward": 9.0})
    assert [(line["step"], line["reward"]) for line in read_metrics(tmp_path)] == [
        (0, 0.0),
        (1, 1.0),
        (2, 9.0),
    ]


def test_the_live_display_draws_on_a_terminal(tmp_path, monkeypatch):
    console = io.StringIO()
    monkeypatch.setattr(console, "isatty", lambda: True)
    with MetricsLogger(tmp_path, total_steps=2, console=console) as logger:
        logger.log(0, {"reward": 0.25})
        drawn = logger._console._drawn(0)
    table, bar = drawn.renderables
    assert (table.row_count, bar.completed, bar.total) == (1, 1, 2)


def test_metrics_are_plain_json(tmp_path):
    with MetricsLogger(tmp_path, console=io.StringIO()) as logger:
        logger.log(0, {"loss": math.inf})
    line = (tmp_path / "metrics.jsonl").read_text()
    assert json.loads(line, parse_constant=lambda _: pytest.fail("not JSON")) == {
        "step": 0,
        "loss": None,
    }


def test_a_full_disk_names_the_file_and_what_to_do(tmp_path):
    logger = MetricsLogger(tmp_path, console=io.StringIO())
    logger._file.close()
    logger._file = open("/dev/full", "ab", buffering=0)  # noqa: SIM115
    with pytest.raises(OSError, match=r"metrics\.jsonl: No space left.*--run\.resume=true"):
        logger.log(0, {"reward": 1.0})
    logger.close()
