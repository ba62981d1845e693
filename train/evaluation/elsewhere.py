"""Rows of a report with the scores that lmms-eval gives them, in its own environment.

Between a report and `paravt compare --lmms-eval`. lmms-eval cannot be installed beside us, so
another Python runs `train/adapters/lmms_eval.py`. Tests: `pytest
tests/evaluation/test_elsewhere.py` and, with the real package, `make test-adapters`.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

from train.common.errors import ConfigError
from train.evaluation.scores import EvalReport


def scored_by_lmms_eval(
    report: Path, python: str, task: str, metric: str = "", tasks: str = ""
) -> EvalReport:
    """A report whose rows have the scores of a task of lmms-eval.

    Args:
        report: `after.json` of an evaluation.
        python: The interpreter of the environment that has lmms-eval.
        task: Its name there.
        metric: Where the task has several.
        tasks: Folder with task files of one's own.

    Raises:
        ConfigError: It cannot be run, or refuses the rows; what it said last is the message.
    """
    with TemporaryDirectory() as folder:
        scored = Path(folder) / "after.json"
        words = [python, "-m", "train.adapters.lmms_eval", str(report), "--task", task]
        words += ["--output", str(scored)]
        words += ["--metric", metric] if metric else []
        words += ["--include-path", tasks] if tasks else []
        try:
            done = subprocess.run(words, check=False, capture_output=True, text=True)
        except OSError as error:
            raise ConfigError(f"--lmms-eval {python} cannot be run: {error}") from error
        if done.returncode or not scored.is_file():
            said = done.stderr.strip().rpartition("\n")[2] or f"status {done.returncode}"
            raise ConfigError(f"{report} is not scored by lmms-eval: {said}")
        return EvalReport.load(scored)
