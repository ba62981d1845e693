"""The settings of a study: what is compared with what, and what the arms are to reach.

Before the journey: `load` fills these from a YAML file of `train/studies/`, as recipes are filled.
`train.lab.study.study` makes runs of them, `train.lab.study.report` and `train.lab.study.goals`
read them again beside what was measured. Tests: `pytest tests/lab/test_study.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from paravt_env.common.names import known_name
from train.common.errors import ConfigError
from train.config import recipe
from train.lab.study.arms import Arm, StartingPolicy
from train.lab.study.grid import Grid

STUDIES = Path(__file__).parents[2] / "studies"
GoalMeasure = Literal["greedy_accuracy", "accuracy", "f", "calls", "low_calls"]
"""What a goal is about; `train.lab.study.goals.MEASURES` says of which rows."""


@dataclass
class Goal:
    """What an arm is to reach beside another one; measured and judged below the table."""

    arm: str
    beside: str
    """The other arm."""
    measure: GoalMeasure
    title: str = ""
    """The claim that it is a part of."""
    least: float = 0.0
    """At least this many times the other's mean; 0 asks for the interval of the difference."""
    rises: bool = True
    """least = 0: that interval is to lie above zero; false: it is not to."""
    most: float | None = None
    """In place of a comparison: the arm's own mean is at most this."""


@dataclass
class StudyConfig:
    """What is compared with what."""

    recipe: str = "paragrpo_mini"
    """Recipe that every arm changes."""
    overrides: dict[str, Any] = field(default_factory=dict)
    """Changes to the recipe that all arms share."""
    quick: dict[str, Any] = field(default_factory=dict)
    """Further changes of `--quick`."""
    starts: dict[str, StartingPolicy] = field(default_factory=dict)
    arms: dict[str, Arm] = field(default_factory=dict)
    main: tuple[str, ...] = ()
    """Arms that run where none are named."""
    baseline: str = ""
    """Arm that the others are compared with."""
    goals: tuple[Goal, ...] = ()
    """What the arms are to reach."""
    seeds: tuple[int, ...] = (0, 1, 2)
    grid: Grid | None = None
    """Starts over two dials with arms from each, beside those above; drawn as a map."""
    greedy: bool = True
    """Evaluate greedily too, not only at the training temperature."""

    def __post_init__(self) -> None:
        """Add what the grid makes, and check that every name means something."""
        if self.grid is not None:
            self.starts, self.arms = self.starts | self.grid.starts(), self.arms | self.grid.cells()
            self.main = self.main or tuple(self.grid.cells())
            self.baseline = self.baseline or self.main[0]
        if not self.arms or not self.starts:
            raise ValueError("a study needs arms and starts")
        aims = [name for goal in self.goals for name in (goal.arm, goal.beside)]
        for name in (*self.main, self.baseline, *aims):
            known_name("arm", name, self.arms)
        earlier: list[str] = []
        for name, start in self.starts.items():
            if start.after:
                known_name(f"start before {name}", start.after, earlier)
                if start.checkpoint or not start.sft:
                    raise ValueError(
                        f"start {name} comes after {start.after}: give it an sft and no checkpoint"
                    )
            earlier.append(name)
        for arm in self.arms.values():
            arm.start = arm.start or next(iter(self.starts))
            known_name("start", arm.start, self.starts)
            arm.control = arm.control or self.baseline
            known_name("control", arm.control, self.arms)


def load(name: str) -> StudyConfig:
    """A study by name, or from a YAML file.

    Raises:
        ConfigError: Unknown study or key, wrong type, a name that means nothing.
    """
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        names = sorted(p.stem for p in STUDIES.glob("*.yaml"))
        try:
            path = STUDIES / f"{known_name('study', name, names)}.yaml"
        except ValueError as error:
            raise ConfigError(str(error)) from error
    if not path.is_file():
        raise ConfigError(f"no study at {path}")
    return recipe.build(StudyConfig, recipe.read_settings(path))
