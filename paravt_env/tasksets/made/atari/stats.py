"""How much looking the recorded games ask for: what there is, what a guess is worth, what K shows.

What a reader sees in a frame of a game is unknown, so, unlike in `synthetic`, no reader is played
here. What is known is where the evidence lies: a question whose evidence no overview frame
hits cannot be answered from the overview but by a guess. Run `paravt data stats atari`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from paravt_env.task import OPTION_LETTERS, Task
from paravt_env.tasksets.made.stats import FRAME_COUNTS, by_family, family_table
from paravt_env.video.sampler import overview_times


def evidence_shown(task: Task, k: int) -> float:
    """Share of the task's evidence spans in which at least one of K overview frames lies.

    >>> task = Task("t", "v.mp4", "?", "open", answer="1", evidence=((10, 30), (70, 74)),
    ...             metadata={"duration": 100.0})
    >>> evidence_shown(task, 2), evidence_shown(task, 4)
    (0.5, 0.5)
    """
    times = overview_times(task.metadata["duration"], k)
    return float(np.mean([np.any((a <= times) & (times < b)) for a, b in task.evidence]))


def blind_guesses(tasks: Sequence[Task]) -> list[float]:
    """Probability that the majority answer is right, for each task.

    It is the answer, in words, that is most frequent among the *other* questions of the family, of
    the options where there are some; between equally frequent ones the guess is even.
    """
    answers = [_words(task) for task in tasks]
    counts = {
        family: Counter(a for a, task in zip(answers, tasks, strict=True) if task.family == family)
        for family in {task.family for task in tasks}
    }
    guesses = []
    for task, gold in zip(tasks, answers, strict=True):
        others = counts[task.family] - Counter([gold])
        candidates = task.options or tuple(others)
        most = max((others[answer] for answer in candidates), default=0)
        top = [answer for answer in candidates if others[answer] == most]
        guesses.append((gold in top) / len(top) if top else 0.0)
    return guesses


def format_stats(tasks: Iterable[Task], split: str, budgets: Sequence[int] = FRAME_COUNTS) -> str:
    """What there is, in a line or two, and a table with a column for each family.

    Args:
        tasks: At least one, each with evidence and `metadata["duration"]`.
        split: Their split, for the title.
        budgets: K, a row each.
    """
    tasks = list(tasks)
    minutes = [d / 60 for d in {task.video: task.metadata["duration"] for task in tasks}.values()]
    categories = sorted(Counter(task.category for task in tasks).items())
    title = (
        f"{len(tasks)} questions, {len(minutes)} videos of {min(minutes):.1f} to "
        f"{max(minutes):.1f} minutes ({sum(minutes):.1f} in all), split {split}\n"
        f"categories: {', '.join(f'{name} {count}' for name, count in categories)}"
    )
    lengths = [sum(b - a for a, b in task.evidence) for task in tasks]
    rows = [_row("questions", "-", tasks, [1.0] * len(tasks), len, "d")]
    for name, measure in (("median", np.median), ("longest", max)):
        rows.append(_row(f"evidence, {name} s", "-", tasks, lengths, measure, ".1f"))
    means = [("majority answer, %", "-", blind_guesses(tasks))]
    means += [
        ("evidence shown, %", str(k), [evidence_shown(task, k) for task in tasks]) for k in budgets
    ]
    rows += [
        _row(name, k, tasks, [100 * value for value in values], np.mean, ".1f")
        for name, k, values in means
    ]
    return f"{title}\n{family_table(_left('', 'K', 'all'), rows)}"


def _row(
    name: str,
    k: str,
    tasks: Sequence[Task],
    values: Sequence[float],
    measure: Callable[[Sequence[float]], float],
    form: str,
) -> tuple[str, Mapping[str, str]]:
    """A measure of all values, one a task, and of those of each family."""
    families = by_family(tasks, values)
    cells = {family: format(measure(some), form) for family, some in families.items()}
    return _left(name, k, format(measure(values), form)), cells


def _left(name: str, k: str, every: str) -> str:
    return f"{name:<20}{k:>4}{every:>7}"


def _words(task: Task) -> str:
    """The gold answer as text, not as a letter."""
    return task.options[OPTION_LETTERS.index(task.answer)] if task.options else task.answer
