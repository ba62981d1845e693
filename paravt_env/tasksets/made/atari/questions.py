"""Questions about a recording: eleven families over four categories, answered by the emulator.

Fifth step of the `atari` task set. A question names a programme or a moment, which an overview
shows, and asks for what only a look at the right seconds shows. Gold letters come from a shuffled
deck: no letter is worth guessing. A family is one function and one table entry; one that a video
does not allow gives its turn to the next. Run `pytest tests/tasksets/test_tasksets_atari.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from paravt_env.task import Task, TaskError
from paravt_env.tasksets.made.atari import happenings, interruptions
from paravt_env.tasksets.made.atari.moments import Aired, aired
from paravt_env.tasksets.made.atari.plan import AtariSettings
from paravt_env.tasksets.made.atari.record import Recording
from paravt_env.tasksets.made.drafts import Drafter, pick, take_turns, tasks_of

_DRAWS = 60  # attempts at a question that this video does not have yet


DRAFTERS: dict[str, tuple[str, Drafter[list[Aired]]]] = {
    "cut": ("plot", interruptions.cut),
    "lives": ("plot", happenings.lives),
    "which": ("temporal", interruptions.which),
    "score": ("plot", happenings.score),
    "when": ("temporal", interruptions.when),
    "rooms": ("spatial", happenings.rooms),
    "order": ("temporal", interruptions.order),
    "number": ("plot", happenings.number),
    "after": ("temporal", interruptions.after),
    "final": ("plot", happenings.final),
    "goal": ("goal", happenings.goal),
}


def make_tasks(recording: Recording, settings: AtariSettings, index: int, video: str) -> list[Task]:
    """Ask `settings.questions` different questions about the `index`-th video of a split.

    Families take turns, also across videos. A pure function of its arguments.

    Raises:
        TaskError: The video cannot yield that many different questions.
    """
    plan = recording.plan
    rng = np.random.default_rng((*plan.seed, 1))
    shows = aired(recording)
    metadata = {"video": plan.name, "duration": plan.duration, "programmes": _programmes(shows)}
    first = index * settings.questions
    turns = range(first, first + settings.questions)
    drafts = take_turns(
        settings.families, lambda family: DRAFTERS[family][1](shows, rng), turns, _DRAWS
    )
    tasks = tasks_of(
        plan.name, drafts, DRAFTERS, rng, _shuffled, metadata, video=video, source="atari"
    )
    if len(tasks) < settings.questions:
        raise TaskError(
            f"atari: {plan.name} has {len(tasks)} different questions; ask fewer, of more "
            "families, or record longer videos"
        )
    return tasks


def _programmes(shows: list[Aired]) -> list[dict[str, object]]:
    """What is on when, as plain data."""
    listed: list[dict[str, object]] = []
    for show in shows:
        shot, cut = show.programme.shot, show.programme.cut
        entry: dict[str, object] = {
            "game": shot.game, "player": shot.style, "start": shot.start, "end": shot.end
        }  # fmt: skip
        if cut:
            entry["cut"] = {"game": cut.game, "start": cut.start, "end": cut.end}
        listed.append(entry)
    return listed


def _shuffled(options: Sequence[str], rng: np.random.Generator) -> list[str]:
    return pick(options, len(options), rng)
