"""A run's folder in other people's hands: in use, changed, broken, full, terminated."""

import json
import os
import resource
import shlex
import shutil
import signal
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
import yaml
from safetensors.torch import save_file
from support.builders import make_task, write_manifest
from support.tiny_runs import SHAPE, tiny_settings, varied, with_run

from agents.algorithm.config import PARAGRPOConfig
from train import cli
from train.common.errors import ConfigError
from train.common.lock import folder_lock
from train.common.metrics_file import read_metrics
from train.config import recipe
from train.config.evaluation import EvalConfig
from train.distributed.exclusive import exclusive
from train.distributed.processes import Group, Processes
from train.learner import checkpoint, checksums
from train.learner.guard import TooManyFaults
from train.loop import kept
from train.loop.interrupt import Interrupt
from train.loop.launch import train
from train.loop.observers import Validation
from train.loop.state import RunState
from train.workers import lanes, rollout_workers


def save(run, step, **changes):
    def write(folder):
        save_file({"w": torch.arange(4.0)}, folder / "model.safetensors")

    given = {"write_model": write, "tensors": {"a": torch.arange(3)}, "state": {"step": step}}
    return checkpoint.save(run, step, **{**given, **changes})


def steps(run):
    return sorted(int(path.name[5:]) for path in (run / "checkpoints").glob("step-*"))


@pytest.mark.parametrize("name", ["model/model.safetensors", "optimizer.safetensors", "state.json"])
def test_one_flipped_bit_is_found_and_the_last_whole_checkpoint_named(tmp_path, name):
    first, second, third = (save(tmp_path, step, keep=3) for step in (1, 2, 3))
    checkpoint.check_newest(tmp_path)
    for folder in (second, third):
        path = folder / name
        data = bytearray(path.read_bytes())
        data[-2] ^= 1
        path.write_bytes(bytes(data))
    with pytest.raises(ConfigError) as refused:
        checkpoint.check_newest(tmp_path)
    said = str(refused.value)
    assert said.startswith(f"{third} is broken: {name} differs from its checksum. ")
    assert f"The last whole one is {first}: to resume from it, `mkdir -p" in said
    assert os.system(said.split("`")[1]) == 0
    checkpoint.check_newest(tmp_path)
    assert checkpoint.latest(tmp_path) == first


def test_a_checkpoint_that_lost_a_part_is_told_and_a_whole_one_with_nothing_before_it(tmp_path):
    checkpoint.check_newest(tmp_path)
    folder = save(tmp_path, 1)
    shutil.rmtree(folder / "model")
    with pytest.raises(ConfigError, match=r"model is missing; no other one is whole: start anew"):
        checkpoint.check_newest(tmp_path)


def test_an_older_checkpoint_has_no_checksums_but_its_state_is_read(tmp_path):
    folder = save(tmp_path, 1)
    (folder / checksums.FILE).unlink()
    checkpoint.check_newest(tmp_path)
    (folder / "state.json").write_text("{")
    assert checkpoint.problems(folder) == ["state.json is not JSON"]
    (folder / checksums.FILE).write_text("[1]")
    assert checkpoint.problems(folder) == ["checksums.json is no list of checksums"]


def test_a_file_is_hashed_in_pieces_that_all_count(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(bytes(range(10)))
    whole = checksums.digest(path, piece=4)
    assert whole == checksums.digest(path, piece=4) != checksums.digest(path, piece=5)
    for place in range(10):
        data = bytearray(range(10))
        data[place] ^= 128
        path.write_bytes(bytes(data))
        assert checksums.digest(path, piece=4) != whole


def test_a_folder_that_somebody_renamed_is_not_in_the_way(tmp_path):
    folder = save(tmp_path, 1)
    shutil.copytree(folder, folder.with_name("step-000002.bak"))
    assert checkpoint.latest(tmp_path) == folder
    checkpoint.check_newest(tmp_path)


def test_what_is_spared_stays_beside_the_newest(tmp_path):
    for step in range(1, 6):
        save(tmp_path, step, keep=2, spare=(2,))
    assert steps(tmp_path) == [2, 4, 5]
    save(tmp_path, 6, keep=1)
    assert steps(tmp_path) == [6]


def full(limit):
    """No file may be larger than `limit` bytes: a full disk, as far as a test can have one."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    return before


@pytest.mark.parametrize("limit", [0, 40])
def test_a_full_disk_is_one_line_that_names_the_checkpoint(tmp_path, limit):
    first = save(tmp_path, 1)
    before = full(limit)
    try:
        with pytest.raises(OSError) as failed:
            save(tmp_path, 2, write_model=lambda folder: None)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    said = str(failed.value)
    assert f"cannot write the checkpoint {tmp_path / 'checkpoints' / 'step-000002'}: " in said
    assert "File too large" in said and said.endswith("then resume with --run.resume=true")
    assert "\n" not in said
    assert [path.name for path in first.parent.iterdir()] == [first.name]


def test_too_many_faults_are_one_line(monkeypatch, capsys):
    def fail(parser, words):
        raise TooManyFaults("the gradient norm is nan; nothing was updated, 3 times in a row")

    monkeypatch.setitem(cli.COMMANDS, "train", cli.Command("A command.", fail))
    assert cli.main(["train"]) == 2
    assert capsys.readouterr().err.startswith("paravt: error: the gradient norm is nan; nothing")

    def bug(parser, words):
        raise ZeroDivisionError("a bug")

    monkeypatch.setitem(cli.COMMANDS, "train", cli.Command("A command.", bug))
    with pytest.raises(ZeroDivisionError):
        cli.main(["train"])


def test_all_processes_stop_where_another_job_has_the_folder(tmp_path):
    class Follower(Processes):
        leads = False

        def broadcast(self, value, source, among=None):
            assert value == ""
            return "runs/x is in use by process 7 on there"

    with pytest.raises(ConfigError, match="in use by process 7"):
        exclusive(tmp_path, Follower(Group(1, 2))).__enter__()
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def terminated():
    """SIGTERM as a shell has it."""
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield lambda: signal.raise_signal(signal.SIGTERM)
    signal.signal(signal.SIGTERM, before)


def test_sigterm_waits_for_the_release_however_often_it_comes(terminated):
    with Interrupt(terminate=True) as interrupt:
        with pytest.raises(KeyboardInterrupt):
            terminated()
        assert interrupt.status == 143
        interrupt.hold()
        terminated()
        terminated()
        assert not interrupt.forced
        with pytest.raises(KeyboardInterrupt):
            interrupt.release()
        interrupt.ending()
        terminated()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_ctrl_c_after_sigterm_does_not_wait(terminated):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with Interrupt(terminate=True) as interrupt:
        interrupt.hold()
        terminated()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        assert interrupt.forced and interrupt.status == 143
    signal.signal(signal.SIGINT, before)


def test_sigterm_is_left_to_the_watchdog_of_several_processes():
    before = signal.getsignal(signal.SIGTERM)
    with Interrupt():
        assert signal.getsignal(signal.SIGTERM) is before


@pytest.fixture(scope="module")
def settings(clip, other_clip, tmp_path_factory):
    """Settings of a run of a few tokens: 2 groups of 2 a step."""
    folder = tmp_path_factory.mktemp("folders")
    config = tiny_settings(folder, (clip, other_clip), SHAPE)
    trained = [make_task(clip), make_task(other_clip, "shape", question="Which shape is it?")]
    validated = [make_task(clip, "new", question="Which one is new?")]
    tasks = write_manifest(folder / "tasks.jsonl", trained, validated)
    config.env = replace(config.env, tasks=tasks)
    config.algorithm = PARAGRPOConfig(groups=2, group_size=2)
    config.evaluation = EvalConfig(frame_budgets=(1,), num_envs=2, resamples=10)
    config.run = replace(config.run, steps=2, checkpoint_every=0)
    return config


@pytest.fixture(autouse=True)
def varied_rewards(monkeypatch):
    for module in (rollout_workers, lanes):
        monkeypatch.setattr(module, "play", varied)


@pytest.fixture(scope="module")
def whole(settings):
    """A finished run of two steps."""
    config = with_run(settings, "whole", steps=2)
    with pytest.MonkeyPatch.context() as patch:
        for module in (rollout_workers, lanes):
            patch.setattr(module, "play", varied)
        train(config)
    return config


@pytest.fixture
def resumed(whole, tmp_path):
    """Settings that resume a copy of the finished run."""
    config = with_run(whole, "resumed", folder=str(tmp_path), resume=True, steps=3)
    shutil.copytree(whole.run.path, config.run.path)
    return config


def test_a_folder_in_use_is_refused_before_anything_is_loaded(settings, tmp_path):
    config = with_run(settings, "busy")
    child = os.fork()
    if child == 0:
        try:
            with folder_lock(config.run.path):
                (tmp_path / "held").touch()
                signal.pause()
        finally:
            os._exit(1)  # never a second run of the tests, whatever ended the wait
    try:
        while not (tmp_path / "held").exists():
            time.sleep(0.05)
        with pytest.raises(ConfigError, match=f"is in use by process {child} on"):
            train(config)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert not (config.run.path / "metrics.jsonl").exists()


def test_other_settings_are_refused_by_name_and_taken_where_they_are_meant(resumed, capsys):
    path = resumed.run.path / "config.yaml"
    text = path.read_text()
    other = replace(resumed, optimizer=replace(resumed.optimizer, learning_rate=2e-3))
    with pytest.raises(ConfigError) as refused:
        train(other)
    said = str(refused.value)
    assert "optimizer.learning_rate: 0.001 there, 0.002 here" in said
    assert "--run.allow_changes=true" in said and "--run.resume=true" in said
    assert path.read_text() == text
    train(replace(other, run=replace(other.run, allow_changes=True)))
    assert "resuming with other settings: optimizer.learning_rate: 0.001" in capsys.readouterr().out
    now = yaml.safe_load(path.read_text())
    assert now["optimizer"]["learning_rate"] == 0.002 and now["run"]["allow_changes"] is False
    assert (resumed.run.path / "config-until-000002.yaml").read_text() == text


def test_where_and_how_long_a_run_runs_may_change(resumed):
    other = replace(
        resumed,
        run=replace(resumed.run, steps=3, threads=2, checkpoint_every=1, keep_checkpoints=5),
        env=replace(resumed.env, video_workers=1),
        packing=replace(resumed.packing, micro_batch_tokens=4096),
        parallel=replace(resumed.parallel, timeout=100.0),
        evaluation=replace(resumed.evaluation, seed=3),
        agent=replace(resumed.agent, feature_cache_gib=1.0),
    )
    assert kept.changes(resumed.run.path, other) == []
    train(other)
    assert len(read_metrics(resumed.run.path)) == 3


def test_a_run_whose_rate_falls_to_its_end_has_a_fixed_length(settings, tmp_path):
    falling = replace(settings, optimizer=replace(settings.optimizer, decay="cosine"))
    recipe.save(with_run(falling, "falls", steps=4), tmp_path)
    longer = with_run(falling, "falls", steps=6)
    assert kept.changes(tmp_path, longer) == ["run.steps: 4 there, 6 here"]
    until = replace(falling, optimizer=replace(falling.optimizer, decay_steps=3))
    recipe.save(with_run(until, "falls", steps=4), tmp_path)
    assert kept.changes(tmp_path, with_run(until, "falls", steps=6)) == []


@pytest.mark.parametrize(
    ("group", "key", "value"),
    [
        ("env", "max_turns", 2), ("env", "reward", "longvila"), ("agent", "temperature", 0.5),
        ("algorithm", "group_size", 4), ("optimizer", "weight_decay", 0.5), ("run", "seed", 9),
        ("selection", "max_tokens", 9), ("lora", "rank", 2), ("run", "asynchronous", True),
        ("agent", "checkpoint", "elsewhere"),
    ],
)  # fmt: skip
def test_every_group_that_decides_is_compared(whole, group, key, value):
    other = replace(whole, **{group: replace(getattr(whole, group), **{key: value})})
    found = kept.changes(whole.run.path, other)
    assert [line.partition(":")[0] for line in found] == [f"{group}.{key}"]


def test_a_run_whose_settings_are_gone_is_told(resumed):
    (resumed.run.path / "config.yaml").write_text("run: {stepz: 3}")
    with pytest.raises(ConfigError, match=r"cannot be read \(unknown key 'run\.stepz'.*allow_ch"):
        train(resumed)
    (resumed.run.path / "config.yaml").unlink()
    with pytest.raises(ConfigError, match="the settings of the run are unknown"):
        train(resumed)


def test_a_broken_checkpoint_ends_the_resume_before_anything_is_loaded(resumed):
    folder = checkpoint.latest(resumed.run.path)
    (path,) = (folder / "model").glob("*.safetensors")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(ConfigError, match=r"model/model\.safetensors differs from its checksum"):
        train(resumed)


def test_the_best_by_validation_is_saved_at_its_step_and_kept(settings, monkeypatch):
    scores = iter([0.1, 0.5, 0.5, 0.2, 0.4, 0.6])

    def score(self, step):
        return {"validation/accuracy": next(scores)}

    monkeypatch.setattr(Validation, "after_update", score)
    config = with_run(
        settings, "best", steps=5, checkpoint_every=3, eval_every=1, eval_tasks=1,
        keep_checkpoints=1,
    )  # fmt: skip
    folder = train(config)
    assert steps(config.run.path) == [2, 5]
    state = json.loads((folder.parent / "state.json").read_text())
    assert state["best"] == [2, 0.5]
    again = with_run(config, "best", steps=6, resume=True)
    assert json.loads((train(again).parent / "state.json").read_text())["best"] == [6, 0.6]
    assert steps(config.run.path) == [6]


def test_a_run_that_is_terminated_saves_and_says_how_to_go_on(settings, monkeypatch, capsys):
    collect = rollout_workers.RolloutWorkers.play
    calls = []

    def terminated(self, *args, **kwargs):
        calls.append(1)
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return collect(self, *args, **kwargs)

    write = RunState.save

    def terminated_again(self, version):
        os.kill(os.getpid(), signal.SIGTERM)  # a launcher that passes it on, too
        return write(self, version)

    monkeypatch.setattr(rollout_workers.RolloutWorkers, "play", terminated)
    monkeypatch.setattr(RunState, "save", terminated_again)
    config = with_run(settings, "terminated", steps=4)
    with pytest.raises(SystemExit) as stopped:
        train(config)
    assert stopped.value.code == 143
    said = capsys.readouterr().out
    assert "stopped after step 1, saved" in said and "--run.resume=true" in said
    assert checkpoint.step_of(checkpoint.latest(config.run.path)) == 1


def test_processes_that_only_follow_hear_what_is_wrong(tmp_path):
    from train.loop.checks import check_saved

    class Follower(Processes):
        leads = False

        def broadcast(self, value, source, among=None):
            assert among.size == 2
            return "step-000002 is broken"

    config = SimpleNamespace(run=SimpleNamespace(path=tmp_path))
    with pytest.raises(ConfigError, match="step-000002 is broken"):
        check_saved(config, Follower(Group(1, 2)))


def test_a_finished_run_says_where_the_policy_is_and_what_to_type_next(
    settings, monkeypatch, capsys, tmp_path
):
    scores = iter([0.25, 0.125])
    monkeypatch.setattr(
        Validation, "after_update", lambda *_: {"validation/accuracy": next(scores)}
    )
    config = with_run(settings, "said twice", steps=2, eval_every=1, eval_tasks=1)
    recipe.save(config, tmp_path)
    path = config.run.path
    assert cli.main(["train", str(tmp_path / "config.yaml")]) == 0
    said = capsys.readouterr().out.splitlines()
    place = said.index(f"trained: {path}/checkpoints/step-000002/model")
    assert said[place + 1] == f"best by validation (0.250): {path}/checkpoints/step-000001/model"
    evaluate, view, report = (shlex.split(line, comments=True) for line in said[place + 3 :])
    assert evaluate[0] == report[0] == "paravt" and view == ["paravt", "view", str(path)]
    fast = ["--evaluation.split=val", "--evaluation.num_envs=2", "--evaluation.resamples=10"]
    assert cli.main([*evaluate[1:], *fast]) == 0  # as it stands, but for the size
    assert (path / "after.json").is_file()
    assert cli.main(report[1:]) == 0
    assert f"page: {path}/report.html\n" in capsys.readouterr().out
    monkeypatch.setenv("RANK", "1")
    assert cli.main(["train", str(path / "config.yaml"), "--run.resume=true"]) == 0
    assert "trained:" not in capsys.readouterr().out


def test_a_best_checkpoint_that_is_gone_is_not_named(tmp_path):
    folder = save(tmp_path, 3, state={"step": 3, "best": [1, 0.5]})
    assert checkpoint.best_of(folder) is None
    best = save(tmp_path, 1)
    assert checkpoint.best_of(folder) == (best / "model", 0.5)
    assert checkpoint.best_of(best) is None
