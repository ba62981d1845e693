"""Several task sets as one, each with a weight: `env: {tasks: mix, tasks_kwargs: {sets: ...}}`.

    tasks_kwargs:
      sets:
        films: {tasks: films.jsonl, weight: 3}
        games: {tasks: atari, weight: 1, videos: 12}

A weight says how often a task is of its set, whatever the sets' sizes: here three of four are of
`films`. A task is called `films/ID`, and its metadata name the set. A set takes the split that is
asked for, unless it names its own. Tests: `pytest tests/tasksets/test_mixture.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from paravt_env.task import Task, TaskError, TaskSet
from paravt_env.tasksets.base import TaskList
from paravt_env.tasksets.rows import Place

SET = "set_of_the_mixture"
"""Name of the set in a task's metadata."""
NAME = "mix"


class Mixture(TaskList):
    """The tasks of several sets, set by set.

    Args:
        split: Of every set that names none.
        sets: By name: `tasks` (a set's name, a manifest's path or a door), `weight` (1 where it is
            left out), and the set's own arguments.
        load: Loads one of them; `paravt_env.tasksets.load_tasks`.

    Attributes:
        weights: Of each set, by name.

    Raises:
        TaskError: No set, a name or a weight that cannot be, a set without tasks, or whatever
            loading one raises, with the set's name.
    """

    def __init__(
        self, split: str, sets: Mapping[str, Mapping[str, Any]], load: Callable[..., TaskSet]
    ) -> None:
        super().__init__(NAME)
        if not isinstance(sets, Mapping) or not sets:
            raise TaskError(f"{NAME}: sets must map names to task sets, not {sets!r}")
        self.weights: dict[str, float] = {}
        self._starts: list[int] = []
        for name, given in sets.items():
            if not isinstance(name, str) or not name or "/" in name:
                raise TaskError(f"{NAME}: a set's name is text without a slash, not {name!r}")
            if not isinstance(given, Mapping) or not isinstance(given.get("tasks"), str):
                raise TaskError(f"{NAME}: set {name!r} needs tasks (a name or a path): {given!r}")
            arguments = {key: value for key, value in given.items() if key != "tasks"}
            self.weights[name] = _weight(name, arguments.pop("weight", 1.0))
            self._take(name, given["tasks"], {"split": split} | arguments, load)
        self._ends = np.cumsum(list(self.weights.values())) / sum(self.weights.values())

    def _take(
        self, name: str, what: str, arguments: dict[str, Any], load: Callable[..., TaskSet]
    ) -> None:
        """Add the tasks of one set."""
        try:
            tasks = load(what, **arguments)
        except TaskError as error:
            raise TaskError(f"{NAME}, set {name!r}: {error}") from error
        if not len(tasks):
            raise TaskError(f"{NAME}: set {name!r} holds no task")
        self._starts.append(len(self))
        files = tasks if isinstance(tasks, TaskList) else None
        for number in range(len(tasks)):
            task = tasks[number]
            place = files.place_of(task.id) if files else Place(name, "row", number + 1)
            named = {**task.metadata, SET: name}
            self._add(replace(task, id=f"{name}/{task.id}", metadata=named), place)
        if files:
            self.problems += files.problems
            self.notes += files.notes
            self.missing_subtitles += files.missing_subtitles

    def draw(self, np_random: np.random.Generator) -> int:
        """Index of a task: a set by its weight, then any of its tasks."""
        which = int(np.searchsorted(self._ends, np_random.random(), side="right"))
        first, end = [*self._starts, len(self)][which : which + 2]
        return int(np_random.integers(first, end))


def _weight(name: str, weight: Any) -> float:
    number = isinstance(weight, int | float) and not isinstance(weight, bool)
    if not number or not 0 < weight < math.inf:
        raise TaskError(f"{NAME}: the weight of set {name!r} is a positive number, not {weight!r}")
    return float(weight)


def part_of(task: Task) -> str:
    """The set of a mixture that a task is of, "" for a task of no mixture."""
    return str(task.metadata.get(SET, ""))


def draw_index(tasks: TaskSet, np_random: np.random.Generator) -> int:
    """Index of a task to play: by the weights of a mixture, else any."""
    if isinstance(tasks, Mixture):
        return tasks.draw(np_random)
    return int(np_random.integers(len(tasks)))
