"""Faults that are injected: a bad gradient, a dead process, a stuck one, one that fails."""

import os
import re
import signal
import time
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.distributed as dist
from support.gloo_processes import CONTEXT, free_port, preload, run
from support.learning import ONE_TURN, SHAPE, config, make_batch
from support.rollouts import rollout as played
from support.tiny_runs import SHAPE as TINY

import train.distributed.processes
from agents.model.mini import build_mini
from agents.model.vlm import VisionLanguageModel
from train.common.metrics_file import read_metrics
from train.config.learner import FaultConfig
from train.config.parallel import ParallelConfig
from train.config.run import RunConfig, TrainConfig
from train.config.selection import SelectionConfig
from train.distributed.processes import ALONE, GRACE, join
from train.distributed.watchdog import EXIT, Watchdog
from train.learner import checkpoint
from train.learner.guard import FaultGuard, TooManyFaults, load, why_stopped
from train.learner.learner import Learner
from train.learner.meter import Meter
from train.loop import launch
from train.packing.samples import Sample
from train.rollout import difficulty
from train.rollout import play as rollout
from train.rollout.difficulty import task_pool
from train.rollout.starts import Starts
from train.workers import lanes, rollout_workers
from train.workers.collector import Collector

PATIENCE = 2.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    words = ["where does the red circle blink"] * 4
    return build_mini(tmp_path_factory.mktemp("mini"), words, SHAPE)


@pytest.fixture
def vlm(folder):
    return VisionLanguageModel.load(folder)


def poisoned(vlm):
    batch = make_batch(vlm, ONE_TURN, frames=True, subagents=True)
    batch.advantages[0][0] = np.nan
    return batch


def test_a_bad_step_is_skipped_and_a_good_one_starts_the_count_again(vlm, tmp_path, capsys):
    learner = Learner(vlm, config(faults=FaultConfig(in_a_row=2), folder=tmp_path))
    before = [p.clone() for p in vlm.model.parameters()]
    for _ in range(2):
        metrics = learner.update(poisoned(vlm))
        assert (metrics["optimizer_steps"], metrics["optimizer_steps_skipped"]) == (0, 1)
        assert all(torch.equal(p, b) for p, b in zip(vlm.model.parameters(), before, strict=True))
        assert "step skipped: the gradient norm is nan; its batch is in" in capsys.readouterr().out
        good = learner.update(make_batch(vlm, ONE_TURN))
        assert (good["optimizer_steps"], good["optimizer_steps_skipped"]) == (1, 0)
        before = [p.clone() for p in vlm.model.parameters()]
    learner.update(poisoned(vlm))
    assert why_stopped(tmp_path) == ""
    with pytest.raises(TooManyFaults, match="is nan; nothing was updated, 2 times in a row") as end:
        learner.update(poisoned(vlm))
    assert why_stopped(tmp_path) == str(end.value)


def test_a_dumped_batch_can_be_replayed(vlm, tmp_path):
    batch = make_batch(vlm, ONE_TURN, frames=True, subagents=True)
    limit = FaultConfig(explode=1e-9)
    learner = Learner(vlm, config(faults=limit, folder=tmp_path))
    assert learner.update(batch)["optimizer_steps_skipped"] == 1
    samples = load(tmp_path / "skipped" / "step-00000")
    assert len(samples) == len(batch.trajectories)
    for sample, one, advantages in zip(samples, batch.trajectories, batch.advantages, strict=True):
        assert np.array_equal(sample.trajectory.branch_ids, one.branch_ids)
        assert sample.trajectory.kind == one.kind
        assert np.array_equal(sample.advantages, advantages)
        for name in ("prompt_images", "branch_images"):
            pairs = zip(getattr(sample.trajectory, name), getattr(one, name), strict=True)
            assert all(np.array_equal(a, b) for a, b in pairs)

    def gradient(samples):
        learner.optimizer.zero_grad()
        learner.accumulate(samples, Meter())
        return torch.cat([p.grad.flatten() for p in learner.parameters if p.grad is not None])

    original = [Sample(t, a) for t, a in zip(batch.trajectories, batch.advantages, strict=True)]
    assert torch.equal(gradient(samples), gradient(original))


def test_an_exploding_gradient_is_skipped_only_above_its_limit():
    guard = FaultGuard(FaultConfig(explode=10.0))
    assert guard.fault(10.0) == ""
    assert guard.fault(10.5) == "the gradient norm 10.5 is above faults.explode=10"
    assert guard.fault(float("inf")) == "the gradient norm is inf"
    assert FaultGuard(FaultConfig()).fault(1e30) == ""


def test_only_the_newest_dumps_are_kept(vlm, tmp_path):
    batch = make_batch(vlm, [[[2], [1]]])
    samples = [Sample(t, a) for t, a in zip(batch.trajectories, batch.advantages, strict=True)]
    guard = FaultGuard(FaultConfig(in_a_row=9, dumps=2), tmp_path)
    for _ in range(4):
        guard.skip("why", samples)
    names = sorted(path.name for path in (tmp_path / "skipped").iterdir())
    assert names == ["step-00002", "step-00003"]
    assert (guard.skipped, guard.in_a_row) == (4, 4)


def _watched(rank, world, port, folder, act, limits):
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world),
        MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port),
    )  # fmt: skip
    os.dup2(os.open(folder / f"{rank}.txt", os.O_WRONLY | os.O_CREAT), 2)
    train.distributed.processes.GRACE = 1.0
    parallel = join(ParallelConfig(timeout=PATIENCE, **limits))
    with Watchdog(parallel, lambda: "Go on so.", beat=0.25):
        parallel.progress.at("collect", 3)
        parallel.barrier()
        act(parallel)


def watched(folder, act, world=2, **limits):
    """Exit statuses and what each process wrote on stderr."""
    preload()
    port = free_port()
    started = [
        CONTEXT.Process(target=_watched, args=(rank, world, port, folder, act, limits))
        for rank in range(world)
    ]
    for process in started:
        process.start()
    for process in started:
        process.join()
    texts = [(folder / f"{rank}.txt").read_text() for rank in range(world)]
    return [process.exitcode for process in started], texts


def killed(parallel):
    parallel.progress.at("update", 3)
    if parallel.world.rank == 1:
        time.sleep(0.3)
        os.kill(os.getpid(), signal.SIGKILL)
    parallel.barrier()


def stuck(parallel):
    if parallel.world.rank == 1:
        time.sleep(60)
    parallel.progress.at("update", 3)
    parallel.barrier()


def wrong(parallel):
    parallel.progress.at("update", 3)
    if parallel.world.rank == 1:
        raise ValueError("the shoe does not fit\nreally")
    parallel.barrier()


def ended(parallel):
    if parallel.world.rank == 0:
        os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(60)


def lines(text):
    """What we said, without torch's warnings."""
    return [line for line in text.splitlines() if line.startswith("paravt:")]


def test_a_killed_process_is_named_once(tmp_path):
    codes, texts = watched(tmp_path, killed, world=3)
    assert codes == [EXIT, -signal.SIGKILL, EXIT]
    assert "Traceback" not in texts[0] + texts[2]
    (said,) = lines(texts[0]) + lines(texts[2])  # whichever of them notices first says it
    # where it was last seen is polled, so it may lag behind where it died
    assert re.fullmatch(
        r"paravt: stopped: process 1 of 3 gives no sign of life; last seen in step 3, [\w ]+\. "
        r"Go on so\.",
        said,
    )


def test_a_time_out_names_the_process_that_the_others_wait_for(tmp_path):
    codes, texts = watched(tmp_path, _stuck_until_killed, world=2)
    assert codes[0] == EXIT
    (said,) = lines(texts[0])
    assert said.startswith("paravt: stopped: process 1 of 2 is still in step 3, collect, after ")
    assert "waiting for it in step 3, update" in said


def _stuck_until_killed(parallel):
    signal.alarm(60)
    stuck(parallel)


def _plays_for(seconds, processes):
    """Process 0 plays the only group of step 4, process 1 has nothing to play."""

    def play(starts, size):
        signal.alarm(60)
        time.sleep(seconds)
        return ["one", "other"]

    starts = Starts(["task"], seed=0, size=2)
    workers = SimpleNamespace(play=play)
    collector = Collector(workers, starts, SelectionConfig(), 1, processes)
    processes.progress.at("collect", 4)
    assert collector.play(starts.take(1)) == [["one", "other"]]


def test_a_process_with_nothing_to_play_waits_for_those_that_play(tmp_path):
    codes, texts = watched(tmp_path, partial(_plays_for, 3 * PATIENCE))
    assert codes == [0, 0] and lines("".join(texts)) == []


def test_a_process_that_plays_for_too_long_is_named(tmp_path):
    act = partial(_plays_for, 60)
    codes, texts = watched(tmp_path, act, long_timeout=2 * PATIENCE)
    assert codes[1] == EXIT
    (said,) = lines(texts[1])
    assert said.startswith("paravt: stopped: process 0 of 2 is still in step 4, collect, after ")
    assert "waiting for it in step 4, hand over" in said


def test_the_error_of_a_process_is_raised_there_and_repeated_once(tmp_path):
    codes, texts = watched(tmp_path, wrong, world=2)
    assert codes == [EXIT, 1]
    assert lines(texts[0]) == [
        "paravt: stopped: process 1 of 2 failed: ValueError: the shoe does not fit. Go on so."
    ]
    assert "ValueError: the shoe does not fit" in texts[1]


def test_sigterm_ends_a_process_that_waits(tmp_path):
    codes, texts = watched(tmp_path, ended, world=2)
    assert codes[0] == EXIT
    assert lines(texts[0]) == ["paravt: stopped: SIGTERM. Go on so."]


def _train(config, folder, kill_at):
    """A training job as torchrun runs it; process 1 kills itself once, in the middle of a step."""
    rank, again = int(os.environ["RANK"]), os.environ["TORCHELASTIC_RESTART_COUNT"] != "0"
    os.dup2(os.open(folder / f"{rank}.{int(again)}.txt", os.O_WRONLY | os.O_CREAT), 2)
    torch.set_num_threads(1)

    def play(env, agent, starts, progress=None):
        rollouts = rollout.play(env, agent, starts, progress)
        texts = ["".join(turn["completion"] for turn in one.turns) for one in rollouts]
        rewards = [float(sum(map(ord, text)) % 101) for text in texts]
        return [replace(one, reward=r) for one, r in zip(rollouts, rewards, strict=True)]

    accumulate = Learner.accumulate

    def dying(self, samples, meter):
        accumulate(self, samples, meter)
        if self.processes.progress.step == kill_at and rank == 1 and not again:
            os.kill(os.getpid(), signal.SIGKILL)

    rollout_workers.play = lanes.play = play
    Learner.accumulate = dying
    launch.train(config)


def launch_job(config, folder, kill_at=None):
    """Run the job on two processes under torchrun's elastic agent."""
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    preload()
    folder.mkdir()
    settings = LaunchConfig(
        min_nodes=1, max_nodes=1, nproc_per_node=2, run_id="test", max_restarts=1,
        monitor_interval=0.1, start_method="forkserver", rdzv_backend="c10d",
        rdzv_endpoint="127.0.0.1:0",
    )  # fmt: skip
    elastic_launch(settings, _train)(config, folder, kill_at)
    return {path.name: path.read_text() for path in folder.iterdir()}


def numbers(config):
    left_out = ("time/", "frames_decoded")
    return [
        {k: v for k, v in step.items() if not k.startswith(left_out)}
        for step in read_metrics(config.run.path)
    ]


def test_a_killed_job_starts_again_from_its_checkpoint_with_the_same_losses(tiny_run, tmp_path):
    whole, hurt = (tiny_run(name, steps=3, checkpoint_every=1) for name in ("whole", "hurt"))
    launch_job(whole, tmp_path / "whole")
    texts = launch_job(hurt, tmp_path / "hurt", kill_at=2)
    (said,) = lines(texts["0.0.txt"])
    # where it was last seen is polled, so it may lag behind where it died
    assert re.search(r"process 1 of 2 gives no sign of life; last seen in step \d, [\w ]+\.", said)
    assert "The last checkpoint is" in said and "step-000002: torchrun starts again" in said
    assert numbers(hurt) == numbers(whole)
    assert len(numbers(hurt)) == 3 and any(step["loss"] for step in numbers(hurt))
    one, other = (
        VisionLanguageModel.load(checkpoint.latest(c.run.path) / "model").model.state_dict()
        for c in (whole, hurt)
    )
    assert all(torch.equal(one[name], other[name]) for name in one)
    # and on one process, which goes on with the same weights and moments
    alone = tiny_run("hurt", steps=4, checkpoint_every=1, resume=True)
    launch.train(alone)
    assert len(numbers(alone)) == 4


@pytest.fixture
def tiny_run(clip, other_clip, tmp_path):
    """Settings of a run of a few tokens on a random model."""
    from support.tiny_runs import tiny_settings, with_run

    world = tiny_settings(tmp_path, (clip, other_clip), TINY)
    world.algorithm = replace(world.algorithm, groups=3, group_size=2)
    world.optimizer = replace(world.optimizer, warmup_steps=5)
    world.parallel = ParallelConfig(timeout=300)
    return partial(with_run, world)


SCORES = {"a": 1.0, "b": 0.5, "c": 0.0, "d": 0.5, "e": 0.5}


def _pool(folder, processes=ALONE):
    """The teachable tasks of `SCORES`, and the starts that this process was asked to play."""
    asked = []

    def play(starts):
        asked.extend(starts)
        return [played(task=s.task_id, correct=SCORES[s.task_id]) for s in starts]

    settings = TrainConfig(
        selection=SelectionConfig(prior_rollouts=2), run=RunConfig(folder=str(folder))
    )
    settings.run.path.mkdir(exist_ok=True)
    return task_pool(settings.selection, settings.run, list(SCORES), play, 3, processes), asked


def _of_several_nodes(folder, layout):
    """One of three processes, on nodes whose agents have counted restarts differently."""
    os.environ["TORCHELASTIC_RESTART_COUNT"] = os.environ["RANK"]
    parallel = join(
        ParallelConfig(layout=layout, generator_ranks=2, timeout=900, long_timeout=1800)
    )
    default, patient = (
        group._get_backend(torch.device("cpu")).options._timeout.total_seconds() - GRACE
        for group in (dist.group.WORLD, parallel.patient)
    )
    dist.all_gather_object = None  # which makes room for the largest value of all, for each
    if not parallel.leads:
        difficulty.write_whole = None
    heard = parallel.from_workers(f"of {parallel.world.rank}")
    parallel.barrier(patient=True)
    return (default, patient), heard, _pool(folder, parallel)


@pytest.mark.parametrize(
    ("layout", "limits", "players"),
    [("colocated", (900, 1800), 3), ("disaggregated", (1800, 1800), 2)],
)
def test_players_divide_the_tasks_and_tell_all_others(tmp_path, layout, limits, players):
    alone, asked = _pool(tmp_path)
    assert alone.ids == ("b", "d", "e")
    found = run(_of_several_nodes, 3, tmp_path, layout)
    assert [one[0] for one in found] == [limits] * 3
    assert [one[1] for one in found] == [[f"of {rank}" for rank in range(players)]] * 3
    assert [one[2][0] for one in found] == [alone] * 3
    shares = [one[2][1] for one in found]
    assert [start for share in shares for start in share] == asked
    assert [bool(share) for share in shares].count(True) == players


def test_nothing_is_watched_on_one_process():
    with Watchdog(join(ParallelConfig())) as watch:
        assert not dist.is_initialized()
    assert not hasattr(watch, "_thread")
