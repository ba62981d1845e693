"""Published conversations as trajectories: supervised fine-tuning on what a data set ships.

Between a task set and the learner, where `train/sft/traces.py` stands for the synthetic world. The
overview is opened by the environment's own simulation (reader, sampler, frame budget, subtitles),
and `train/sft/writer.py` makes tokens of the messages. Conversations are written as they are drawn:
no more frames are in memory than one chunk has. What cannot be used is left out, counted and named.
Tests: `pytest tests/sft/test_published.py`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from agents.base import Trajectory
from agents.model.vlm import VisionLanguageModel
from paravt_env.episode.simulation import Failure
from paravt_env.spaces import unbatch
from paravt_env.task import Task
from paravt_env.vector import LongVideoVectorEnv
from train.common.errors import ConfigError
from train.config.sft import SFTConfig
from train.distributed.processes import ALONE, Processes
from train.sft.messages import MALFORMED, MEDIUM, TOO_LONG, Unusable, source_of
from train.sft.writer import ConversationWriter

RECORD = "left_out.jsonl"
"""File in the run's folder: one line a conversation that was left out."""


def make_env(config: SFTConfig) -> LongVideoVectorEnv:
    """The environment of a run on published conversations.

    Raises:
        ConfigError: Its task set publishes none, or no row of it is one.
    """
    tasks, _ = source_of(config.env.load_tasks())
    if not len(tasks):
        problem = tasks.problems[0] if tasks.problems else "the annotations hold no row"
        raise ConfigError(
            f"none of the {len(tasks.problems)} rows of {tasks.name} is a conversation; the first: "
            f"{problem}"
        )
    settings: Any = replace(config.env, tasks=tasks, tasks_kwargs=None)  # type: ignore[arg-type]
    return settings.make(config.evaluation.num_envs)


class PublishedConversations:
    """The conversations of an environment's task set, as trajectories.

    Args:
        vlm: Tokenizer and image geometry.
        config: Prompt style, opening, token limit and chunk.
        env: Of `make_env`; its simulation opens the videos.
        folder: Where `left_out.jsonl` is written; None writes none.
        processes: Those that train; what one of them cannot use, none does.

    Attributes:
        left_out: Reason of each conversation that was left out, by task id (by place where the row
            was not even a task).

    Raises:
        ConfigError: The task set publishes no conversations.
    """

    def __init__(
        self,
        vlm: VisionLanguageModel,
        config: SFTConfig,
        env: LongVideoVectorEnv,
        folder: Path | None = None,
        processes: Processes = ALONE,
    ) -> None:
        self.processes, self.simulation = processes, env.simulation
        self.writer = ConversationWriter(vlm, config, self.simulation)
        self.tasks = self.writer.tasks
        self.chunk = max(1, config.evaluation.num_envs)
        self.left_out: dict[str, Unusable] = {}
        self._record = folder / RECORD if folder is not None and processes.leads else None
        if self._record is not None:
            self._record.write_text("", encoding="utf-8")
        for problem in self.tasks.problems:
            self._leave_out(str(problem.place), Unusable(MALFORMED, str(problem)))

    def counts(self) -> dict[str, int]:
        """Conversations left out so far, by reason."""
        return dict(Counter(reason.kind for reason in self.left_out.values()))

    def stream(self, rng: np.random.Generator) -> Iterator[Trajectory]:
        """Conversations for ever, every epoch in a new order, with a new frame budget each.

        Raises:
            ConfigError: A whole epoch held none that could be used.
        """
        while True:
            kept = 0
            order = rng.permutation(len(self.tasks))
            for at in range(0, len(order), self.chunk):
                for trajectory in self.write(order[at : at + self.chunk], rng):
                    kept += 1
                    yield trajectory
            if not kept:
                first = next(iter(self.left_out.values()), "the set is empty")
                raise ConfigError(
                    f"none of the {len(self.tasks)} conversations of {self.tasks.name} could be "
                    f"used: {self.counts()}; the first: {first}"
                )

    def write(self, indices: Sequence[int] | np.ndarray, rng: np.random.Generator) -> list[Any]:
        """Trajectories of the tasks with these indices, without those that cannot be used.

        A conversation that was left out is not tried again, unless it was for its length: that
        depends on the frame budget.
        """
        chosen = [self.tasks[int(index)] for index in indices]
        chosen = [task for task in chosen if self._worth_trying(task)]
        if not chosen:
            return []
        starts = [self.simulation.draw(rng, task.id) for task in chosen]
        episodes = self.simulation.start(starts)
        rows = [None if isinstance(episode, Failure) else episode for episode in episodes]
        view = self.simulation.observe(rows)
        outcomes: list[Trajectory | Unusable] = []
        for row, (task, episode) in enumerate(zip(chosen, episodes, strict=True)):
            try:
                if isinstance(episode, Failure):
                    raise Unusable(MEDIUM, episode.info()["error"])
                outcomes.append(self.writer.trajectory(task, unbatch(view, row)))
            except Unusable as reason:
                outcomes.append(reason)
        failed = [(o.kind, str(o)) if isinstance(o, Unusable) else None for o in outcomes]
        kept = []
        everywhere = zip(*self.processes.gather(failed), strict=True)
        for task, outcome, reasons in zip(chosen, outcomes, everywhere, strict=True):
            told = next((one for one in reasons if one is not None), None)
            if told is not None:
                self._leave_out(task.id, Unusable(*told))
            else:
                kept.append(outcome)
        return kept

    def _worth_trying(self, task: Task) -> bool:
        known = self.left_out.get(task.id)
        return known is None or known.kind == TOO_LONG

    def _leave_out(self, name: str, reason: Unusable) -> None:
        if name in self.left_out:
            return
        self.left_out[name] = reason
        if self._record is not None:
            line = {"name": name, "reason": reason.kind, "message": str(reason)}
            with self._record.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
