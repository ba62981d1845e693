"""The words of a trace: what its plans, readings, judgements and answers say.

Pure functions of a task and of what its synthetic video shows (`oracle`): a perfect reader's facts
in the few words that a small model can learn to write. `train/sft/traces.py` chooses among them,
`train/sft/demonstrations.py` describes single frames by them. Tests: `pytest
tests/sft/test_traces.py tests/sft/test_sft.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from paravt_env.crop import OF_CODE, CropStatus, Window
from paravt_env.protocol import render_completion
from paravt_env.protocol.parts import forced_answer_text, frame_times
from paravt_env.protocol.styles import COMPACT, REACH, PromptStyle
from paravt_env.task import OPTION_LETTERS, Task, TaskSet
from paravt_env.tasksets.made.synthetic import oracle
from paravt_env.tasksets.made.synthetic.oracle import Cue
from paravt_env.tasksets.made.synthetic.world import COLOURS, CORNERS, GREYS, SYMBOLS

SIDES = ("left", "right")
GUESS, UNSEEN, BLIND = "no look, a guess", "unseen, a guess", "unseen, try"


def describe_scene(task: Task, readings: Sequence[oracle.Sighting]) -> str:
    """What one scene's readings say about the question, in two or three words.

    Args:
        task: The task; its family says which fact is asked for.
        readings: Symbols seen in one scene; empty if none was.
    """
    if not readings:
        return "none"
    first = readings[0]
    if task.family == "where":
        return f"{first.colour} {first.corner}"
    if task.family == "count":
        return f"{first.colour} {len({r.corner for r in readings})}"
    if task.family == "when":
        return f"{first.colour} {spanned(readings)}"
    return f"{first.colour} {first.symbol}"


def spanned(readings: Sequence[oracle.Sighting]) -> str:
    """From the frame before an event to the one after it, in seconds: times that prompts name."""
    before = min(2 * r.start - r.first for r in readings)
    after = max(2 * r.end - r.last for r in readings)
    return f"{np.floor(before + 0.5):.0f} - {np.floor(after + 0.5):.0f}"


def facts(task: Task, readings: Sequence[oracle.Sighting], asked: Sequence[int | None]) -> str:
    """What is known of each scene that the question seems to be about."""
    known = (
        describe_scene(task, [r for r in readings if r.scene == scene])
        for scene in asked
        if scene is not None
    )
    return f"it is {'; '.join(known) or 'none'}"


def weighed(task: Task, possible: Sequence[str]) -> str:
    """Each option with whether it agrees with what was read: practice in comparing words.

    Args:
        task: A multiple-choice task.
        possible: Letters of the options that do.
    """
    return ";".join(
        f"{letter} {option} {'yes' if letter in possible else 'no'}"
        for letter, option in zip(OPTION_LETTERS, task.options, strict=False)
    )


def in_words(task: Task, answer: str) -> str:
    """An answer by the words of its option, which a reading holds, not by its letter.

    Graders take either; a model of a few million parameters copies words long before it learns to
    look up what letter stands before them.
    """
    return task.options[OPTION_LETTERS.index(answer)] if task.options else answer


def side_of(cue: Cue) -> str:
    """Where a frame says that its scene's noon is: `left` is still ahead, `right` is over."""
    return "left" if cue.sun_left else "right"


def describe_frame(cue: Cue) -> str:
    """What a single frame shows: scene, side of the sun, symbols.

    >>> describe_frame(Cue(12.0, 3, "red", 0.2, ()))
    'red left none'
    """
    if not cue.symbols:
        what = "none"
    else:
        symbol, corner = cue.symbols[0]
        what = f"{symbol} {corner}" if len(cue.symbols) == 1 else f"{len(cue.symbols)} {symbol}"
    return f"{cue.colour} {side_of(cue)} {what}"


def window_of(style: PromptStyle, cue: Cue) -> Window:
    """The seconds after a frame of the morning, or before one of the afternoon."""
    time = float(frame_times(style, np.array([cue.time]))[0])
    return (time, time + REACH) if cue.sun_left else (max(0.0, time - REACH), time)


def listed(style: PromptStyle, number: int, cue: Cue, asked: bool) -> str:
    """A frame as plans name it: number, scene, the sun's side and the window that follows from it.

    The side is in capitals if the question asks for the scene: that is where to look.

    >>> listed(COMPACT, 3, Cue(104.0, 5, "red", 0.7, ()), True)
    '3 red RIGHT 64 104'
    """
    start, end = window_of(style, cue)
    side = side_of(cue).upper() if asked else side_of(cue)
    return f"{number} {cue.colour} {side} {start:.0f} {end:.0f}"


def crop_reading(task: Task, timestamps: np.ndarray) -> str:
    """The reading of one crop: the asked scene if it is there, else the one on screen longest."""
    by_scene: dict[int, list[oracle.Sighting]] = {}
    for reading in oracle.read_window(task, timestamps):
        by_scene.setdefault(reading.scene, []).append(reading)
    if not by_scene:
        return "none"
    asked = [scene for scene in task.metadata["asked"] if scene in by_scene]
    longest = max(by_scene, key=lambda scene: max(r.last - r.first for r in by_scene[scene]))
    return describe_scene(task, by_scene[asked[0] if asked else longest])


def corpus(tasks: TaskSet) -> list[str]:
    """Texts for a tokenizer: what a policy of this task set will read and write."""
    words = [
        *(
            f"{colour} {symbol} {corner}"
            for colour in COLOURS
            for symbol in SYMBOLS
            for corner in CORNERS
        ),
        *(
            f"look {colour} {side}; {colour} {side} none\n {side.upper()}"
            for colour in (*COLOURS, *GREYS)
            for side in SIDES
        ),
        *(status.value for status in CropStatus if status not in OF_CODE),
    ]
    phrases = [
        "seen: it is none?A red no;B top left yes;C 3 no",
        GUESS,
        UNSEEN,
        f"{BLIND} 64 104",
        "retry red before; blue after",
        forced_answer_text(COMPACT),
    ]
    completions = [render_completion(phrase, [(1, 2)], "A") for phrase in phrases]
    return [*(tasks[i].prompt for i in range(len(tasks))), *words * 4, *completions * 40]
