"""A study over a plane: one start for each pair of two dials, and the same arms from every one.

Turns the `grid` of a study's YAML into the starts and arms that `train.lab.study.study` runs like
any others, so that what is finished is not run again. What came out is drawn as a map by
`train.lab.study.phase`. Tests: `pytest tests/lab/test_study_grid.py`.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from train.lab.study.arms import Arm, StartingPolicy


@dataclass
class Axis:
    """One dial of the starts."""

    title: str = ""
    """As the map names it."""
    setting: str = ""
    """Dotted name in the recipe of the cold start; a number leads into a list
    (`stages.0.steps`)."""
    values: tuple[float, ...] = ()
    """In the order of the map."""


@dataclass
class Grid:
    """Starts at every pair of two dials, and the arms that are trained from each."""

    x: Axis = field(default_factory=Axis)
    y: Axis = field(default_factory=Axis)
    start: StartingPolicy = field(default_factory=StartingPolicy)
    """What all starts share; a dial changes its overrides."""
    arms: dict[str, Arm] = field(default_factory=dict)
    """From every start, by name."""

    def __post_init__(self) -> None:
        """Check that there is something to draw."""
        for axis in (self.x, self.y):
            if not axis.setting or not axis.values or len(set(axis.values)) < len(axis.values):
                raise ValueError(f"a grid's axis needs a setting and different values: {axis}")
        if self.x.setting == self.y.setting:
            raise ValueError(f"both axes of the grid change {self.x.setting}")
        if not self.arms or not self.start.sft:
            raise ValueError("a grid needs arms, and a start with an sft whose settings change")

    def name(self, x: float, y: float) -> str:
        """Of the start at a pair of values."""
        return f"{self.x.setting.split('.')[-1]}{x:g}-{self.y.setting.split('.')[-1]}{y:g}"

    def places(self) -> dict[str, tuple[float, float]]:
        """Each start's values, row by row."""
        return {self.name(x, y): (x, y) for y in self.y.values for x in self.x.values}

    def starts(self) -> dict[str, StartingPolicy]:
        """The start of every place."""
        places = self.places()
        return {name: replace(self.start, overrides=self._at(*places[name])) for name in places}

    def _at(self, x: float, y: float) -> dict[str, Any]:
        one = with_setting(self.start.overrides, self.x.setting, x)
        return with_setting(one, self.y.setting, y)

    def cells(self) -> dict[str, Arm]:
        """The arms of every place, `START-ARM` each; the first arm is the others' control."""
        first = next(iter(self.arms))
        return {
            f"{start}-{name}": replace(
                arm,
                title=f"{start}: {arm.title or name}",
                start=start,
                control=f"{start}-{arm.control or first}",
            )
            for start in self.places()
            for name, arm in self.arms.items()
        }


def with_setting(overrides: Mapping[str, Any], setting: str, value: float) -> dict[str, Any]:
    """Overrides with one setting changed, also inside a mapping or a list that one of them holds.

    Raises:
        ValueError: It leads into something that has no such part.

    >>> with_setting({"stages": [{"steps": 1}], "traces": {"call": 0.5}}, "stages.0.steps", 9)
    {'stages': [{'steps': 9}], 'traces': {'call': 0.5}}
    """
    changed = copy.deepcopy(dict(overrides))
    parts = setting.split(".")
    held = [n for n in range(len(parts) - 1, 0, -1) if ".".join(parts[:n]) in changed]
    if not held:
        return {**changed, setting: value}
    inner: Any = changed[".".join(parts[: held[0]])]
    for part in parts[held[0] : -1]:
        inner = _part(inner, part, setting)
    if not isinstance(inner, dict):
        raise ValueError(f"the grid's {setting} leads into {inner!r}, which has no such part")
    inner[parts[-1]] = value
    return changed


def _part(inner: Any, part: str, setting: str) -> Any:
    if isinstance(inner, list) and part.isdigit() and int(part) < len(inner):
        return inner[int(part)]
    if isinstance(inner, dict) and part in inner:
        return inner[part]
    raise ValueError(f"the grid's {setting} leads into {inner!r}, which has no part {part}")
