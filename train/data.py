"""`paravt data`: make the synthetic world, list tasks, or say what looking is worth in it.

Start of the journey, seen from the command line; needs the core installation alone. Try
`paravt data stats`: it plans the questions and decodes nothing.
"""

from __future__ import annotations

import argparse
from collections import Counter

from paravt_env.task import TaskSet
from paravt_env.tasksets import load_tasks
from paravt_env.tasksets.synthetic import DEFAULT_VIDEOS
from paravt_env.tasksets.synthetic.generate import plan_tasks
from paravt_env.tasksets.synthetic.stats import format_table, stats
from paravt_env.tasksets.synthetic.world import SPLITS, WorldSettings
from train.errors import ConfigError


def run(args: argparse.Namespace) -> None:
    """Do what `paravt data` was asked for and print it."""
    if args.action == "stats":
        print(measured(args.tasks, args.split or "test", args.videos, args.frame_budgets))
        return
    for split in SPLITS if args.action == "make" and not args.split else (args.split or "test",):
        options = {"videos": args.videos} if args.videos else {}
        tasks = load_tasks(args.tasks, split=split, **options)
        print(described(split, tasks))
        if args.action == "list":
            print("\n".join(listed(tasks, args.limit)))


def measured(tasks: str, split: str, videos: int | None, budgets: list[int]) -> str:
    """The table of `paravt data stats`: accuracy of ideal readers at each K.

    Raises:
        ConfigError: A task set whose videos are not planned: nobody knows what a frame shows there.
    """
    if tasks != "synthetic":
        raise ConfigError(f"stats knows what frames show in synthetic videos only, not in {tasks}")
    if split not in SPLITS:
        raise ConfigError(f"unknown split {split!r}; known: {', '.join(SPLITS)}")
    count = videos or DEFAULT_VIDEOS[split]
    planned = plan_tasks(WorldSettings(), split, count)
    title = f"{len(planned)} questions, {count} videos, split {split}; accuracy in %"
    return f"{title}\n{format_table(stats(planned, budgets))}"


def described(split: str, tasks: TaskSet) -> str:
    """One line on a task set: how many tasks and videos, which families."""
    rows = [tasks[index] for index in range(len(tasks))]
    families = Counter(task.family or task.kind for task in rows)
    shown = ", ".join(f"{name} {count}" for name, count in sorted(families.items()))
    return f"{split}: {len(rows)} tasks on {len({task.video for task in rows})} videos ({shown})"


def listed(tasks: TaskSet, limit: int) -> list[str]:
    """The first tasks, one line each: id, kind, category, video, question."""
    rows = [tasks[index] for index in range(min(limit, len(tasks)))]
    return [
        f"{task.id}  {task.kind}  {task.category or '-'}  {task.video}  {task.question}"
        for task in rows
    ]
