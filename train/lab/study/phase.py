"""The map of a grid: where the tool dies, where the form dies, where both live.

Reads the logs of a grid's runs: f and kappa in the first step, played by the start as it is, and
over the last steps; and what the first step predicted of each behaviour beside what the next steps
did (`train.lab.diagnose.drift`). Written by `paravt study NAME` where the study has a grid. Tests:
`pytest tests/lab/test_study_grid.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from train.evaluation.scores import mean
from train.lab.diagnose.drift import FIRST, Moved, moved, verdicts
from train.lab.study.grid import Grid
from train.lab.study.results import Result
from train.rollout.behaviours import BEHAVIOURS
from train.rollout.behaviours import PREFIX as SHARE

ENDS = 5
"""Last steps whose mean counts as the end."""
TOOL, FORM = 0.05, 0.5
"""Calls a rollout from which the tool lives (the paper's vanilla ends at .02), and the compliance
from which the form does."""
FATES = {
    (True, True): ("both live", "#b7dfc3"),
    (True, False): ("the form dies", "#f6d9a8"),
    (False, True): ("the tool dies", "#b9d4ea"),
    (False, False): ("both die", "#e0b8b8"),
}
"""By (tool lives, form lives): what is said and its colour."""
SIDE, LEFT, TOP = 118, 84, 46


@dataclass(frozen=True)
class Fate:
    """What one arm made of one start, as means over its seeds.

    Attributes:
        seeds: How many.
        steps: The longest run's.
        before: f and calls a rollout in the first step.
        after: The same over the last `ENDS` steps.
        accuracy: On training tasks, in the same last steps.
        turns: Shares of first turns in the first step, in the order of `BEHAVIOURS`; empty where
            no turn was written.
    """

    seeds: int
    steps: int
    before: tuple[float, float]
    after: tuple[float, float]
    accuracy: float
    turns: tuple[float, ...] = ()

    @property
    def said(self) -> str:
        """Which of `FATES`."""
        return self._fate[0]

    @property
    def colour(self) -> str:
        """Of its cell."""
        return self._fate[1]

    @property
    def _fate(self) -> tuple[str, str]:
        form, calls = self.after
        return FATES[calls > TOOL, form >= FORM]


def fate(result: Result) -> Fate | None:
    """What an arm's logs say; None where none was run."""
    logs = [steps for steps in result.steps if steps]
    if not logs:
        return None

    def over(steps: Sequence[Mapping[str, float]], key: str) -> float:
        return mean(step[key] for step in steps)

    keys = "compliance", "calls"
    first = [mean(over(log[:1], key) for log in logs) for key in keys]
    last = [mean(over(log[-ENDS:], key) for log in logs) for key in keys]
    accuracy = mean(over(log[-ENDS:], "accuracy") for log in logs)
    names = [f"{SHARE}{name}" for name in BEHAVIOURS]
    wrote = [log[0] for log in logs if all(name in log[0] for name in names)]
    return Fate(
        seeds=len(logs),
        steps=max(map(len, logs)),
        before=(first[0], first[1]),
        after=(last[0], last[1]),
        accuracy=accuracy,
        turns=tuple(mean(step[name] for step in wrote) for name in names if wrote),
    )


def fates(grid: Grid, found: Sequence[Result]) -> dict[str, dict[str, Fate]]:
    """By arm and start, what was run."""
    by_name = {result.arm: fate(result) for result in found}
    return {
        arm: {
            start: one
            for start in grid.places()
            if (one := by_name.get(f"{start}-{arm}")) is not None
        }
        for arm in grid.arms
    }


def phase_table(grid: Grid, found: Sequence[Result]) -> str:
    """Every cell in Markdown, a line each."""
    heads = [axis.title or axis.setting for axis in (grid.x, grid.y)]
    heads += ["arm", "seeds", "steps", "first turns", "f", "κ", "accuracy", ""]
    lines = [heads, ["---"] * len(heads)]
    places = grid.places()
    for start, (x, y) in places.items():
        for arm, at in fates(grid, found).items():
            if start not in at:
                continue
            one = at[start]
            ways = [f"{a:.2f} -> {b:.2f}" for a, b in zip(one.before, one.after, strict=True)]
            cells = [f"{x:g}", f"{y:g}", arm, str(one.seeds), str(one.steps)]
            turns = " ".join(f"{share:.2f}" for share in one.turns)
            lines.append([*cells, turns, *ways, f"{one.accuracy:.2f}", one.said])
    if len(lines) == 2:
        return ""
    said = (
        f"\nThe map: means over seeds of the first step and of the last {ENDS}, on training tasks, "
        f"sampled. The tool lives above κ = {TOOL:g}, the form from f = {FORM:g}. First turns, at "
        f"the start: shares of {', '.join(BEHAVIOURS)}."
    )
    return f"{said}\n\n" + "".join(f"| {' | '.join(line)} |\n" for line in lines)


def drift_lines(grid: Grid, found: Sequence[Result]) -> str:
    """How many predicted signs came true, arm by arm, and every miss by its name."""
    said = {
        f"the mean share of the {FIRST} steps after it": lambda log: moved(log),
        f"the mean share of the last {ENDS} steps": lambda log: moved([*log[:1], *log[1:][-ENDS:]]),
    }
    parts = [_held(grid, found, when, against) for when, against in said.items()]
    if not all(parts):
        return ""
    return (
        "\nPredicted from the first step's shares, rewards and deviations (`paravt diagnose`), "
        f"held against what followed.\n{''.join(parts)}"
    )


def _held(
    grid: Grid,
    found: Sequence[Result],
    when: str,
    against: Callable[[Sequence[Mapping[str, float]]], list[Moved]],
) -> str:
    lines, misses = [], []
    for arm in grid.arms:
        held = [
            (start, one)
            for start in grid.places()
            for result in found
            if result.arm == f"{start}-{arm}"
            for log in result.steps
            for one in against(log)
        ]
        if held:
            lines.append(f"- {arm}: {verdicts([one for _, one in held])}")
            misses += [
                f"- missed: {start}, {arm}, {one.name}: predicted {one.predicted:+.3f}, share "
                f"{one.before:.2f} -> {one.after:.2f}"
                f"{'' if one.clear else ' (within the noise of sampling)'}"
                for start, one in held
                if not one.right
            ]
    return "\n".join(["", f"Against {when}:", "", *lines, *misses, ""]) if lines else ""


def phase_figure(grid: Grid, found: Sequence[Result]) -> str:
    """A map for each arm as one SVG: cells coloured by what lives, with f and kappa in them."""
    drawn = {arm: at for arm, at in fates(grid, found).items() if at}
    wide = SIDE * len(grid.x.values) + LEFT
    high = SIDE * len(grid.y.values) + TOP + 62
    parts = [
        f'<g transform="translate({number * wide},0)">{_map(grid, arm, at)}</g>'
        for number, (arm, at) in enumerate(drawn.items())
    ]
    keys = "".join(
        f'<rect x="{LEFT + 130 * n}" y="{high - 18}" width="11" height="11" fill="{colour}"/>'
        f'<text x="{LEFT + 130 * n + 16}" y="{high - 9}">{said}</text>'
        for n, (said, colour) in enumerate(FATES.values())
    )
    width = max(wide * len(drawn), LEFT + 530)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {high}" width="{width}">'
        "<style>text{font:12px sans-serif;fill:#1f2933}.small{font-size:10px;fill:#4b5563}</style>"
        f'<rect width="100%" height="100%" fill="#fff"/>{"".join(parts)}{keys}</svg>\n'
    )


def _map(grid: Grid, arm: str, at: Mapping[str, Fate]) -> str:
    title = escape(grid.arms[arm].title or arm)
    parts = [f'<text x="{LEFT}" y="18" font-weight="bold">{title}</text>']
    rows = list(reversed(grid.y.values))  # the least below
    for start, (x, y) in grid.places().items():
        left = LEFT + SIDE * grid.x.values.index(x)
        top = TOP + SIDE * rows.index(y) - 20
        one = at.get(start)
        colour = one.colour if one else "#f3f4f6"
        parts.append(
            f'<rect x="{left}" y="{top}" width="{SIDE - 3}" height="{SIDE - 3}" fill="{colour}"/>'
        )
        said = _inside(one) if one else ["not run"]
        parts += [
            f'<text class="small" x="{left + 7}" y="{top + 20 + 17 * n}">{escape(line)}</text>'
            for n, line in enumerate(said)
        ]
    below = TOP + SIDE * len(rows)
    for n, value in enumerate(grid.x.values):
        parts.append(f'<text x="{LEFT + SIDE * n + 45}" y="{below - 6}">{value:g}</text>')
    for n, value in enumerate(rows):
        parts.append(f'<text x="{LEFT - 34}" y="{TOP + SIDE * n + 42}">{value:g}</text>')
    middle = TOP + SIDE * len(rows) / 2
    parts.append(
        f'<text x="{LEFT}" y="{below + 12}">{escape(grid.x.title or grid.x.setting)}</text>'
        f'<text transform="translate(16,{middle + 60}) rotate(-90)">'
        f"{escape(grid.y.title or grid.y.setting)}</text>"
    )
    return "".join(parts)


def _inside(one: Fate) -> list[str]:
    return [
        one.said,
        f"f {one.before[0]:.2f} -> {one.after[0]:.2f}",
        f"κ {one.before[1]:.2f} -> {one.after[1]:.2f}",
        f"accuracy {one.accuracy:.2f}",
        f"{one.seeds} seed{'s' * (one.seeds > 1)}, {one.steps} steps",
    ]
