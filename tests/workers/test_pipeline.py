"""One batch ahead, disaggregated: whose weights, whose turn, and where a run resumes."""

from dataclasses import replace

import pytest
import torch
import torch.distributed as dist
from support.gloo_processes import run
from support.tiny_runs import SHAPE, tiny_settings, varied, with_run

from train.common.metrics_file import read_metrics
from train.config.parallel import ParallelConfig
from train.distributed.processes import ALONE, Group, Processes
from train.learner.learner import Learner
from train.loop import launch
from train.workers import lanes, rollout_workers
from train.workers.pipeline import Pipeline
from train.workers.source import Played


class Player:
    """Batches are (number, weights that played it)."""

    def __init__(self, staleness, parallel=ALONE):
        self.weights = self.count = 0
        state, follow = (lambda: self.count), self.followed
        self.pipeline = Pipeline(self.play, self.sync, staleness, state, follow, parallel)

    def play(self):
        self.count += 1
        return self.count - 1, self.weights

    def sync(self, version):
        self.weights = version

    def followed(self, count):
        self.count = count

    def steps(self, count):
        for version in range(count):
            yield self.pipeline.take(version)
            self.pipeline.updating(last=version + 1 == count)


@pytest.mark.parametrize(("staleness", "lag"), [(0, 0), (1, 1), (2, 1)])
def test_the_next_batch_is_played_with_the_weights_before_the_update(staleness, lag):
    player = Player(staleness)
    played = list(player.steps(5))
    assert [one.batch for one in played] == [(n, max(0, n - lag)) for n in range(5)]
    assert [one.version for one in played] == [max(0, n - lag) for n in range(5)]
    assert [one.before for one in played] == list(range(5))
    assert player.count == 5, "no batch that nobody will train on"


def test_a_resumed_run_plays_again_what_was_played_ahead():
    player = Player(1)
    steps = player.steps(5)
    next(steps)
    assert player.pipeline.resume_point() == 1
    next(steps)
    assert player.count == 2 and player.pipeline.resume_point() == 2
    player.pipeline.updating(last=False)
    assert player.count == 3 and player.pipeline.resume_point() == 2


def test_a_process_that_only_trains_takes_up_the_state_of_the_player():
    class Told(Processes):
        def broadcast(self, value, source, among=None):
            assert value == (None, False) and source == 0
            return Played("batch", 7, 3), 4

    trainer = Player(1, Told(Group(1, 2), plays=False))
    assert trainer.pipeline.take(0).batch == "batch"
    trainer.pipeline.updating(last=False)
    assert trainer.count == trainer.pipeline.resume_point() == 4 and trainer.pipeline.waited > 0


def process(config, meet=False):
    """One process of a job: the starts of its batches, and the policy that it is left with."""
    torch.set_num_threads(1)
    batches, update = [], Learner.update

    def play(env, agent, starts, *args):
        if meet and len(batches) == 1:
            dist.barrier()
        batches.append(starts)
        return varied(env, agent, starts, *args)

    def updating(learner, *args):
        if meet and learner.processes.trains and not batches:
            batches.append("met")
            dist.barrier()
        return update(learner, *args)

    rollout_workers.play = lanes.play = play
    Learner.update = updating
    saved = launch.train(config)
    return batches, saved


@pytest.fixture
def make(clip, other_clip, tmp_path):
    """Settings of a split run of a few tokens on a random model."""
    world = tiny_settings(tmp_path, (clip, other_clip), SHAPE)
    world.algorithm = replace(world.algorithm, groups=4, group_size=3, minibatches=1)

    def settings(name, ranks=1, **run):
        config = with_run(world, name, **{"steps": 3, "checkpoint_every": 0} | run)
        config.parallel = ParallelConfig(layout="disaggregated", generator_ranks=ranks, timeout=300)
        return config

    return settings


SAME = ("loss", "grad_norm", "kl", "entropy", "reward", "tokens_sampled", "frames_decoded")


def test_with_a_bound_of_zero_two_players_give_the_numbers_of_the_synchronous_run(make):
    ahead = make("ahead", 2, asynchronous=True, staleness=0, steps=2)
    taking_turns = make("turns", 2, steps=2)
    for config in (ahead, taking_turns):
        run(process, 3, config)
    steps, expected = read_metrics(ahead.run.path), read_metrics(taking_turns.run.path)
    assert [s[name] for s in steps for name in SAME] == [s[name] for s in expected for name in SAME]
    assert expected[0]["tokens_sampled"] > 0, "the leader logs what the others played"


def test_the_player_plays_while_the_trainer_updates(make):
    config = make("ahead", asynchronous=True, staleness=2)
    run(process, 2, config, True)  # they meet: one in its second batch, one in its first update
    steps = read_metrics(config.run.path)
    assert [s["staleness/max"] for s in steps] == [0, 1, 1]
    assert all(s["grad_norm"] > 0 for s in steps)
    assert steps[1]["time/waiting_for_rollouts"] > 0 and steps[1]["time/workers_waiting"] > 0


def test_a_run_that_was_stopped_plays_the_tasks_of_one_that_was_not(make):
    whole, stopped = (make(n, asynchronous=True, checkpoint_every=1) for n in ("whole", "stopped"))
    (batches, _), _ = run(process, 2, whole)
    stopped.run.steps = 2
    (first, _), _ = run(process, 2, stopped)
    stopped.run.steps, stopped.run.resume = 3, True
    (rest, _), _ = run(process, 2, stopped)
    assert len(batches) == 3 and first + rest == batches
    assert [s["staleness/max"] for s in read_metrics(stopped.run.path)] == [0, 1, 0]
