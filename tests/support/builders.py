"""Tiny task sets and actions for the tests of the environment: real files, made in milliseconds.

`clip` is a 30 s video of 4 fps whose every frame shows its own index (see `videos.py`), so a test
can say which frame it expects at which second: frame n is on screen from n / 4 s.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from support.videos import write_video

from paravt_env.spaces import Action, empty_action
from paravt_env.task import Task, TaskError

SECONDS, FPS = 30, 4
SIZE = (32, 64)  # height and width of the frames in an observation


class ListTasks:
    """A task set in memory."""

    def __init__(self, tasks: Sequence[Task], name: str = "list") -> None:
        self.name, self.tasks = name, tuple(tasks)

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(task.id for task in self.tasks)

    def __len__(self) -> int:
        return len(self.tasks)

    def __getitem__(self, index: int) -> Task:
        return self.tasks[index]

    def by_id(self, task_id: str) -> Task:
        for task in self.tasks:
            if task.id == task_id:
                return task
        raise TaskError(f"no task {task_id!r}")


def make_clip(folder: Path, name: str = "clip.mp4", first_index: int = 0) -> str:
    """A 30 s video; frame n shows `first_index + n`."""
    return str(write_video(folder / name, SECONDS * FPS, FPS, gop=16, first_index=first_index))


def make_task(video: str, task_id: str = "colour", **changes: Any) -> Task:
    """An mcq task with the gold letter B and one gold span, 10 to 20 s."""
    fields: dict[str, Any] = {
        "question": "Which colour?",
        "kind": "mcq",
        "options": ("red", "blue", "green"),
        "answer": "B",
        "evidence": ((10.0, 20.0),),
        "family": "colour",
    }
    return Task(id=task_id, video=video, **{**fields, **changes})


def write_manifest(path: Path, tasks: Sequence[Task], val: Sequence[Task] = ()) -> str:
    """The tasks as a JSONL manifest beside their videos; the split `val` has tasks of its own."""
    splits = ["train"] * len(tasks) + ["val"] * len(val) if val else [None] * len(tasks)
    rows = [
        {
            "id": task.id,
            "video": Path(task.video).name,
            "question": task.question,
            "kind": task.kind,
            "options": list(task.options),
            "answer": task.answer,
            "evidence": [list(span) for span in task.evidence],
            "family": task.family,
            "split": split,
        }
        for task, split in zip([*tasks, *val], splits, strict=True)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def act(*windows: tuple[float, float], answer: str = "", max_crops: int = 3) -> Action:
    """An action of an agent that writes no completion."""
    action = empty_action(max_crops)
    for row, window in enumerate(windows):
        action["crops"][row] = window
        action["crop_mask"][row] = 1
    return {**action, "answer": answer}


def same(left: Any, right: Any) -> bool:
    """Bit-by-bit equality of nested observations and infos, types included; NaN equals NaN."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, tuple | list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, np.ndarray) and left.dtype == object:
        return left.shape == right.shape and same(left.tolist(), right.tolist())
    if isinstance(left, np.ndarray):
        return (
            left.dtype == right.dtype
            and left.shape == right.shape
            and left.tobytes() == right.tobytes()
        )
    return bool(left == right or (left != left and right != right))
