"""Loggers beside `metrics.jsonl`: W&B and TensorBoard, asked for in the settings, each may fail."""

import json
import os
import struct
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from train.common.errors import ConfigError
from train.common.metrics_file import read_metrics
from train.config.run import RunConfig
from train.loop.metrics import MetricsLogger
from train.loop.tensorboard import FOLDER, start_tensorboard
from train.loop.trackers import Tracker, start_trackers
from train.loop.tracking import WandbRun, start_wandb


class FakeWandb(SimpleNamespace):
    def __init__(self):
        super().__init__(calls=[], Settings=dict)

    def init(self, **settings):
        self.calls.append(settings)
        nothing = dict.fromkeys(("define_metric", "log", "finish"), lambda *a, **k: None)
        return SimpleNamespace(**nothing)


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
    start_wandb(RunConfig(wandb=mode), tmp_path, {"a": 1})
    start_wandb(RunConfig(wandb=mode), tmp_path, {"a": 1})
    assert [call["mode"] for call in fake.calls] == [started, started]
    assert fake.calls[0]["id"] == fake.calls[1]["id"]
    assert fake.calls[0]["config"] == {"a": 1}
    told = [fake.calls[0][name] for name in ("project", "entity", "tags")]
    assert told == ["paravt", None, None]


def test_project_entity_and_tags_are_settings(tmp_path, monkeypatch):
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    tags = ("mini", "two seeds")
    run = RunConfig(wandb="offline", wandb_project="films", wandb_entity="lab", wandb_tags=tags)
    start_wandb(run, tmp_path, {})
    told = [fake.calls[0][name] for name in ("project", "entity", "tags")]
    assert told == ["films", "lab", ["mini", "two seeds"]]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"wandb_project": "a/b"}, r"wandb_project = 'a/b': a name without"),
        ({"wandb_project": ""}, "wandb_project = ''"),
        ({"wandb_tags": ("fine", "")}, "wandb_tags holds '': W&B takes 1 to 64"),
        ({"wandb_tags": ("x" * 65,)}, "wandb_tags holds 'xxx"),
    ],
)
def test_what_wandb_would_refuse_later_is_refused_at_once(wrong, message):
    with pytest.raises(ValueError, match=message):
        RunConfig(**wrong)


def test_wandb_online_without_a_key_is_refused_rather_than_asked_for(tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setitem(sys.modules, "wandb", FakeWandb())
    with pytest.raises(ConfigError, match="WANDB_API_KEY"):
        start_wandb(RunConfig(wandb="online"), tmp_path, {})


def test_wandb_that_is_not_installed_is_named_unless_disabled(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ConfigError, match=r"--run\.wandb=disabled"):
        start_wandb(RunConfig(wandb="offline"), tmp_path, {})
    assert start_wandb(RunConfig(wandb="disabled"), tmp_path, {}) is None


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
    assert start_wandb(RunConfig(wandb="auto"), tmp_path, {}) is not None
    assert [call["mode"] for call in fake.calls] == ["online", "teardown", "offline"]
    assert fake.calls[0]["settings"]["init_timeout"] <= 30
    said = capsys.readouterr().out
    assert said.count("\n") == 1
    assert "connection refused): logging offline; `wandb sync " in said
    with pytest.raises(ConfigError, match=r"connection refused\): --run\.wandb=offline"):
        start_wandb(RunConfig(wandb="online"), tmp_path, {})


def test_wandb_that_fails_later_is_one_line_and_training_goes_on(tmp_path, capsys):
    def lost(*_):
        raise BrokenPipeError("the service is gone")

    run = SimpleNamespace(define_metric=lambda *a, **k: None, log=lost, finish=lost)
    tracker = Tracker(WandbRun(run), tmp_path)
    tracker.log(0, {"reward": 1.0})
    tracker.log(1, {"reward": 1.0})
    tracker.close()
    said = capsys.readouterr().out
    assert said.count("W&B failed and gets no more steps (the service is gone)") == 1
    assert said.count("\n") == 1


OFFLINE = """
import io, sys
from pathlib import Path
from train.config.run import RunConfig
from train.loop import tracking
from train.loop.metrics import MetricsLogger
from train.loop.trackers import start_trackers
tracking.PATIENCE = 3.0
run = RunConfig(wandb=sys.argv[2], wandb_project="films", wandb_tags=("first", "second"))
for first in (0, 2):
    to = {"first_step": first, "console": io.StringIO()}
    to["trackers"] = start_trackers(run, Path(sys.argv[1]), {}, first)
    with MetricsLogger(sys.argv[1], **to) as logger:
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
    """What W&B's offline files hold: (step, reward) in order, and what the run said."""
    pb = pytest.importorskip("wandb.proto.wandb_internal_pb2")
    found, drawn_over, project = [], set(), set()
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
                project |= {(record.run.project, *record.run.tags)} - {("",)}
                row = {
                    item.key or item.nested_key[0]: json.loads(item.value_json)
                    for item in record.history.item
                }
                if row:
                    found.append((row["step"], row["reward"]))
    return found, drawn_over, project


def test_steps_that_a_resumed_run_repeats_are_in_both_logs(tmp_path):
    pytest.importorskip("wandb")
    real_wandb(tmp_path, "auto")
    steps, drawn_over, project = history(tmp_path)
    assert drawn_over == {"step"} and project == {("films", "first", "second")}
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

# --- TensorBoard ------------------------------------------------------------------------------


def scalars(folder):
    """What TensorBoard shows of a run: (step, value) of each name."""
    module = "tensorboard.backend.event_processing.event_accumulator"
    shown = pytest.importorskip(module).EventAccumulator(str(folder / FOLDER)).Reload()
    return {
        name: [(one.step, one.value) for one in shown.Scalars(name)]
        for name in shown.Tags()["scalars"]
    }


def test_tensorboard_shows_each_step_once_though_a_run_was_resumed(tmp_path, capsys):
    pytest.importorskip("tensorboard")
    run = RunConfig(wandb="disabled", tensorboard=True)
    for first in (0, 2):
        (tracker,) = start_trackers(run, tmp_path / "run", {}, first)
        for step in range(first, 4):
            tracker.log(step, {"reward/answer": 10.0 * first + step, "loss": 0.5})
        tracker.close()
    assert scalars(tmp_path / "run") == {
        "reward/answer": [(0, 0.0), (1, 1.0), (2, 22.0), (3, 23.0)],
        "loss": [(0, 0.5), (1, 0.5), (2, 0.5), (3, 0.5)],
    }


def test_tensorboard_has_a_step_on_disk_before_the_next(tmp_path):
    pytest.importorskip("tensorboard")
    writer = start_tensorboard(tmp_path)
    writer.log(0, {"loss": 0.25})
    assert scalars(tmp_path) == {"loss": [(0, 0.25)]}
    writer.close()


def test_tensorboard_that_is_not_installed_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ConfigError, match=r"pip install 'paravt\[tensorboard\]'"):
        start_trackers(RunConfig(wandb="disabled", tensorboard=True), tmp_path, {})


def test_no_tracker_is_asked_for_by_default_but_wandb(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", FakeWandb())
    assert start_trackers(RunConfig(wandb="disabled"), tmp_path, {}) == []
    assert len(start_trackers(RunConfig(wandb="offline"), tmp_path, {})) == 1


def test_one_tracker_that_fails_leaves_the_others(tmp_path, capsys):
    class Kept:
        name = "kept"

        def __init__(self, room):
            self.room, self.rows, self.closed = room, [], False

        def log(self, step, metrics):
            if step >= self.room:
                raise OSError("no space left")
            self.rows.append((step, metrics))

        def close(self):
            self.closed = True

    full, whole = Kept(1), Kept(9)
    trackers = [Tracker(full, tmp_path), Tracker(whole, tmp_path)]
    with MetricsLogger(tmp_path, trackers=trackers) as logger:
        for step in range(3):
            logger.log(step, {"loss": step / 2})
    assert full.rows == [(0, {"loss": 0.0})] and not full.closed
    assert whole.rows == [(step, {"loss": step / 2}) for step in range(3)] and whole.closed
    assert capsys.readouterr().out.count("kept failed and gets no more steps (no space left)") == 1
