"""Metrics of rollouts, and the logger that writes them."""

import io
import json
import math
import os
import struct
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from train.common.errors import ConfigError
from train.common.metrics_file import read_metrics
from train.loop.metrics import MetricsLogger, acted, aggregate_rollouts, start_wandb, written
from train.loop.tracking import Tracker


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
    assert console.getvalue().splitlines()[1] == "step 2/5  reward 1.000"


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


class FakeWandb(SimpleNamespace):
    def __init__(self):
        super().__init__(calls=[], Settings=dict)

    def init(self, **settings):
        self.calls.append(settings)
        return SimpleNamespace(log=lambda *a, **k: None, finish=lambda: None)


@pytest.mark.parametrize(
    ("mode", "key", "started"),
    [
        ("auto", None, "offline"),
        ("auto", "secret", "online"),
        ("offline", "secret", "offline"),
        ("online", "secret", "online"),
    ],
)
def test_wandb_is_offline_without_a_key(tmp_path, monkeypatch, mode, key, started):
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    if key:
        monkeypatch.setenv("WANDB_API_KEY", key)
    start_wandb(mode, tmp_path, {"a": 1})
    start_wandb(mode, tmp_path, {"a": 1})
    assert [call["mode"] for call in fake.calls] == [started, started]
    assert fake.calls[0]["id"] == fake.calls[1]["id"]
    assert fake.calls[0]["config"] == {"a": 1}


def test_wandb_online_without_a_key_is_refused_rather_than_asked_for(tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setitem(sys.modules, "wandb", FakeWandb())
    with pytest.raises(ConfigError, match="WANDB_API_KEY"):
        start_wandb("online", tmp_path, {})


def test_wandb_that_is_not_installed_is_named_unless_disabled(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ConfigError, match=r"--run\.wandb=disabled"):
        start_wandb("offline", tmp_path, {})
    assert start_wandb("disabled", tmp_path, {}) is None


def test_metrics_are_plain_json(tmp_path):
    with MetricsLogger(tmp_path, console=io.StringIO()) as logger:
        logger.log(0, {"loss": math.inf})
    line = (tmp_path / "metrics.jsonl").read_text()
    assert json.loads(line, parse_constant=lambda _: pytest.fail("not JSON")) == {
        "step": 0,
        "loss": None,
    }


class Unreachable(FakeWandb):
    """Refuses to start online."""

    class Error(Exception):
        pass

    def teardown(self):
        self.calls.append({"mode": "teardown"})

    def init(self, **settings):
        run = super().init(**settings)
        if settings["mode"] == "online":
            raise self.Error("dial tcp: connection refused\nConsider increasing it")
        return run


def test_wandb_that_cannot_be_reached_is_one_line_and_an_offline_run(tmp_path, monkeypatch, capsys):
    fake = Unreachable()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    monkeypatch.setenv("WANDB_API_KEY", "secret")
    assert start_wandb("auto", tmp_path, {}) is not None
    assert [call["mode"] for call in fake.calls] == ["online", "teardown", "offline"]
    assert fake.calls[0]["settings"]["init_timeout"] <= 30
    said = capsys.readouterr().out
    assert said.count("\n") == 1
    assert "connection refused): logging offline; `wandb sync " in said
    with pytest.raises(ConfigError, match=r"connection refused\): --run\.wandb=offline"):
        start_wandb("online", tmp_path, {})


def test_wandb_that_fails_later_is_one_line_and_training_goes_on(tmp_path, capsys):
    def lost(*_):
        raise BrokenPipeError("the service is gone")

    run = SimpleNamespace(define_metric=lambda *a, **k: None, log=lost, finish=lost)
    tracker = Tracker(run, tmp_path)
    tracker.log(0, {"reward": 1.0})
    tracker.log(1, {"reward": 1.0})
    tracker.close()
    said = capsys.readouterr().out
    assert said.count("W&B failed and gets no more steps (the service is gone)") == 1
    assert said.count("\n") == 1


OFFLINE = """
import io, sys
from train.loop import tracking
from train.loop.metrics import MetricsLogger
tracking.PATIENCE = 3.0
for first in (0, 2):
    to = {"first_step": first, "console": io.StringIO()}
    with MetricsLogger(sys.argv[1], wandb=sys.argv[2], **to) as logger:
        for step in range(first, 4):
            logger.log(step, {"reward": 10.0 * first + step})
"""


def real_wandb(folder, mode, **variables):
    """Two sessions of a run with the real package, the second of which repeats two steps."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("WANDB_")} | variables
    command = [sys.executable, "-c", OFFLINE, str(folder), mode]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def history(folder):
    """What W&B's offline files hold: (step, reward) of every line of history, in order."""
    pb = pytest.importorskip("wandb.proto.wandb_internal_pb2")
    found, drawn_over = [], set()
    for path in sorted(folder.glob("wandb/offline-run-*/*.wandb")):
        data, place, parts = path.read_bytes(), 7, b""
        while place + 7 <= len(data):  # LevelDB's log: blocks of 32 KiB, records of several parts
            if 32768 - place % 32768 < 7:
                place += 32768 - place % 32768
                continue
            size, kind = struct.unpack_from("<HB", data, place + 4)
            parts += data[place + 7 : place + 7 + size]
            place += 7 + size
            if kind in (1, 4):
                record, parts = pb.Record.FromString(parts), b""
                drawn_over |= {record.metric.step_metric} - {""}
                row = {
                    item.key or item.nested_key[0]: json.loads(item.value_json)
                    for item in record.history.item
                }
                if row:
                    found.append((row["step"], row["reward"]))
    return found, drawn_over


def test_steps_that_a_resumed_run_repeats_are_in_both_logs(tmp_path):
    pytest.importorskip("wandb")
    real_wandb(tmp_path, "auto")
    steps, drawn_over = history(tmp_path)
    assert drawn_over == {"step"}
    assert steps == [(0, 0.0), (1, 1.0), (2, 2.0), (3, 3.0), (2, 22.0), (3, 23.0)]
    assert [(line["step"], line["reward"]) for line in read_metrics(tmp_path)] == [
        *((0, 0.0), (1, 1.0), (2, 22.0), (3, 23.0))
    ]


def test_the_real_wandb_goes_offline_where_nobody_listens(tmp_path):
    pytest.importorskip("wandb")
    variables = {"WANDB_API_KEY": "a" * 40, "WANDB_BASE_URL": "http://127.0.0.1:9"}
    said = real_wandb(tmp_path, "auto", **variables)
    assert said.count("W&B cannot be used") == 2
    assert len(history(tmp_path)[0]) == 6


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a full disk is Linux's /dev/full")
def test_a_full_disk_names_the_file_and_what_to_do(tmp_path):
    logger = MetricsLogger(tmp_path, console=io.StringIO())
    logger._file.close()
    logger._file = open("/dev/full", "ab", buffering=0)  # noqa: SIM115
    with pytest.raises(OSError, match=r"metrics\.jsonl: No space left.*--run\.resume=true"):
        logger.log(0, {"reward": 1.0})
    logger.close()
