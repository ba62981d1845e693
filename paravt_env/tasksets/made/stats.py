"""What the statistics of task sets share: values gathered by family, and their table.

Under `synthetic.stats` and `atari.stats`, which `paravt data stats` prints. Run the examples with
`python -m doctest paravt_env/tasksets/made/stats.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from paravt_env.task import Task

FRAME_COUNTS = (4, 8, 16, 32, 64)
"""K, the overview frames at which task sets are measured."""


def by_family(tasks: Iterable[Task], values: Iterable[float]) -> dict[str, list[float]]:
    """The values, one a task, gathered by family in alphabetical order."""
    gathered: dict[str, list[float]] = {}
    for task, value in zip(tasks, values, strict=True):
        gathered.setdefault(task.family, []).append(value)
    return dict(sorted(gathered.items()))


def family_table(corner: str, rows: Sequence[tuple[str, Mapping[str, str]]]) -> str:
    """A text table: what stands left in each row, then a cell for each family.

    Args:
        corner: The heading over the left part, as wide as that.
        rows: Left part and cells, whose keys are the families.

    >>> print(family_table("   K", [("   4", {"cut": "1.5"}), ("  16", {"cut": "3.0"})]))
       K     cut
       4     1.5
      16     3.0
    """
    families = list(rows[0][1])
    head = (corner, {name: name for name in families})
    return "\n".join(
        f"{left} " + "".join(f"{cells[name]:>7}" for name in families)
        for left, cells in (head, *rows)
    )
