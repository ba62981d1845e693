"""Doors: wherever a name chooses something, `module:name` or `file.py:name` chooses other code.

Used by every table of names: reward terms, task sets, frame budgets, prompt styles, scorers, and
by the agents, advantages and losses above. What a user wrote is run as it is, so only settings
open doors, never a model's text or a data set. Tests: `pytest tests/common/test_doors.py`.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from paravt_env.common.names import known_name

T = TypeVar("T")


def is_door(name: Any) -> bool:
    """Whether a name leads to code of the user's own.

    >>> is_door("grpo"), is_door("mine.py:advantage"), is_door("package.module:advantage")
    (False, True, True)
    """
    return isinstance(name, str) and ":" in name


def chosen(what: str, name: Any, table: Mapping[str, T]) -> T:
    """The entry `name` of a table, or what `module:name` or `file.py:name` leads to.

    Raises:
        ValueError: No such entry (the nearest one is named), no such file or module, or nothing
            of that name in it.

    >>> chosen("operation", "add", {"add": max}), chosen("operation", "math:sqrt", {})(9.0)
    (<built-in function max>, 3.0)
    """
    return opened(what, name) if is_door(name) else table[known_name(what, name, table)]


def opened(what: str, name: str) -> Any:
    """What `module:name` or `file.py:name` leads to.

    Raises:
        ValueError: There is no such file, module or name, or its code could not be imported.
    """
    place, _, member = name.rpartition(":")
    try:
        module = _file(place) if place.endswith(".py") else importlib.import_module(place)
    except (ImportError, OSError, SyntaxError) as error:
        raise ValueError(
            f"{what} {name!r}: {place!r} cannot be imported ({error}); give file.py:name or "
            "package.module:name"
        ) from error
    if not hasattr(module, member):
        raise ValueError(f"{what} {name!r}: there is no {member!r} in {place!r}")
    return getattr(module, member)


def check_name(what: str, name: Any, table: Mapping[str, Any]) -> None:
    """Refuse a name that neither stands in the table nor is a door; opens nothing."""
    if not is_door(name):
        known_name(what, name, table)


def _file(place: str) -> ModuleType:
    """The module of a Python file, run once a process as long as its content stays.

    Two files of one name are two modules, and so is a file that was edited: the name holds a digest
    of path and content. It stands in `sys.modules`, so that what it defines can be pickled.
    """
    path = Path(place).expanduser().resolve()
    digest = blake2b(str(path).encode() + b"\0" + path.read_bytes(), digest_size=4)
    name = f"{path.stem}_{digest.hexdigest()}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{place} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
