"""One error message for every name that a caller may mistype: options, budgets, settings.

Used wherever the journey takes plain data from outside. Run the example with `python -m doctest
paravt_env/common/names.py`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any


def known_name(what: str, name: Any, names: Iterable[str]) -> str:
    """Return `name` if it is one of `names`.

    Raises:
        ValueError: It is not; the message lists `names` and gives the nearest one.

    >>> known_name("option", "task_idd", ["task_id", "frame_budget"])
    Traceback (most recent call last):
    ...
    ValueError: option 'task_idd' is not one of task_id, frame_budget; did you mean 'task_id'?
    """
    names = list(names)
    if name in names:
        return name
    near = difflib.get_close_matches(str(name), names, 1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"{what} {name!r} is not one of {', '.join(names)}{hint}")
