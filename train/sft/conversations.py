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
from collections.abc import Mapping, Sequence
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
from train.sft.streams import Stream
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

    def stream(self, rng: np.random.Generator) -> PublishedStream:
        """Conversations for ever, every epoch in a new order, with a new frame budget each."""
        return PublishedStream(self, rng)

    def nothing(self) -> str:
        """What is said where a whole epoch held none that could be used."""
        first = next(iter(self.left_out.values()), "the set is empty")
        return (
            f"none of the {len(self.tasks)} conversations of {self.tasks.name} could be used: "
            f"{self.counts()}; the first: {first}"
        )

    def forget(self, known: int) -> None:
        """Take note again of the first `known` conversations that were left out, and no more."""
        first = list(self.left_out.items())[:known]
        self.left_out = {}
        if self._record is not None:
            self._record.write_text("", encoding="utf-8")
        for name, reason in first:
            self._leave_out(name, reason)

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


class PublishedStream(Stream):
    """Published conversations for ever: they are written as they are drawn, a chunk at a time.

    Args:
        source: Writes them.
        rng: Draws the orders and the frame budgets; shared with other streams.
    """

    def __init__(self, source: PublishedConversations, rng: np.random.Generator) -> None:
        self._source, self._rng = source, rng
        self._order: list[int] = []
        self._at = self._kept = self._given = self._known = 0
        self._chunk: list[Trajectory] = []
        self._before: Mapping[str, Any] = rng.bit_generator.state

    def __next__(self) -> Trajectory:
        """The next one.

        Raises:
            ConfigError: A whole epoch held none that could be used.
        """
        source, size = self._source, self._source.chunk
        while self._given == len(self._chunk):
            if self._at >= len(self._order):
                if self._order and not self._kept:
                    raise ConfigError(source.nothing())
                self._order = self._rng.permutation(len(source.tasks)).tolist()
                self._at = self._kept = 0
            self._before, self._known = self._rng.bit_generator.state, len(source.left_out)
            self._chunk = source.write(self._order[self._at : self._at + size], self._rng)
            self._at, self._given = self._at + size, 0
        self._given, self._kept = self._given + 1, self._kept + 1
        return self._chunk[self._given - 1]

    def place(self) -> dict[str, Any]:
        """The order of this epoch, and what its last chunk was written from."""
        return {
            "order": self._order, "at": self._at, "kept": self._kept, "given": self._given,
            "before": self._before, "known": self._known,
            "left_out": [[n, r.kind, str(r)] for n, r in self._source.left_out.items()],
        }  # fmt: skip

    def go_to(self, place: Mapping[str, Any]) -> None:
        """Go on in the middle of an epoch: the chunk is written once more, as it was."""
        source, size = self._source, self._source.chunk
        self._order, self._at, self._kept = list(place["order"]), place["at"], place["kept"]
        self._before, self._known = place["before"], place["known"]
        source.left_out = {name: Unusable(kind, said) for name, kind, said in place["left_out"]}
        source.forget(self._known)
        if self._order:
            again = np.random.default_rng()
            again.bit_generator.state = self._before
            self._chunk = source.write(self._order[self._at - size : self._at], again)
        self._given = place["given"]
