"""The training loop: collect, select, credit, update, log; checkpoint, validate, resume.

Runs PARA-GRPO (`agents/paragrpo.py`) over the vectorised environment. A run that was stopped and
resumed gives the same numbers as one that was not: a checkpoint holds the weights, the optimizer,
the schedule, every generator and the order of the tasks. Ctrl-C saves and says how to go on.

Several processes (`train/distributed/processes.py`) run this loop together. Each plays its part of
the groups and then knows all of them, so all select, credit and divide the same batch; the leader
logs and saves. After a failure torchrun starts them again, from the last checkpoint.

Command: `paravt train paragrpo_mini`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch

from agents.algorithm.credit import PARAGRPO, Batch
from train.common.errors import ConfigError
from train.config.run import TrainConfig
from train.distributed.processes import HAND_OVER, Parallel
from train.lab.diagnose.gradients import choose_groups, measure_batch
from train.learner.learner import Learner
from train.loop import checkpoint
from train.loop.interrupt import Interrupt
from train.loop.metrics import MetricsLogger, aggregate_rollouts
from train.rollout.difficulty import Pool
from train.rollout.play import Start
from train.rollout.selection import Group, Selected, reward_weights, select
from train.workers.ahead import Ahead, Progress
from train.workers.pipeline import Pipeline
from train.workers.rollout_workers import Players


class TaskOrder:
    """Endless passes over the tasks, each in a new order.

    >>> order = TaskOrder(3, np.random.default_rng(0))
    >>> sorted(order.take(3)), len(order.take(4))
    ([0, 1, 2], 4)
    """

    def __init__(self, tasks: int, rng: np.random.Generator) -> None:
        self.tasks, self.rng = tasks, rng
        self.remaining: list[int] = []

    def take(self, count: int) -> list[int]:
        """Indices of the next `count` tasks; a new pass begins where one ends."""
        while len(self.remaining) < count:
            self.remaining += self.rng.permutation(self.tasks).tolist()
        taken, self.remaining = self.remaining[:count], self.remaining[count:]
        return taken


class Trainer:
    """One run in memory.

    Args:
        config: All settings.
        players: `groups * group_size` rows over the training tasks, and the policy in them.
        learner: Updates them.
        logger: Where the metrics of each step go; None on all processes but the leader.
        validate: Measures the policy after a step; its metrics join the step's.
        pool: The tasks to train on; None takes all.
    """

    def __init__(
        self,
        config: TrainConfig,
        players: Players,
        learner: Learner,
        logger: MetricsLogger | None,
        validate: Callable[[], dict[str, float]] | None = None,
        pool: Pool | None = None,
    ) -> None:
        self.config, self.players, self.learner = config, players, learner
        self.env, self.agent = players.lanes[0].env, players.agents[0]
        self.parallel: Parallel = learner.parallel
        self.logger, self.validate = logger, validate
        self.rng = np.random.default_rng(config.run.seed)
        self.pool = pool or Pool(self.env.simulation.tasks.ids)
        self.order = TaskOrder(len(self.pool.ids), self.rng)
        self.step = 0
        self.selected = Selected([], [], {})
        weights = {**self.env.simulation.preset.weights, **reward_weights(config.selection)}
        self.algorithm = PARAGRPO(
            config.algorithm, weights, self.collect, self._update, learner.divergence
        )
        self._ahead: Ahead[Selected] | Pipeline[Selected] | None = None
        self._interrupt = Interrupt()
        self._generators = self._generator_states()

    def collect(self) -> list[Group]:
        """The groups of one update: play, leave out what is not worth one, count both."""
        if self._ahead is None:
            self.selected = self._select(lambda done, rows: None)
        else:
            self.selected = self._ahead.take(self.step).batch
        return self.selected.kept

    def _select(self, progress: Progress) -> Selected:
        selection, groups = self.config.selection, self.config.algorithm.groups
        return select(lambda count: self.draw(count, progress), selection, groups)

    def draw(self, groups: int, progress: Progress | None = None) -> list[Group]:
        """Play groups: for each a task, and a seed that fixes its frame budget."""
        size = self.config.algorithm.group_size
        seeds = self.rng.integers(2**31, size=groups).tolist()
        starts = [
            Start(self.pool.ids[task], None, seed)
            for task, seed in zip(self.order.take(groups), seeds, strict=True)
            for _ in range(size)
        ]
        players = self.parallel.players
        mine = players.split(groups) if self.parallel.plays else slice(0, 0)
        starts = starts[mine.start * size : mine.stop * size]
        own = self.players.play(starts, size, progress) if starts else []
        if isinstance(self._ahead, Pipeline):  # the others do not take part, and may update
            parts = self.parallel.from_players(own, players)
        else:
            self.parallel.progress.at(HAND_OVER, self.step)
            parts = self.parallel.from_players(own)
            self.parallel.progress.at("collect", self.step)
        rollouts = [one for part in parts for one in part]
        return [rollouts[i : i + size] for i in range(0, len(rollouts), size)]

    def _update(self, batch: Batch) -> dict[str, float]:
        self._interrupt.hold()
        self.parallel.progress.at("update", self.step)
        if self._ahead is not None:
            self._ahead.updating(last=self.step + 1 >= self.config.run.steps)
        self.players.rest()
        return self._diagnostics(batch) | self.learner.update(batch, self.step)

    def _diagnostics(self, batch: Batch) -> dict[str, float]:
        """What the batch says of the reward terms, in the steps that are asked to say it."""
        settings, began = self.config.diagnostics, perf_counter()
        if not settings.every or self.step % settings.every:
            return {}
        kept = self.selected.kept
        live = [place for place, group in enumerate(kept) if any(r.trajectories for r in group)]
        seed = self.config.run.seed, self.step
        chosen = [live[i] for i in choose_groups(len(live), settings.groups, seed)]
        weights, method = self.algorithm.reward_weights, self.config.algorithm
        metrics = measure_batch(self.learner, method, weights, kept, batch, chosen)
        return metrics | {"time/diagnostics": perf_counter() - began}

    def run(self) -> Path:
        """Train until the last step.

        Returns:
            The folder of the trained policy.

        Raises:
            SystemExit: Ctrl-C, after the run was saved.
        """
        settings = self.config.run
        if self.step >= settings.steps:  # it was saved before, and may be known by its files
            return checkpoint.folder_of(settings.path, self.step) / checkpoint.MODEL
        with self._interrupt, self._playing_ahead():
            try:
                while self.step < settings.steps:
                    self._one_step()
            except KeyboardInterrupt:
                raise SystemExit(self._stopped()) from None
            return self._save() / checkpoint.MODEL

    @contextmanager
    def _playing_ahead(self) -> Iterator[None]:
        """Play the next batches during the updates, where the settings ask for it."""
        run = self.config.run
        if not run.asynchronous:
            yield
            return
        publish, state = self.players.weights_changed, self._playing_state
        if self.parallel.world.size > 1:
            self._ahead = Pipeline(
                self._select, publish, run.staleness, state, self._follow, self.parallel, self.step
            )
        else:
            patience = self.config.parallel.long_timeout
            self._ahead = Ahead(self._select, publish, run.staleness, state, self.step, patience)
        try:
            yield
        finally:
            self._ahead.close()

    def _one_step(self) -> None:
        """Collect and update; from the update to the log nothing is cut short."""
        began, before, settings = perf_counter(), self._counters(), self.config.run
        self.parallel.progress.at("collect", self.step)
        self._generators = self._generator_states()
        try:
            _, metrics = self.algorithm.step()
            self.step += 1
            self._generators = self._generator_states()
            if self._ahead is None:
                self.players.weights_changed(self.step)
            if self.validate and settings.eval_every and self.step % settings.eval_every == 0:
                metrics |= self.validate()
            metrics |= self._growth(before)
            metrics |= self.selected.metrics | self.pool.metrics
            metrics |= aggregate_rollouts([one for group in self.selected.played for one in group])
            metrics["time/step"] = perf_counter() - began
            if self.logger is not None:
                self.logger.log(self.step - 1, metrics)
            every = settings.checkpoint_every
            if every and self.step % every == 0 and self.step < settings.steps:
                self._save()
        finally:
            self._interrupt.release()

    def _stopped(self) -> int:
        """Save, say how to go on, and give the exit status of Ctrl-C."""
        run = self.config.run.path
        if self._interrupt.forced or self.parallel.world.size > 1:
            # Several processes are stopped at different places, and cannot save together.
            folder = checkpoint.latest(run)
            where = "" if not self._interrupt.forced else " in the middle of an update"
            said = f"stopped{where}; the last checkpoint is {folder}"
        else:
            folder = self._save()
            said = f"stopped after step {self.step}, saved {folder}"
        if folder is not None:
            said += f"\ngo on with: paravt train {run / 'config.yaml'} --run.resume=true"
        if self.parallel.leads:
            print(f"\n{said}", flush=True)
        return 130

    def _growth(self, before: Mapping[str, float]) -> dict[str, float]:
        """What a step added to `before`: counts of all processes, seconds of the slowest."""
        own = {name: total - before.get(name, 0.0) for name, total in self._counters().items()}
        parts = self.parallel.gather(own)
        return {
            name: (max if name.startswith("time/") else sum)(part.get(name, 0.0) for part in parts)
            for name in dict.fromkeys(name for part in parts for name in part)
        }

    def _counters(self) -> dict[str, float]:
        """Totals of this process whose growth in a step is logged."""
        stats, simulation = self.players.stats(), self.env.simulation
        worlds = [lane.env.simulation for lane in self.players.lanes]
        waiting = {}
        if self._ahead is not None:
            waiting["time/waiting_for_rollouts"] = self._ahead.waited
            waiting["time/players_waiting"] = self._ahead.parked
        return {
            **waiting,
            "frames_decoded": float(sum(world.video.store.decoded for world in worlds)),
            "frames_encoded_sampling": float(stats.frames_encoded),
            "tokens_sampled": float(stats.tokens_sampled),
            "time/video": sum(world.video_seconds for world in worlds),
            **{f"time/{stage}": seconds for stage, seconds in stats.seconds.items()},
            **simulation.judge_totals(),
        }

    def _generator_states(self) -> dict[str, Any]:
        """Every generator and the task order, where a resumed run takes them up."""
        playing = self._playing_state() if self._ahead is None else self._ahead.resume_point()
        return {
            "minibatches": self.learner.rng.bit_generator.state,
            "torch": torch.get_rng_state(),
            **playing,
        }

    def _playing_state(self) -> dict[str, Any]:
        """What playing a batch changes: its generators and the task order."""
        return {
            "starts": self.rng.bit_generator.state,
            "sampling": self.agent.sampler.generator.get_state(),
            "order": list(self.order.remaining),
        }

    def _follow(self, state: Mapping[str, Any]) -> None:
        """Take up a player's state, except for its sampling: this process draws nothing."""
        self.rng.bit_generator.state = state["starts"]
        self.order.remaining = list(state["order"])

    def _save(self) -> Path:
        """Write the checkpoint of the steps finished; a step that was cut short leaves no trace."""
        self.parallel.progress.at("checkpoint", self.step)
        states, leads = dict(self._generators), self.parallel.leads
        own = {f"generator.{name}": states.pop(name) for name in ("sampling", "torch")}
        tensors = {
            f"{name}{_of_process(rank)}": tensor
            for rank, generators in enumerate(self.parallel.gather(own))
            for name, tensor in generators.items()
        }
        if self.parallel.trains:
            tensors |= checkpoint.optimizer_tensors(self.learner.optimizer, leads)
            tensors |= self.learner.weights.state(leads)
        if not leads:
            self.parallel.barrier(patient=True)
            return checkpoint.folder_of(self.config.run.path, self.step)
        saved = checkpoint.save(
            self.config.run.path,
            self.step,
            self.learner.vlm.save,
            tensors,
            {
                "step": self.step,
                "tasks": self.order.tasks,
                "pool": self.pool.digest,
                "parameters": list(self.learner.weights.parameters),
                "optimizer": checkpoint.optimizer_groups(self.learner.optimizer),
                "scheduler": self.learner.scheduler.state_dict(),
                **states,
            },
        )
        self.parallel.barrier(patient=True)
        return saved

    def restore(self, tensors: Mapping[str, torch.Tensor], state: Mapping[str, Any]) -> None:
        """Take up a checkpoint whose weights the agent has already loaded."""
        if state["tasks"] != self.order.tasks:
            raise ConfigError(
                f"the checkpoint was trained on {state['tasks']} tasks, "
                f"this set has {self.order.tasks}"
            )
        if state.get("pool", self.pool.digest) != self.pool.digest:
            raise ConfigError(
                f"the checkpoint was trained on as many tasks ({self.order.tasks}), but on others: "
                "resume with the same task set, and with the same selection and pass rates"
            )
        if "parameters" in state:  # older checkpoints do not name them
            self.learner.weights.check(state["parameters"])
        self.step = state["step"]
        self._follow(state)
        self.learner.rng.bit_generator.state = state["minibatches"]
        self._restore_generators(tensors)
        self.learner.weights.restore(tensors)
        if self.parallel.trains:
            checkpoint.restore_optimizer(self.learner.optimizer, tensors, state["optimizer"])
        self.learner.scheduler.load_state_dict(state["scheduler"])
        self.players.weights_changed(self.step)
        self._generators = self._generator_states()

    def _restore_generators(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Take up this process's generators, or a fresh seed where the saved ones do not fit.

        The saved run may have had fewer processes, or have sampled elsewhere: the states of a CPU's
        generator and of a GPU's have other sizes.
        """
        rank, generator = self.parallel.world.rank, self.agent.sampler.generator
        process = _of_process(rank)
        saved = tensors.get(f"generator.sampling{process}")
        fits = saved is not None and saved.shape == generator.get_state().shape
        if saved is not None:
            torch.set_rng_state(tensors[f"generator.torch{process}"])
        if saved is not None and fits:
            generator.set_state(saved)
        else:
            fresh = np.random.default_rng((self.config.run.seed, self.step, rank))
            generator.manual_seed(int(fresh.integers(2**62)))
        fit = self.parallel.gather(fits or not self.parallel.plays)
        changed = ", ".join(str(rank) for rank, fine in enumerate(fit) if not fine)
        if changed and self.parallel.leads:
            print(
                f"sampling goes on from fresh seeds in process {changed}: the checkpoint was saved "
                "with another engine, device or number of processes"
            )


def _of_process(rank: int) -> str:
    """What the names of a process's generators end with.

    >>> _of_process(0), _of_process(2)
    ('', '.2')
    """
    return f".{rank}" if rank else ""
