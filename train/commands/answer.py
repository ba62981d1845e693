"""`paravt answer`: an agent answers questions whose right answers are not known.

For your own videos, and for evaluators that score elsewhere (`train/adapters/lmms_eval.py`). It is
`paravt eval` up to the score: the same environment, agent, settings and row file, so a run that was
killed resumes where it stopped. Tests: `pytest tests/commands/test_answer.py`.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from paravt_env.common.files import write_whole
from paravt_env.common.names import known_name
from paravt_env.task import Task, TaskError
from paravt_env.tasksets.base import TaskList
from paravt_env.tasksets.rows import FieldError, Place, Problem, read_rows
from train.commands.evaluation import FAILED, default_recipe, with_group
from train.commands.options import recipe_settings
from train.common.console import Work, printable
from train.common.errors import ConfigError
from train.config.run import TrainConfig
from train.evaluation.agents import evaluated_agent
from train.evaluation.measure import play_split
from train.evaluation.row import EvalRow

FIELDS = ("id", "video", "question")
"""Of a question; all three must be there."""
TASKS = "train.commands.answer:Questions"


class Questions(TaskList):
    """Questions without answers, as open tasks.

    Args:
        path: `.jsonl`, `.json` or `.parquet`, one question a row: `FIELDS`. Videos are relative to
            its folder.
        split: Not looked at: all questions are asked.

    Raises:
        TaskError: A row that is no question, or an id that is there twice; the message names it.
    """

    def __init__(self, path: str | Path, split: str | None = None) -> None:
        super().__init__("questions")
        for row in read_rows(Path(path)):
            if isinstance(row, Problem):
                self.problems.append(row)
                continue
            try:
                for name in row.data:
                    known_name("field", name, FIELDS)
                video = os.path.realpath(Path(path).parent / row.text("video"))
                self._add(Task(row.text("id"), video, row.text("question"), "open"), row.place)
            except FieldError as error:
                self.problems.append(Problem(row.place, error.field, str(error)))
            except ValueError as error:
                self.problems.append(Problem(row.place, "", str(error)))
        if not self._tasks and not self.problems:
            self.problems.append(Problem(Place(str(path), "line", 0), "", "no questions"))
        self._check(strict=True)


def run(parser: argparse.ArgumentParser, words: Sequence[str]) -> int:
    """Ask, and write the answers.

    Returns:
        0, or 1 if a question could not be asked; its line says why.
    """
    parser.epilog = (
        "Further words are those of `paravt eval`: the name of a recipe and --key.sub VALUE. "
        "What concerns tasks, splits, suites and scores in it is not looked at."
    )
    parser.add_argument(
        "--questions", type=Path, required=True, help=f"rows of {', '.join(FIELDS)}"
    )
    parser.add_argument(
        "--output", type=Path, required=True, help="a .jsonl file, one answer a line"
    )
    args, rest = parser.parse_known_args(words)
    if args.output.suffix != ".jsonl":
        raise ConfigError(f"--output {args.output}: the answers are JSON lines, name it .jsonl")
    named = [with_group(word) for word in rest]
    config = recipe_settings(parser, TrainConfig, named, default_recipe(named))
    if config is None:
        return 0
    try:
        Questions(args.questions)
    except TaskError as error:
        raise ConfigError(str(error)) from error
    rows = answers(config, args.questions, args.output)
    lines = [json.dumps(said(row), ensure_ascii=False, allow_nan=False) for row in rows]
    write_whole(args.output, "".join(f"{line}\n" for line in lines))
    errors = [row for row in rows if row.error]
    print(printable(f"{args.output}: {len(rows)} questions, {len(errors)} of them not asked"))
    return FAILED if errors else 0


def answers(config: TrainConfig, questions: Path, output: Path) -> Sequence[EvalRow]:
    """Play every question once, by the settings of the recipe.

    Args:
        config: Agent, environment and `evaluation`.
        questions: See `Questions`.
        output: The row file is kept beside it.
    """
    env = replace(
        config.env,
        tasks=TASKS,
        tasks_kwargs={"path": str(questions.resolve())},
        reward="paravt",  # no judge is asked
        scorer=None,
    )
    settings = config.evaluation
    if settings.suite:  # its rule for turns without a tag, without the suite
        settings = replace(settings, suite="", untagged=settings.untagged is not False)
    settings = replace(settings, sweep="", shard="", tasks=None, budgets_per_task=1, blind=False)
    shown: list[Work] = []

    def tell(done: int, total: int, _score: float, errors: int) -> None:
        if not shown:
            shown.append(Work("answered", total, done - 1))
        shown[0].show(done, f"{errors} errors")

    report = play_split(env, settings, evaluated_agent(config), output, tell)
    return report.rows


def said(row: EvalRow) -> dict[str, object]:
    """The line of an answer: "" where none was given, and `error` where nothing was asked."""
    return {
        "id": row.task_id, "answer": row.answer, "stop_reason": str(row.stop_reason),
        "error": row.error, "frame_budget": row.frame_budget, "calls": row.calls,
        "frames_seen": row.frames_seen,
    }  # fmt: skip
