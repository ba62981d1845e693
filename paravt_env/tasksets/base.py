"""What every task set of files shares: order, look-up by id, and a record of what is wrong.

Between the rows of a file and `TaskSet`. A loader adds each row's task, or the problem that took
its place; with `strict` (the default) any problem is an error, otherwise the other rows are kept
and `problems` tells. Run the tests with `pytest tests/tasksets/test_jsonl.py`.
"""

from __future__ import annotations

import difflib
import os
from collections import Counter
from collections.abc import Iterator, Sequence

from paravt_env.task import Task, TaskError, TaskSet
from paravt_env.tasksets.rows import Place, Problem
from paravt_env.video.types import VideoError


class TaskList:
    """Tasks in the order of their file.

    Attributes:
        name: Name of the set.
        problems: Rows that are no tasks; empty when the set was loaded with `strict`.
        notes: Rows that are kept although something about them is odd.
        missing_subtitles: Subtitle files that rows name and that are not there.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.problems: list[Problem] = []
        self.notes: list[Problem] = []
        self.missing_subtitles: list[str] = []
        self._tasks: list[Task] = []
        self._places: list[Place] = []
        self._index: dict[str, int] = {}

    @property
    def ids(self) -> tuple[str, ...]:
        """Identifiers in file order."""
        return tuple(self._index)

    def __len__(self) -> int:
        """Number of tasks."""
        return len(self._tasks)

    def __getitem__(self, index: int) -> Task:
        """The task at `index`."""
        return self._tasks[index]

    def __iter__(self) -> Iterator[Task]:
        """The tasks in order."""
        return iter(self._tasks)

    def by_id(self, task_id: str) -> Task:
        """The task called `task_id`; raises `TaskError` with the nearest id where there is none."""
        if task_id not in self._index:
            near = difflib.get_close_matches(str(task_id), self._index, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; the first is {self.ids[0]!r}"
            raise TaskError(f"task set {self.name!r} has no task {task_id!r}{hint}")
        return self._tasks[self._index[task_id]]

    def place_of(self, task_id: str) -> Place:
        """The row that a task was read from."""
        return self._places[self._index[task_id]]

    def _add(self, task: Task, place: Place) -> None:
        if task.id in self._index:
            self.problems.append(Problem(place, "id", f"{task.id!r} occurs twice"))
            return
        self._index[task.id] = len(self._tasks)
        self._tasks.append(task)
        self._places.append(place)

    def _check(self, strict: bool) -> None:
        """Raise `TaskError` for the problems found so far, if `strict`."""
        if not strict or not self.problems:
            return
        first, more = self.problems[0], len(self.problems) - 1
        hint = f" ({more} more: `paravt data validate` lists all)" if more else ""
        raise TaskError(f"{first}{hint}")


def relinked(tasks: TaskSet, video: str) -> VideoError | None:
    """The error of a video whose path leads elsewhere since its set of files was loaded.

    Loading resolved every link and found the file inside its root; a path that has become a link
    since then is refused, wherever it leads.
    """
    if not isinstance(tasks, TaskList) or os.path.realpath(video) == video:
        return None
    return VideoError(video, "has become a link since the task set was loaded: load it again")


def unreadable_subtitles(task: Task) -> VideoError | None:
    """The error of a task whose subtitles cannot be read; None where they can, or there are none.

    A file of subtitles is read when first looked at, which is here.
    """
    try:
        len(task.subtitles)
    except TaskError as error:
        path = getattr(task.subtitles, "path", task.medium)
        return VideoError(path, str(error).removeprefix(f"{path}: "))
    return None


def left_out(tasks: TaskSet) -> list[str]:
    """The rows of a set's files that are no tasks, a line each; empty for a set that is strict."""
    if not isinstance(tasks, TaskList):
        return []
    rows: dict[Place, Problem] = {}
    for problem in tasks.problems:
        rows.setdefault(problem.place, problem)
    return [str(problem) for problem in rows.values()]


def say_left_out(lines: Sequence[str], shown: int = 3) -> str:
    """One line that counts rows that were left out and names the first; "" where there are none.

    >>> say_left_out(["a.jsonl, line 2: id: missing", "a.jsonl, line 9: not JSON"], shown=1)
    '2 rows are no tasks, left out and counted nowhere: a.jsonl, line 2: id: missing; and 1 more'
    """
    if not lines:
        return ""
    rest = f"; and {len(lines) - shown} more" if len(lines) > shown else ""
    rows = "row is no task" if len(lines) == 1 else "rows are no tasks"
    named = "; ".join(lines[:shown])
    return f"{len(lines)} {rows}, left out and counted nowhere: {named}{rest}"


def missing_videos(tasks: TaskSet) -> dict[str, int]:
    """Videos and images that are not on disk, in order, and how many tasks ask about each."""
    every = (tasks[index] for index in range(len(tasks)))
    counts = Counter(path for task in every for path in (task.images or (task.video,)))
    return {video: count for video, count in counts.items() if not os.path.isfile(video)}
