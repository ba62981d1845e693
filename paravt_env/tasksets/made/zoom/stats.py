"""What zooming is worth: accuracy of readers without error, from afar, from near, and of guesses.

`paravt data stats zoom` prints it. The reader of the overview knows how symbols are drawn and where
exactly they stand, and takes the option whose drawing, scaled down as the overview is, is nearest
to what the overview shows: a policy, which has to find both out, reads less. Tests:
`pytest tests/tasksets/test_zoom.py`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from paravt_env.task import OPTION_LETTERS, Task
from paravt_env.tasksets.made.stats import by_family, family_table
from paravt_env.tasksets.made.zoom.generate import make_tasks
from paravt_env.tasksets.made.zoom.world import (
    SHADE,
    Box,
    Cell,
    Plan,
    ZoomSettings,
    draw,
    ink,
    plan_picture,
)
from paravt_env.video.pictures import fitted

OVERVIEWS = (64, 128, 256)
"""Pixels of each side of an overview that its reader is given."""


def measured(settings: ZoomSettings, split: str, pictures: int) -> str:
    """The table of a split's first pictures, in percent; the majority is that of these tasks."""
    plans = [plan_picture(settings, split, index) for index in range(pictures)]
    asked = [
        (plan, draw(plan, settings), make_tasks(plan, settings, index))
        for index, plan in enumerate(plans)
    ]
    tasks = [task for *_, tasks in asked for task in tasks]
    rows = [
        ("blind", [1 / len(task.options) for task in tasks]),
        ("majority", majority(tasks)),
        *((f"from afar {side:4d}", _from_afar(asked, settings, side)) for side in OVERVIEWS),
        ("zoom", [1.0 for _ in tasks]),
    ]
    cells = [(f"{name:<14}", _percent(tasks, values)) for name, values in rows]
    title = f"{len(tasks)} questions, {pictures} pictures, split {split}; accuracy in %"
    return f"{title}\n{family_table(' ' * 14, cells)}"


def majority(tasks: Sequence[Task]) -> list[float]:
    """Whether the most frequent letter of its family is right, for each task."""
    letters = {family: Counter[str]() for family in {task.family for task in tasks}}
    for task in tasks:
        letters[task.family][task.answer] += 1
    best = {family: count.most_common(1)[0][0] for family, count in letters.items()}
    return [float(task.answer == best[task.family]) for task in tasks]


def _percent(tasks: Sequence[Task], values: Sequence[float]) -> Mapping[str, str]:
    gathered = {**by_family(tasks, values), "all": list(values)}
    return {name: f"{100 * float(np.mean(one)):.1f}" for name, one in gathered.items()}


def _from_afar(
    asked: Sequence[tuple[Plan, np.ndarray, Sequence[Task]]], settings: ZoomSettings, side: int
) -> list[float]:
    """Whether the option that looks most like the overview is right, for each task."""
    right = []
    for plan, picture, tasks in asked:
        shown = {
            cell.colour: _scaled(picture, cell.box(settings), settings, side)
            for cell in plan.framed
        }
        for task in tasks:
            inside = task.family == "inside"
            fixed = str(task.metadata["asked"][0]) if inside else task.question.split()[-1][:-1]
            pairs = [(fixed, option) if inside else (option, fixed) for option in task.options]
            cells = {cell.colour: cell for cell in plan.framed}
            far = [
                float(np.square(shown[a] - _template(cells[a], b, settings, side)).sum())
                for a, b in pairs
            ]
            right.append(float(OPTION_LETTERS[int(np.argmin(far))] == task.answer))
    return right


def _template(cell: Cell, symbol: str, settings: ZoomSettings, side: int) -> np.ndarray:
    """How a symbol in the place of a cell's looks, on an even background, in such an overview."""
    half, size = settings.cell // 2, settings.symbol
    down, right = ((half - size) // 2 + shift for shift in cell.shift)
    patch = np.full((half, half), float(SHADE))
    patch[down : down + size, right : right + size] *= 1 - ink(symbol, size)
    whole = np.repeat(patch[..., None], 3, axis=2).astype(np.uint8)
    return _scaled(whole, (0, 0, half, half), settings, side)


def _scaled(picture: np.ndarray, box: Box, settings: ZoomSettings, side: int) -> np.ndarray:
    """The part of an overview that shows a box of the picture, float."""
    left, top, right, bottom = box
    small = max(1, round((right - left) * side / settings.size))
    return fitted(picture[top:bottom, left:right], (small, small)).astype(float)
