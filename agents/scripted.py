"""Policies without a model: random, uniform-crop, oracle and majority.

They mark the ends of the scale that a trained policy is measured on, and they exercise the
environment. Each acts on observations like any agent and writes its turn as a completion; the
oracle and a reading uniform-crop agent are privileged and are handed the tasks openly. Try one with
`paravt play --agent oracle`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from agents.base import Decision
from paravt_env.crop import Window
from paravt_env.protocol import action_from_completion, render_completion
from paravt_env.spaces import OVERVIEW
from paravt_env.task import Task
from paravt_env.tasksets.made.synthetic import oracle
from paravt_env.vector import LongVideoVectorEnv

TaskOf = Callable[[int], Task]

RANDOM_SECONDS, UNIFORM_SECONDS = 30.0, 45.0  # length of a crop, where the environment allows it

_OPTION = re.compile(r"^([A-J])\. ", re.MULTILINE)


@dataclass(frozen=True)
class View:
    """What one row shows; `times` holds seconds of the overview's frames (0) and of each crop's."""

    row: int
    question: str
    duration: float
    times: dict[int, np.ndarray]
    must_answer: bool
    max_crops: int

    @property
    def letters(self) -> tuple[str, ...]:
        """Letters of the options, none for a question without."""
        return tuple(_OPTION.findall(self.question))

    @classmethod
    def of(cls, observations: Mapping[str, Any], row: int) -> View:
        """Row `row` of a batched observation."""
        window, times = (
            np.asarray(observations["window"][row]),
            np.asarray(observations["timestamps"][row]),
        )
        return cls(
            row=row,
            question=observations["question"][row],
            duration=float(observations["video"]["duration"][row]),
            times={int(i): times[window == i] for i in np.unique(window) if i >= OVERVIEW},
            must_answer=bool(observations["must_answer"][row]),
            max_crops=len(observations["crop_status"][row]),
        )


class ScriptedAgent:
    """Turns `plan(view) -> (thought, windows, answer)` into an agent; subclasses write `plan`.

    Args:
        seed: Seed of the generator behind every guess.
    """

    def __init__(self, seed: int = 0):
        self.rng = np.random.default_rng(seed)

    def begin(self, rows: Sequence[int]) -> None:
        """Forget what was seen in `rows`."""

    def act(self, observations: Mapping[str, Any], rows: Sequence[int]) -> list[Decision]:
        """Decide for each of `rows`; no model samples, so there is no token-level completion."""
        decisions = []
        for row in rows:
            view = View.of(observations, row)
            thought, windows, answer = self.plan(view)
            text = render_completion(thought, windows, answer)
            decisions.append(Decision(action_from_completion(text, view.max_crops)))
        return decisions

    def plan(self, view: View) -> tuple[str, list[Window], str | None]:
        """The thought, the windows to crop and the answer (`None`: not yet) of one turn."""
        raise NotImplementedError

    def guess(self, view: View) -> str:
        """A random option, or a random span of 12 seconds where there are no options."""
        if view.letters:
            return str(self.rng.choice(view.letters))
        start = float(self.rng.uniform(0, max(view.duration - 12.0, 0.0)))
        return f"{start:.1f}-{start + 12.0:.1f}"


class RandomAgent(ScriptedAgent):
    """Looks at random places with probability 1/2, else answers at random.

    Args:
        seed: Seed of its generator.
        seconds: Length of a crop.
    """

    def __init__(self, seed: int = 0, seconds: float = RANDOM_SECONDS):
        super().__init__(seed)
        self.seconds = seconds

    def plan(self, view: View) -> tuple[str, list[Window], str | None]:
        """Random windows or a random answer."""
        if not view.must_answer and self.rng.random() < 0.5:
            starts = self.rng.uniform(
                0, view.duration, int(self.rng.integers(1, view.max_crops + 1))
            )
            tenths = [round(float(t), 1) for t in starts]
            windows = [(t, round(t + self.seconds, 6)) for t in tenths]  # never longer than seconds
            return "look at random places", windows, None
        return "answer at random", [], self.guess(view)


class MajorityAgent(ScriptedAgent):
    """Always gives the most frequent answer of the tasks it was shown.

    There is one answer for questions with options and one for those without.
    """

    def __init__(self, tasks: Iterable[Task]):
        super().__init__()
        counts: dict[bool, Counter[str]] = {True: Counter(), False: Counter()}
        for task in tasks:
            counts[bool(task.options)][task.answer] += 1
        self.answers = {kind: count.most_common(1)[0][0] for kind, count in counts.items() if count}

    def plan(self, view: View) -> tuple[str, list[Window], str | None]:
        """Answer at once."""
        answer = self.answers.get(bool(view.letters)) or self.guess(view)
        return "the most frequent answer", [], answer


@dataclass
class _Memory:
    """What a reading agent knows of one episode."""

    overview: np.ndarray
    queue: list[Window]
    crops: list[oracle.Sighting] = field(default_factory=list)


class _ReadingAgent(ScriptedAgent):
    """Crops what `windows` says, as many a turn as allowed, and reads the frames perfectly."""

    def __init__(self, task_of: TaskOf, seed: int = 0):
        super().__init__(seed)
        self.task_of = task_of
        self._memory: dict[int, _Memory] = {}

    def begin(self, rows: Sequence[int]) -> None:
        """Forget the episodes of `rows`."""
        for row in rows:
            self._memory.pop(row, None)

    def windows(self, task: Task, overview: np.ndarray, duration: float) -> list[Window]:
        """Where to look, given the overview's timestamps."""
        raise NotImplementedError

    def plan(self, view: View) -> tuple[str, list[Window], str | None]:
        """Crop while windows are left and the turn allows it, then answer."""
        task = self.task_of(view.row)
        memory = self._memory.get(view.row)
        if memory is None:
            overview = view.times.get(OVERVIEW, np.empty(0))
            memory = _Memory(overview, self.windows(task, overview, view.duration))
            self._memory[view.row] = memory
        elif _is_synthetic(task):
            for index, times in view.times.items():
                if index != OVERVIEW:
                    memory.crops += oracle.read_window(task, times)
        if memory.queue and not view.must_answer:
            windows, memory.queue = memory.queue[: view.max_crops], memory.queue[view.max_crops :]
            return "look where the answer may be", windows, None
        return "enough seen", [], self._answer(task, memory, view)

    def _answer(self, task: Task, memory: _Memory, view: View) -> str:
        """The answer that the readings leave; a guess among those still possible."""
        if not _is_synthetic(task):
            return task.answer
        asked = None
        if len(memory.overview):
            asked = oracle.asked_scenes(task, oracle.visible_cues(task, memory.overview))
        if task.kind == "grounding":
            spans = oracle.possible_answers(task, memory.crops, asked)
            return (spans[0] if spans else oracle.guess_span(task, memory.overview)) or self.guess(
                view
            )
        readings = [*oracle.read_window(task, memory.overview), *memory.crops]
        possible = oracle.possible_answers(task, readings, asked)
        return str(self.rng.choice(possible)) if possible else self.guess(view)


class OracleAgent(_ReadingAgent):
    """Looks in the right places and reads what is there; privileged.

    Args:
        task_of: The task of a row, such as `LongVideoVectorEnv.task_of`.
        look: `cues`: crop where the overview's cues point, as an ideal policy would; `evidence`:
            crop around the gold evidence. Tasks that are not synthetic have no cues to read: there
            it crops the evidence and gives the gold answer.
        seed: Seed of the guesses where the overview showed too little.
        seconds: Length of a crop.
    """

    def __init__(
        self,
        task_of: TaskOf,
        look: Literal["cues", "evidence"] = "cues",
        seed: int = 0,
        seconds: float = oracle.CROP_SECONDS,
    ):
        super().__init__(task_of, seed)
        if look not in ("cues", "evidence"):
            raise ValueError(f"look must be 'cues' or 'evidence', not {look!r}")
        self.look, self.seconds = look, seconds

    def windows(self, task: Task, overview: np.ndarray, duration: float) -> list[Window]:
        """Windows that the overview's cues point at, or that hold the evidence."""
        if self.look == "cues" and _is_synthetic(task):
            return oracle.cue_windows(task, overview.tolist(), self.seconds)
        half = self.seconds / 2
        middles = [(start + end) / 2 for start, end in task.evidence]
        return [(max(0.0, middle - half), min(middle + half, duration)) for middle in middles]


class UniformCropAgent(_ReadingAgent):
    """Tiles the video with crops and reads what they happen to show; privileged.

    Args:
        task_of: The task of a row, such as `LongVideoVectorEnv.task_of`.
        crops: How many windows, in the middle of equal parts of the video.
        seconds: Length of a window.
        seed: Seed of the guesses.
    """

    def __init__(
        self, task_of: TaskOf, crops: int = 5, seconds: float = UNIFORM_SECONDS, seed: int = 0
    ):
        super().__init__(task_of, seed)
        self.crops, self.seconds = crops, seconds

    def windows(self, task: Task, overview: np.ndarray, duration: float) -> list[Window]:
        """Equally spaced windows."""
        middles = (np.arange(self.crops) + 0.5) * duration / self.crops
        half = self.seconds / 2
        return [(max(0.0, float(m) - half), min(float(m) + half, duration)) for m in middles]

    def _answer(self, task: Task, memory: _Memory, view: View) -> str:
        """Non-synthetic tasks cannot be read by rule: guess."""
        return super()._answer(task, memory, view) if _is_synthetic(task) else self.guess(view)


def _is_synthetic(task: Task) -> bool:
    return "scenes" in task.metadata and "asked" in task.metadata


def _allowed(seconds: float, env: LongVideoVectorEnv) -> float:
    """`seconds`, or the environment's limit where that is less: a longer crop would be refused."""
    return min(seconds, env.simulation.settings.max_crop_seconds)


# Agents by name: the environment's simulation holds the tasks that privileged ones are given.
SCRIPTED: dict[str, Callable[[LongVideoVectorEnv, int], ScriptedAgent]] = {
    "random": lambda env, seed: RandomAgent(seed, _allowed(RANDOM_SECONDS, env)),
    "uniform": lambda env, seed: UniformCropAgent(
        env.task_of, seconds=_allowed(UNIFORM_SECONDS, env), seed=seed
    ),
    "oracle": lambda env, seed: OracleAgent(
        env.task_of, seed=seed, seconds=_allowed(oracle.CROP_SECONDS, env)
    ),
    "majority": lambda env, seed: MajorityAgent(
        env.simulation.tasks[i] for i in range(len(env.simulation.tasks))
    ),
}
