"""TRL's GRPOTrainer plays this environment: a table, an environment a rollout, a reward a term.

    game = TRLGame(tasks="synthetic", frame_budget=8)
    GRPOTrainer(
        model,
        args=GRPOConfig(**game.config),
        train_dataset=game.dataset(),
        environment_factory=game.environment,
        reward_funcs=game.reward_funcs,
    )

TRL samples and trains; the overview, the crops and the reward are those of this environment. Needs
Pillow, and `dataset` needs `datasets` (extra `trl`). What TRL does with pictures and what it leaves
out stands in `docs/adapters.md`. Tests, with the real trainer: `make test-adapters`.
"""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from PIL import Image

from paravt_env.episode.episode import Episode
from paravt_env.episode.simulation import Failure, Start
from paravt_env.protocol.parts import FrameRef, Part
from paravt_env.task import TaskSet
from train.adapters.tool_calling import OVER, UNREADABLE, Message, Played, ToolCallingGame

Block = dict[str, Any]
"""One block of a message's content: text, or a picture."""


class TRLGame(ToolCallingGame):
    """What `GRPOTrainer` is given, over one simulation.

    Args:
        tasks: As for `LongVideoEnv`.
        style: Prompt style; the chat template lists the tool.
        **settings: As for `LongVideoEnv`.
    """

    def __init__(
        self, tasks: str | TaskSet = "synthetic", style: str = "tool_calling", **settings: Any
    ) -> None:
        super().__init__(tasks, style, **settings)
        self._scored: tuple[Sequence[Sequence[Message]], list[Played]] = ([], [])
        self._warned = False

    @property
    def config(self) -> dict[str, Any]:
        """Arguments of `GRPOConfig` that follow from the environment's settings."""
        return {
            "reward_weights": list(self.weights.values()),
            "max_tool_calling_iterations": self.simulation.settings.max_turns,
        }

    def environment(self) -> CropEnvironment:
        """An environment for one rollout: `environment_factory=game.environment`."""
        return CropEnvironment(self)

    def dataset(self, seed: int = 0, tasks: int | None = None) -> Any:
        """A `datasets.Dataset` with a row for each task: its prompt, and the start of its group.

        TRL hands the columns to `reset`, so every rollout of a row has the row's K.

        Args:
            seed: Of the rows' seeds.
            tasks: How many of the task set's first ones; None for all.
        """
        from datasets import Dataset

        ids = self.simulation.tasks.ids[:tasks]
        seeds = np.random.default_rng(seed).integers(2**31, size=len(ids)).tolist()
        prompt = [{"role": "system", "content": self.system}, {"role": "user", "content": ""}]
        return Dataset.from_list(
            [
                {
                    "prompt": prompt,
                    "task_id": task_id,
                    "frame_budget": self.start(task_id, None, one).frame_budget,
                    "seed": one,
                }
                for task_id, one in zip(ids, seeds, strict=True)
            ]
        )

    @property
    def reward_funcs(self) -> list[Callable[..., list[float]]]:
        """A reward function for each term, in the order of `config["reward_weights"]`."""
        functions: list[Callable[..., list[float]]] = []
        for name in self.weights:
            function = partial(self._rewards, name)
            function.__name__ = name  # type: ignore[attr-defined]
            functions.append(function)
        return functions

    def _rewards(
        self,
        name: str,
        completions: Sequence[Sequence[Message]],
        environments: Sequence[CropEnvironment],
        log_metric: Callable[[str, float], None] | None = None,
        **columns: Any,
    ) -> list[float]:
        """The values of one term. Always numbers: what is None or NaN, TRL counts as 0."""
        if completions is not self._scored[0]:  # TRL hands the same list to every function
            starts = [environment.start for environment in environments]
            self._scored = completions, self.score(starts, completions)
            self._look_back(completions, environments, self._scored[1], log_metric)
        played = self._scored[1]
        values = [one.terms.get(name) for one in played]
        return filled(values, [(e.start.task.id, e.start.frame_budget) for e in environments])

    def _look_back(
        self,
        completions: Sequence[Sequence[Message]],
        environments: Sequence[CropEnvironment],
        played: Sequence[Played],
        log_metric: Callable[[str, float], None] | None,
    ) -> None:
        """Say what TRL does not: results that it took back, rollouts that could not be scored."""
        lost = [
            environment.played > sum(_answered(messages))
            for messages, environment in zip(completions, environments, strict=True)
        ]
        if log_metric is not None:
            log_metric("paravt/crops_taken_back", float(np.mean(lost)))
            log_metric("paravt/unscored", float(np.mean([bool(one.error) for one in played])))
        if any(lost) and not self._warned:
            self._warned = True
            limits = self.simulation.settings
            warnings.warn(
                f"{sum(lost)} of {len(lost)} rollouts ended at a call: its pictures would have "
                "gone past max_completion_length, in which TRL counts them, and TRL took the "
                "result back. Raise max_completion_length, or lower frames_per_crop "
                f"({limits.frames_per_crop}), frame_size {limits.frame_size} or max_crops "
                f"({limits.max_crops}). The metric paravt/crops_taken_back keeps counting",
                stacklevel=2,
            )


class CropEnvironment:
    """One rollout's environment: every public method but `reset` is a tool.

    Attributes:
        start: The task and K of the running episode.
        episode: What runs; None where the video could not be read.
        played: Turns with calls so far.
    """

    def __init__(self, game: TRLGame) -> None:
        self._game = game
        self.start: Start
        self.episode: Episode | None = None
        self.played = 0
        self._calls: list[dict[str, Any]] = []
        self._answers: list[list[Block]] = []

    def reset(
        self,
        task_id: str | None = None,
        frame_budget: int | None = None,
        seed: int | None = None,
        **columns: Any,
    ) -> list[Block]:
        """Start an episode.

        Args:
            task_id: None draws a task.
            frame_budget: K; None draws it.
            seed: Of those draws; None draws anew in every rollout, so a group has no common K.
            **columns: The other columns of the table; nothing here depends on them.

        Returns:
            Overview and question: what is appended to the user's message.
        """
        self._calls, self._answers, self.played = [], [], 0
        self.start = self._game.start(task_id, frame_budget, seed)
        row = self._game.begin(self.start)
        self.episode = None if isinstance(row, Failure) else row
        if self.episode is None:
            return [{"type": "text", "text": UNREADABLE}]
        view = self._game.see(self.episode)
        return blocks(self._game.opening(view), view["frames"])

    async def crop_video(self, start_time: float, end_time: float) -> list:
        """Watch one window of the video closely. Several calls in one turn run in parallel.

        Args:
            start_time: start of the window, in seconds
            end_time: end of the window, in seconds

        Returns:
            Frames of the window with their times.
        """
        place, calls = len(self._calls), self._calls
        calls.append({"start_time": start_time, "end_time": end_time})
        await asyncio.sleep(0)  # TRL gathers the calls of a turn: now all of them are in the list
        if calls is self._calls:  # the first to continue plays the turn for all
            self._calls, self._answers = [], self._play(calls)
        return self._answers[place]

    def _play(self, calls: Sequence[dict[str, Any]]) -> list[list[Block]]:
        """One step for the calls of a turn."""
        if self.episode is None or self.episode.stop_reason is not None:
            said = UNREADABLE if self.episode is None else OVER
            return [[{"type": "text", "text": said}] for _ in calls]
        self.played += 1
        view, answers = self._game.crop(self.episode, calls)
        return [blocks(parts, view["frames"]) for parts in answers]


def blocks(parts: Sequence[Part], frames: np.ndarray) -> list[Block]:
    """Parts as content blocks, frames as pictures.

    >>> blocks(["a", FrameRef(0)], np.zeros((1, 2, 2, 3), np.uint8))[1]["image"].size
    (2, 2)
    """
    return [
        {"type": "image", "image": Image.fromarray(frames[part.index])}
        if isinstance(part, FrameRef)
        else {"type": "text", "text": part}
        for part in parts
    ]


def filled(values: Sequence[float | None], groups: Sequence[Any]) -> list[float]:
    """Values with the mean of their group where there is none, 0 where the group has none at all.

    So a rollout that could not be scored moves no advantage: its own is 0, and the others' mean is
    what it was.

    >>> filled([1.0, None, 0.0, None], ["a", "a", "a", "b"])
    [1.0, 0.5, 0.0, 0.0]
    """
    means = {}
    for group in set(groups):
        known = [v for v, g in zip(values, groups, strict=True) if g == group and v is not None]
        means[group] = float(np.mean(known)) if known else 0.0
    return [
        means[group] if value is None else value
        for value, group in zip(values, groups, strict=True)
    ]


def _answered(messages: Sequence[Message]) -> list[bool]:
    """For each assistant's message, whether a tool's message follows it."""
    pairs = zip(messages, [*messages[1:], {}], strict=True)
    return [after.get("role") == "tool" for one, after in pairs if one.get("role") == "assistant"]
