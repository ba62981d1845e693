"""Checkpoints are whole or absent, and a resumed run repeats the run that was not stopped."""

import json
import os
import shutil
import signal
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from support.builders import SIZE, make_task, write_manifest
from support.tiny_runs import SHAPE

from agents.algorithm.config import PARAGRPOConfig
from agents.config import AgentConfig
from agents.model.mini import build_mini
from agents.model.vlm import VisionLanguageModel
from train.common.errors import ConfigError
from train.common.metrics_file import read_metrics
from train.config.env import EnvConfig
from train.config.evaluation import EvalConfig
from train.config.learner import FaultConfig, LoraConfig, OptimizerConfig
from train.config.run import RunConfig, TrainConfig
from train.distributed.processes import Group, Processes
from train.learner import checkpoint, checksums, moments
from train.learner.guard import MARK, TooManyFaults
from train.learner.learner import Learner
from train.loop import launch
from train.loop.checks import AGENTS, check, last_saved, restarted
from train.loop.interrupt import Interrupt
from train.loop.launch import train
from train.loop.trainer import Trainer
from train.rollout import play as rollout
from train.rollout.difficulty import FILE
from train.rollout.starts import TaskOrder
from train.workers import lanes, rollout_workers
from train.workers.collector import Collector


def write(folder):
    (folder / "weights").write_text("w")


def save(run, step, **changes):
    given = {"write_model": write, "tensors": {"a": torch.arange(3)}, "state": {"step": step}}
    return checkpoint.save(run, step, **{**given, **changes})


def test_what_is_saved_is_what_is_loaded(tmp_path):
    folder = save(tmp_path, 7, state={"step": 7, "order": [2, 1]})
    assert folder == checkpoint.latest(tmp_path) == tmp_path / "checkpoints" / "step-000007"
    tensors, state = checkpoint.load(folder)
    assert tensors["a"].tolist() == [0, 1, 2]
    assert state == {"step": 7, "order": [2, 1]}
    assert (folder / "model" / "weights").read_text() == "w"


def test_the_newest_few_are_kept_and_a_step_can_be_saved_again(tmp_path):
    for step in (8, 9, 10, 10, 100):
        save(tmp_path, step, keep=3)
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == ["step-000009", "step-000010", "step-000100"]
    assert checkpoint.latest(tmp_path).name == "step-000100"


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failed_write_leaves_the_earlier_checkpoints_alone(tmp_path, error):
    def fail(folder):
        (folder / "half").write_text("x")
        raise error

    before = save(tmp_path, 1)
    with pytest.raises(type(error)):
        save(tmp_path, 2, write_model=fail)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == [before.name]
    assert checkpoint.load(before)[1] == {"step": 1}


def test_a_killed_write_is_neither_found_nor_in_the_way(tmp_path):
    leftover = tmp_path / "checkpoints" / ".step-000001.partial"
    leftover.mkdir(parents=True)
    (leftover / "junk").write_text("x")
    assert checkpoint.latest(tmp_path) is None
    assert not (save(tmp_path, 1) / "junk").exists()


@pytest.mark.parametrize("again", [2, 3])
def test_what_is_replaced_or_dropped_has_lost_its_name_before_anything_of_it_is_deleted(
    tmp_path, again
):
    """Killed while the old step 2 is deleted, which another has replaced, or step 1."""
    save(tmp_path, 1)
    save(tmp_path, 2)
    process = os.fork()
    if process == 0:

        def killed(path, **_):
            if any(Path(path).iterdir()):
                (Path(path) / "state.json").unlink()
                os.kill(os.getpid(), signal.SIGKILL)

        shutil.rmtree = killed
        save(tmp_path, again)
    assert os.waitpid(process, 0)[1] == signal.SIGKILL
    parent = tmp_path / "checkpoints"
    for folder in parent.glob("step-*"):
        checkpoint.load(folder)
    assert len([path for path in parent.iterdir() if path.name.startswith(".")]) == 1
    assert checkpoint.step_of(checkpoint.latest(tmp_path)) == again
    save(tmp_path, 4)
    names = sorted(path.name for path in parent.iterdir())
    assert names == [f"step-{again:06d}", "step-000004"]


def test_a_checkpoint_keeps_its_name_where_the_new_one_cannot_get_it(tmp_path, monkeypatch):
    rename = Path.rename

    def refuse(self, target):
        if self.name.endswith(".partial"):
            raise OSError(5, "Input/output error")
        return rename(self, target)

    before = save(tmp_path, 1, state={"step": 1, "old": True})
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", refuse)
        with pytest.raises(OSError, match="Input/output"):
            save(tmp_path, 1)
    assert [path.name for path in before.parent.iterdir()] == [before.name]
    assert checkpoint.load(before)[1]["old"]


def test_a_folder_that_lacks_a_part_is_not_the_newest_checkpoint(tmp_path):
    first, second = save(tmp_path, 1), save(tmp_path, 2)
    (second / "state.json").unlink()
    assert checkpoint.latest(tmp_path) == first
    save(tmp_path, 2)
    assert checkpoint.latest(tmp_path) == second


def test_a_folder_that_is_no_checkpoint_says_what_is_missing(tmp_path):
    folder = save(tmp_path, 1)
    (folder / "state.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"state\.json is missing"):
        checkpoint.load(folder)


def test_no_file_of_a_checkpoint_is_a_pickle(tmp_path):
    folder = save(tmp_path, 1)
    assert sorted(p.name for p in folder.iterdir()) == [
        "checksums.json",
        "model",
        "optimizer.safetensors",
        "state.json",
    ]


def test_the_optimizer_goes_on_where_it_stopped(tmp_path):
    def make():
        weights = [torch.nn.Parameter(torch.tensor([1.0, -2.0])), torch.nn.Parameter(torch.ones(1))]
        return weights, torch.optim.AdamW(weights, lr=0.1, betas=(0.8, 0.9))

    def turn(weights, optimizer):
        optimizer.zero_grad()
        sum((w**3).sum() for w in weights).backward()
        optimizer.step()

    weights, optimizer = make()
    turn(weights, optimizer)
    tensors, groups = (
        moments.optimizer_tensors(optimizer),
        moments.optimizer_groups(optimizer),
    )
    copies, other = make()
    for copy, weight in zip(copies, weights, strict=True):
        copy.data.copy_(weight.data)
    folder = save(tmp_path, 1, tensors=tensors, state={"optimizer": groups})
    tensors, state = checkpoint.load(folder)
    moments.restore_optimizer(other, tensors, state["optimizer"])
    for _ in range(3):
        turn(weights, optimizer)
        turn(copies, other)
    assert all(torch.equal(a, b) for a, b in zip(weights, copies, strict=True))


def test_every_pass_over_the_tasks_has_all_of_them():
    order = TaskOrder(5, np.random.default_rng(1))
    taken = [task for count in (2, 4, 4) for task in order.take(count)]
    assert sorted(taken[:5]) == sorted(taken[5:]) == [0, 1, 2, 3, 4]
    assert taken[:5] != taken[5:]


@pytest.fixture(scope="module")
def settings(clip, other_clip, tmp_path_factory):
    """Settings of a tiny run: 2 groups of 2, a few tokens a turn, a random model."""
    folder = tmp_path_factory.mktemp("trainer")
    tasks = [
        make_task(clip),
        make_task(other_clip, "shape", question="Which shape is it?"),
        make_task(clip, "other", question="Say another one?"),
    ]
    val = [replace(task, id=f"val-{task.id}", question=f"Then: {task.question}") for task in tasks]
    for path in (clip, other_clip):
        os.link(path, folder / os.path.basename(path))
    model = build_mini(folder / "mini", ["crop the video"] * 3, SHAPE)

    def make(name, **run):
        return TrainConfig(
            env=EnvConfig(
                tasks=write_manifest(folder / "tasks.jsonl", tasks, val), frame_size=SIZE,
                max_turns=1, max_crops=2, frames_per_crop=2,
                frame_budget={"kind": "choice", "values": [1, 2]},
            ),
            agent=AgentConfig(
                checkpoint=str(model), prompt_style="compact", temperature=1.0, max_new_tokens=8,
                answer_tokens=5, subagent_tokens=4,
            ),
            algorithm=PARAGRPOConfig(
                groups=2, group_size=2, kl_coefficient=0.01, epochs=2, minibatches=2,
            ),
            optimizer=OptimizerConfig(learning_rate=1e-3, warmup_steps=5),
            evaluation=EvalConfig(frame_budgets=(2,), num_envs=2, resamples=10),
            run=RunConfig(
                **{"name": name, "folder": str(folder / "runs"), "steps": 4, "wandb": "disabled",
                   "checkpoint_every": 0, "eval_every": 2, "eval_tasks": 2, **run}
            ),
        )  # fmt: skip

    return make


@pytest.fixture(scope="module", autouse=True)
def varied_rewards():
    """A random policy earns nothing; a reward made of its text gives every group a variance."""

    def play(env, agent, starts, progress=None):
        rollouts = rollout.play(env, agent, starts, progress)
        texts = ["".join(turn["completion"] for turn in one.turns) for one in rollouts]
        rewards = [float(sum(map(ord, text)) % 101) for text in texts]
        return [replace(one, reward=r) for one, r in zip(rollouts, rewards, strict=True)]

    with pytest.MonkeyPatch.context() as patch:
        for module in (rollout_workers, lanes):
            patch.setattr(module, "play", play)
        yield


def numbers(config):
    """What was logged, without clocks and counters that depend on caches."""
    left_out = ("time/", "frames_decoded", "frames_encoded_sampling", "staleness/")
    return [
        {k: v for k, v in step.items() if not k.startswith(left_out)}
        for step in read_metrics(config.run.path)
    ]


def weights(folder):
    return dict(VisionLanguageModel.load(folder).model.named_parameters())


@pytest.fixture(scope="module")
def whole(settings, varied_rewards):
    """A run that nothing stopped: its settings and the trained policy's folder."""
    config = settings("whole")
    return config, train(config)


def stop_in(monkeypatch, stage, call, error=KeyboardInterrupt):
    """Make the `call`-th call of a stage raise after it has done its work."""
    owner, method = {"collect": (Collector, "collect"), "update": (Learner, "update")}[stage]
    original = getattr(owner, method)
    count = {"calls": 0}

    def stopping(self, *args):
        result = original(self, *args)
        count["calls"] += 1
        if count["calls"] == call:
            if error is KeyboardInterrupt:
                os.kill(os.getpid(), signal.SIGINT)
            else:
                raise error
        return result

    monkeypatch.setattr(owner, method, stopping)


def test_training_changes_the_policy_and_logs_every_step(settings, whole):
    config, folder = whole
    assert folder == config.run.path / "checkpoints" / "step-000004" / "model"
    steps = read_metrics(config.run.path)
    assert [step["step"] for step in steps] == [0, 1, 2, 3]
    expected = {
        "loss", "kl", "entropy", "ratio", "clip_fraction", "behaviour_mismatch", "grad_norm",
        "reward", "reward/answer", "accuracy", "compliance", "calls", "groups/zero_variance",
        "frames_decoded", "frames_encoded", "frames_encoded_sampling", "time/collect",
        "time/update", "time/forward", "time/backward", "time/vision", "time/video",
        "time/decode", "time/step",
    }  # fmt: skip
    assert expected <= steps[0].keys()
    assert all(step["optimizer_steps"] == 4 and step["grad_norm"] > 0 for step in steps)
    before, after = weights(config.agent.checkpoint), weights(folder)
    assert any(not torch.equal(before[name], after[name]) for name in before)
    assert not torch.allclose(torch.tensor(steps[0]["kl"]), torch.tensor(steps[3]["kl"]))


def test_defect_24_the_policy_is_validated_during_training(whole):
    steps = read_metrics(whole[0].run.path)
    assert ["validation/accuracy" in step for step in steps] == [False, True, False, True]


@pytest.mark.parametrize("stage", ["collect", "update"])
def test_ctrl_c_saves_says_how_to_resume_and_the_resumed_run_is_the_same(
    settings, whole, monkeypatch, capsys, stage
):
    """Stopped while collecting (step 3 is undone) and right after an update (step 3 is done)."""
    config = settings(f"stopped-{stage}")
    with monkeypatch.context() as patch:
        stop_in(patch, stage, 3)
        with pytest.raises(SystemExit) as stopped:
            train(config)
    assert stopped.value.code == 130
    done = {"collect": 2, "update": 3}[stage]
    said = capsys.readouterr().out
    assert f"stopped after step {done}, saved" in said
    assert f"paravt train {config.run.path / 'config.yaml'} --run.resume=true" in said
    assert len(read_metrics(config.run.path)) == done

    resumed = train(settings(config.run.name, resume=True))
    assert numbers(config) == numbers(whole[0])
    one, other = weights(resumed), weights(whole[1])
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_killed_run_goes_on_from_its_last_checkpoint(settings, whole, monkeypatch):
    config = settings("killed", checkpoint_every=1)
    with monkeypatch.context() as patch:
        stop_in(patch, "collect", 4, RuntimeError("killed"))
        with pytest.raises(RuntimeError, match="killed"):
            train(config)
    train(settings("killed", checkpoint_every=1, resume=True))
    assert numbers(config) == numbers(whole[0])


FROZEN = {
    "tower": {"optimizer": OptimizerConfig(learning_rate=1e-3, freeze_vision=True)},
    "lora": {"lora": LoraConfig(rank=2, targets=("q_proj", "v_proj"))},
    "lora and a divergence in the reward": {
        "lora": LoraConfig(rank=2),
        "algorithm": PARAGRPOConfig(
            groups=2, group_size=2, kl_coefficient=0.01, kl_in="reward", minibatches=2
        ),
    },
}


@pytest.mark.parametrize("case", FROZEN)
def test_with_a_frozen_tower_the_resumed_run_is_the_same_too(settings, monkeypatch, case):
    """Features of older steps are not there after a stop, and are computed again either way."""

    def made(name, **run):
        return replace(settings(name, **run), **FROZEN[case])

    whole = made(f"whole {case}")
    folder = train(whole)
    config = made(f"stopped {case}")
    with monkeypatch.context() as patch:
        stop_in(patch, "update", 2)
        with pytest.raises(SystemExit):
            train(config)
    resumed = train(made(config.run.name, resume=True))
    assert numbers(config) == numbers(whole)
    encoded = [
        [step["frames_encoded_sampling"] for step in read_metrics(run.run.path)]
        for run in (config, whole)
    ]
    assert encoded[0] == encoded[1] and min(encoded[0]) > 0
    one, other = weights(resumed), weights(folder)
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("lanes", [1, 2])
def test_asynchronous_with_staleness_0_is_the_synchronous_run(settings, whole, lanes):
    config = settings(f"turns-{lanes}", asynchronous=True, staleness=0, lanes=lanes)
    folder = train(config)
    if lanes == 1:
        assert numbers(config) == numbers(whole[0])
        one, other = weights(folder), weights(whole[1])
        assert all(torch.equal(one[name], other[name]) for name in one)
    assert [step["staleness/max"] for step in read_metrics(config.run.path)] == [0.0] * 4


def test_asynchronous_updates_use_rollouts_within_the_bound_and_resume(settings, monkeypatch):
    config = settings("ahead", asynchronous=True, staleness=1)
    with monkeypatch.context() as patch:
        stop_in(patch, "update", 2)
        with pytest.raises(SystemExit):
            train(config)
    folder = train(settings("ahead", asynchronous=True, staleness=1, resume=True))
    steps = read_metrics(config.run.path)
    assert [step["step"] for step in steps] == [0, 1, 2, 3]
    assert [step["staleness/max"] for step in steps] == [0.0, 1.0, 0.0, 1.0]
    assert all(step["behaviour_mismatch_max"] >= 0 for step in steps)
    before, after = weights(config.agent.checkpoint), weights(folder)
    assert any(not torch.equal(before[name], after[name]) for name in before)


def test_a_run_in_the_way_and_nothing_to_resume_are_errors(settings, whole):
    with pytest.raises(ConfigError, match=r"holds a run.*--run\.resume=true"):
        train(whole[0])
    with pytest.raises(ConfigError, match="no checkpoint"):
        train(settings("never-started", resume=True))


def test_an_environment_that_cannot_be_made_is_the_callers_error(settings):
    config = settings("odd")
    with pytest.raises(ConfigError, match="reward preset 'parvat' is not one of paravt"):
        train(replace(config, env=replace(config.env, reward="parvat")))


def test_a_folder_that_is_no_checkpoint_of_ours_says_what_to_give(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"give a folder with a config\.json"):
        VisionLanguageModel.load(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}', encoding="utf-8")
    with pytest.raises(OSError, match="gpt2 checkpoint has no Qwen-VL vision tower"):
        VisionLanguageModel.load(tmp_path)


@pytest.fixture
def copied(settings, whole, request):
    """Settings that resume a copy of the whole run, and the copy's checkpoint."""
    config = settings(f"copy of {request.node.originalname}", resume=True)
    shutil.copytree(whole[0].run.path, config.run.path)
    return config, checkpoint.latest(config.run.path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tasks": 9}, "9 tasks, this set has 3"),
        ({"pool": "of others"}, r"as many tasks \(3\), but on others: resume with the same"),
    ],
)
def test_another_task_set_cannot_be_resumed(copied, changes, message):
    config, folder = copied
    path = folder / "state.json"
    state = json.loads(path.read_text())
    assert changes.keys() <= state.keys()
    path.write_text(json.dumps({**state, **changes}))
    checksums.write(folder)
    with pytest.raises(ConfigError, match=message):
        train(config)
    shutil.rmtree(config.run.path)


@pytest.mark.parametrize(
    "changes",
    [
        {
            "algorithm": PARAGRPOConfig(groups=2, group_size=2),
            "optimizer": OptimizerConfig(freeze_vision=True),
        },
        {"lora": LoraConfig(rank=2)},
    ],
)
def test_other_parameters_than_were_trained_cannot_be_resumed(copied, changes):
    meant = replace(copied[0].run, allow_changes=True)
    with pytest.raises(ConfigError, match=r"trained other parameters.*lora and freeze_vision set"):
        train(replace(copied[0], run=meant, **changes))
    shutil.rmtree(copied[0].run.path)


def test_generators_of_another_kind_give_way_to_fresh_seeds(copied, capsys):
    config, folder = copied
    tensors, _ = checkpoint.load(folder)
    tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    before = tensors["generator.sampling"]
    tensors["generator.sampling"] = torch.zeros(16, dtype=torch.uint8)  # as a GPU has it
    save_file(tensors, folder / checkpoint.TENSORS)
    checksums.write(folder)
    config = replace(config, run=replace(config.run, steps=5))
    train(config)
    said = capsys.readouterr().out
    assert said.count("fresh seeds in process 0: the checkpoint was saved with another engine") == 1
    after, _ = checkpoint.load(checkpoint.latest(config.run.path))
    assert after["generator.sampling"].shape == before.shape
    assert not torch.equal(after["generator.sampling"], before)
    assert torch.equal(after["generator.torch"], tensors["generator.torch"])
    train(config)
    assert "fresh seeds" not in capsys.readouterr().out


@pytest.mark.skipif(sys.platform != "linux", reason="reads what the kernel has mapped")
def test_a_resumed_run_does_not_hold_the_tensors_of_its_checkpoint(copied, monkeypatch):
    seen = []

    def run(self):
        maps = Path("/proc/self/maps").read_text().splitlines()
        mine = str(self.settings.path.resolve())
        seen.append(any(mine in one and checkpoint.TENSORS in one for one in maps))
        assert self.version == 4 and self.learner.optimizer.state_dict()["state"]
        return self.settings.path

    monkeypatch.setattr(Trainer, "run", run)
    train(copied[0])
    assert seen == [False]


def test_the_others_wait_patiently_for_a_checkpoint(copied, monkeypatch):
    waits = []
    monkeypatch.setattr(Processes, "barrier", lambda self, patient=False: waits.append(patient))
    config = copied[0]
    train(replace(config, run=replace(config.run, steps=5)))
    assert waits == [False, True, False]  # to begin, for the checkpoint, to end


def test_a_run_that_is_at_its_end_is_left_as_it_is(copied):
    config, folder = copied
    files = [path for path in folder.rglob("*") if path.is_file()]
    written = [path.stat().st_mtime_ns for path in files]
    assert train(config) == folder / checkpoint.MODEL
    assert [path.stat().st_mtime_ns for path in files] == written


def test_a_job_that_was_refused_is_not_let_in_when_torchrun_starts_it_again(settings, monkeypatch):
    def start(agent, count, steps):
        log = f"/logs/{agent}/attempt_{count}/0/error.json"
        monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", log)
        monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", str(count))
        return train(settings("job", steps=steps, eval_every=0))

    measured, pool = [], launch.task_pool
    monkeypatch.setattr(launch, "task_pool", lambda *a: [measured.append(a[-1]), pool(*a)][1])
    path = settings("job").run.path
    start("none_a", 0, steps=1)
    kept = (path / "config.yaml").read_text()
    for count in (0, 1):
        with pytest.raises(ConfigError, match="holds a run"):
            start("none_b", count, steps=9)
    assert (path / "config.yaml").read_text() == kept
    start("none_a", 1, steps=2)  # the job that was let in
    assert len(read_metrics(path)) == 2
    shutil.rmtree(path / "checkpoints")
    start("none_a", 2, steps=1)  # it failed before its first checkpoint
    shutil.rmtree(path / "checkpoints")
    (path / FILE).touch()
    start("none_a", 3, steps=1)  # it has pass rates already
    assert measured == [False, True, False, True]
    monkeypatch.delenv("TORCHELASTIC_RESTART_COUNT")
    with pytest.raises(ConfigError, match="holds a run"):
        train(settings("job", steps=3))


def test_a_run_that_faults_ended_is_started_again_by_a_person_only(settings, monkeypatch):
    def start(agent, count, faults=None, **run):
        log = f"/logs/{agent}/attempt_{count}/0/error.json"
        monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", log)
        monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", str(count))
        config = settings("faulty", eval_every=0, **run)
        return train(replace(config, faults=faults or FaultConfig()))

    mark = settings("faulty").run.path / MARK
    start("none_a", 0, steps=1)
    with pytest.raises(TooManyFaults, match="2 times in a row") as ended:
        start("none_a", 1, FaultConfig(in_a_row=2, explode=1e-12), steps=2)
    for count in (2, 3):
        with pytest.raises(ConfigError) as refused:
            start("none_a", count, steps=2)
        assert str(refused.value) == f"{ended.value}; then resume with --run.resume=true"
    with pytest.raises(ConfigError, match="holds a run"):
        start("none_b", 0, steps=2)
    assert mark.exists()
    start("none_b", 0, steps=2, resume=True)
    assert not mark.exists()
    start("none_b", 1, steps=3, resume=True)
    assert len(read_metrics(mark.parent)) == 3


def test_more_lanes_than_groups_are_refused(settings):
    with pytest.raises(ConfigError, match=r"run\.lanes=3: each process plays 2 of algorithm"):
        check(settings("lanes", lanes=3), Processes(), None)
    two = Processes(Group(0, 2))
    with pytest.raises(ConfigError, match=r"run\.lanes=2: each process plays 1 of .* at most 1"):
        check(settings("lanes", lanes=2), two, None)
    check(settings("lanes", lanes=2), Processes(), None)


def test_one_agent_that_was_let_in_is_enough(tmp_path):
    assert not restarted(tmp_path, ["a"])
    (tmp_path / AGENTS).write_text('["a", "b"]')
    assert restarted(tmp_path, ["b", "new"])
    assert not restarted(tmp_path, ["new"]) and not restarted(tmp_path, [])
    (tmp_path / AGENTS).write_text('["a"')
    assert not restarted(tmp_path, ["a"])


def test_processes_that_see_different_checkpoints_stop(tmp_path):
    class Told(Processes):
        """Hears from two others that have seen nothing."""

        def gather(self, value):
            return [value, "none", "none"]

    assert last_saved(tmp_path, Told(Group(0, 3))) is None
    save(tmp_path, 7)
    with pytest.raises(ConfigError, match=r"step-000007 \(process 0\); none \(process 1, 2\); is"):
        last_saved(tmp_path, Told(Group(0, 3)))


@pytest.fixture
def default_interrupt():
    """Ctrl-C as a terminal has it; a test run in the background ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_interrupt_waits_for_the_release_and_a_second_one_does_not(default_interrupt):
    with Interrupt() as interrupt:
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        interrupt.hold()
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            interrupt.release()
        interrupt.release()
        assert not interrupt.forced
        interrupt.hold()
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        assert interrupt.forced
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize(
    ("lines", "split", "message"),
    [
        ("none", "val", r"3 of its 3 tasks are trained on .*name no split.*run\.eval_split, or"),
        ("train", "val", r"split 'val'; it has train.*run\.eval_every=0"),
        ("both", "train", r"3 of its 3 tasks are trained on"),
    ],
)
def test_the_tasks_that_are_trained_on_are_no_validation(
    settings, tmp_path, monkeypatch, lines, split, message
):
    """Found before a policy is loaded."""
    config = settings("odd", eval_split=split)
    rows = [json.loads(line) for line in Path(config.env.tasks).read_text().splitlines()]
    if lines != "both":
        kept = [row for row in rows if row["split"] == "train"]
        rows = [row | {"split": None if lines == "none" else "train"} for row in kept]
    manifest = tmp_path / "tasks.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    root = str(Path(config.env.tasks).parent)
    env = replace(config.env, tasks=str(manifest), tasks_kwargs={"root": root})
    monkeypatch.setattr(launch, "_learner", lambda *given: pytest.fail("a policy was loaded"))
    with pytest.raises(ConfigError, match=message):
        train(replace(config, env=env, run=replace(config.run, name=f"odd {lines}")))


def test_rows_that_are_left_out_of_training_are_said(settings, tmp_path, capsys):
    config = settings("left out", eval_every=0, steps=1)
    manifest = tmp_path / "tasks.jsonl"
    manifest.write_text(Path(config.env.tasks).read_text() + "not a task\n")
    given = {"root": str(Path(config.env.tasks).parent), "strict": False}
    train(replace(config, env=replace(config.env, tasks=str(manifest), tasks_kwargs=given)))
    said = capsys.readouterr().out
    assert f"paravt: 1 row is no task, left out and counted nowhere: {manifest}, line 7" in said
