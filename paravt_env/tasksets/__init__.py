"""Task sets: where questions and videos come from.

Start of the journey. A task set is one file here and one entry of `TASKSETS`; a path that ends in
`.jsonl` is read as a manifest. Try `python -c "from paravt_env.tasksets import load_tasks;
print(load_tasks('synthetic', split='val', videos=1)[0].prompt)"`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from paravt_env.names import known_name
from paravt_env.task import TaskError, TaskSet
from paravt_env.tasksets.jsonl import JsonlTasks
from paravt_env.tasksets.synthetic import SyntheticTasks

TASKSETS: dict[str, Callable[..., TaskSet]] = {
    "synthetic": SyntheticTasks,
    "jsonl": JsonlTasks,
}


def load_tasks(name: str, **kwargs: Any) -> TaskSet:
    """Load a task set by name, or by the path of a `.jsonl` manifest.

    Raises:
        TaskError: Unknown name (the nearest one is given), arguments that the set does not take, or
            bad contents.
    """
    if name.endswith(".jsonl"):
        name, kwargs = "jsonl", {"path": name, **kwargs}
    try:
        factory = TASKSETS[known_name("task set", name, TASKSETS)]
    except ValueError as error:
        raise TaskError(str(error)) from error
    try:
        return factory(**kwargs)
    except TypeError as error:
        raise TaskError(f"task set {name!r}: {error}") from error
