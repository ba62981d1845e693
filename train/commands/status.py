"""How a command ends: its exit status, and one line where the caller can set something right.

Between `train.cli` and every command. Tests: `pytest tests/commands/test_cli.py`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from paravt_env.task import TaskError
from train.common.errors import ConfigError

TRAIN_EXTRA = ("torch", "transformers", "tokenizers", "safetensors", "jsonargparse", "yaml", "rich")
"""Distributions' import names whose absence means that the train extra is not installed."""

FAILURES = (
    ("agents.base", "AgentError"),
    ("train.workers.weight_sync", "SyncError"),
    ("train.learner.staleness", "StalenessError"),
    ("train.learner.guard", "TooManyFaults"),
)
"""Errors that end a run, by the module that holds the class."""

CONTINUED = ("data", "eval", "answer", "study")
"""Commands that resume where Ctrl-C stopped them; `train` says itself how it is continued."""

WRONG, INTERRUPTED = 2, 130


def status_of(command: str, run: Callable[[], int]) -> int:
    """The exit status of a command: its own, `WRONG`, or `INTERRUPTED` after Ctrl-C.

    Wrong settings, files that are not there and engines that fail are `WRONG`, with one line that
    says what to do; a bug of ours keeps its traceback.
    """
    try:
        return run()
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in TRAIN_EXTRA:
            raise
        return _say(f"{command} needs {missing}: pip install 'paravt[train]'")
    except BrokenPipeError:  # `paravt ... | head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        kept = ": what is finished is kept, and the same command resumes from there"
        print(f"\nparavt: stopped{kept if command in CONTINUED else ''}", file=sys.stderr)
        return INTERRUPTED
    except ImportError as error:
        if error.name is not None:  # Python's own, a bug; ours say what to install
            raise
        return _say(str(error))
    except (ConfigError, TaskError, OSError) as error:
        return _say(str(error))
    except (RuntimeError, ArithmeticError) as error:
        if not isinstance(error, _failures()):
            raise
        return _say(str(error))


def _failures() -> tuple[type[Exception], ...]:
    """What ends a run and is no bug: an engine, its weights, old rollouts, a series of bad steps.

    Only modules that are loaded can have raised it, and none is loaded for this.
    """
    return tuple(getattr(sys.modules[m], name) for m, name in FAILURES if m in sys.modules)


def _say(message: str) -> int:
    print(f"paravt: error: {message}", file=sys.stderr)
    return WRONG
