"""Traces that look by code: conversations of the zoom world for a cold start to imitate.

A :class:`CodeTraceAgent` plays through the real environment, sandbox included: it writes code that
finds the coloured frame which is asked for and cuts out the symbol in it, reads that and answers.
Beside `traces.py`, which crops videos; `demonstrations.py` takes this one where the environment's
tool is code. Tests: `pytest tests/sft/test_code_traces.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from agents.config import AgentConfig, Limits
from agents.text.context import text_ids
from agents.text.conversation import ConversationAgent, Reading, Sampled, Turn
from paravt_env.protocol import render_completion
from paravt_env.sandbox.guest import Host
from paravt_env.task import OPTION_LETTERS, Task, TaskSet
from paravt_env.tasksets.made.synthetic.render import RGB
from paravt_env.tasksets.made.synthetic.world import COLOURS, SYMBOLS
from paravt_env.tasksets.made.zoom.world import FAMILIES
from paravt_env.video.pictures import Pictures
from paravt_env.video.types import Size
from train.common.errors import ConfigError
from train.config.sft import TraceConfig
from train.sft.wording import in_words

NOTHING = "none of them"
"""What a trace says that has looked everywhere, or may look no more."""

DARK = 90
"""Brightness below which a pixel is a symbol's; the background and all frames are far above."""

LOOK = """\
a = np.asarray(images[0])
y, x = np.nonzero((a == {rgb}).all(2))
a = a[y.min():y.max(), x.min():x.max()]
y, x = np.nonzero(a.max(2) < {dark})
show(a[y.min():y.max() + 1, x.min():x.max() + 1])"""
"""The code of a look: the frame by its colour, then the dark pixels within it."""


@dataclass
class Looks:
    """What a trace knows of its row: colours left to look at, and what it saw."""

    task: Task
    left: list[str]
    seen: dict[str, str] = field(default_factory=dict)
    last: str = ""


class CodeTraceAgent(ConversationAgent):
    """Writes traces of the zoom world through the same contexts as a sampled policy.

    Args:
        vlm: Tokenizer and image geometry.
        config: How the policy will play.
        limits: What the environment allows.
        task_of: The task of a row (privileged).
        trace: Dials; `call` is the share that looks, the others guess.
        seed: Seed of the choices.

    Raises:
        ConfigError: A task that is not of the zoom world, when it is played.
    """

    def __init__(
        self,
        vlm: Any,
        config: AgentConfig,
        limits: Limits,
        task_of: Callable[[int], Task],
        trace: TraceConfig,
        seed: int = 0,
    ) -> None:
        super().__init__(vlm, replace(config, forced_prefix=""), limits)
        self.task_of, self.trace = task_of, trace
        self.rng = np.random.default_rng(seed)
        self._looks: dict[int, Looks] = {}

    def begin(self, rows: Sequence[int]) -> None:
        """Forget the episodes of ``rows``."""
        super().begin(rows)
        for row in rows:
            self._looks.pop(row, None)

    def draw(self, turns: Sequence[Turn]) -> list[Sampled]:
        """Write each turn."""
        written = [text_ids(self.vlm.tokenizer, self._write(turn)) for turn in turns]
        return [Sampled([*ids, self.stop_id], [0.0] * (len(ids) + 1)) for ids in written]

    def read(self, readings: Sequence[Reading]) -> list[Sampled]:
        """Never asked: what code shows goes into the context."""
        raise NotImplementedError("where the tool is code, no sub-agent reads")

    def _write(self, turn: Turn) -> str:
        looks = self._looks.get(turn.row)
        if looks is None:
            task = self.task_of(turn.row)
            if task.family not in FAMILIES or "cells" not in task.metadata:
                raise ConfigError(
                    f"task {task.id!r} is not of the zoom world: traces by code know no other"
                )
            left = list(task.metadata["asked"])
            self.rng.shuffle(left)
            looks = self._looks[turn.row] = Looks(task, left)
            if self.rng.random() >= self.trace.call:
                return self._guess(looks, "a guess")
        elif looks.last:
            looks.seen[looks.last] = _cell(looks.task, looks.last)["symbol"]
        answer = answered(looks.task, looks.seen)
        if answer:
            said = in_words(looks.task, answer)
            return render_completion(f"seen {looks.seen[looks.last]}", answer=said)
        if turn.view["must_answer"] or not looks.left:
            return self._guess(looks, NOTHING)
        looks.last = looks.left.pop(0)
        return look_at(looks.last)

    def _guess(self, looks: Looks, thought: str) -> str:
        return render_completion(thought, answer=str(self.rng.choice(list(looks.task.options))))


def look_at(colour: str) -> str:
    """The turn that finds the frame of a colour and shows the symbol in it, as large as it can."""
    return render_completion(f"look {colour}", code=LOOK.format(rgb=RGB[colour], dark=DARK))


def described_crops(
    tasks: TaskSet, pictures: Pictures, size: Size, count: int, rng: np.random.Generator
) -> Iterator[tuple[str, np.ndarray]]:
    """Symbols, each with what the code of a trace shows of it, uint8 (H, W, 3): `count` a picture.

    Raises:
        VideoError: A picture cannot be read.
    """
    from PIL import Image

    guest = Host(None, {"size": size})
    first = {tasks[i].images[0]: tasks[i] for i in range(len(tasks))}
    for path, task in first.items():
        picture, cells = pictures.read(path), task.metadata["cells"]
        for number in rng.integers(len(cells), size=count):
            left, top, right, bottom = cells[number]["box"]
            inside = picture[top:bottom, left:right]
            rows, columns = np.nonzero(inside.max(2) < DARK)
            symbol = inside[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
            shown = guest.fitted(Image.fromarray(symbol))
            yield cells[number]["symbol"], np.asarray(shown)


def answered(task: Task, seen: Mapping[str, str]) -> str:
    """The letter that what was seen proves; "" where it proves none."""
    if task.family == "inside":
        gold = seen.get(task.metadata["asked"][0], "")
    else:
        asked = task.question.split()[-1].rstrip("?")
        gold = next((colour for colour, symbol in seen.items() if symbol == asked), "")
    return OPTION_LETTERS[task.options.index(gold)] if gold in task.options else ""


def _cell(task: Task, colour: str) -> Mapping[str, Any]:
    return next(cell for cell in task.metadata["cells"] if cell["colour"] == colour)


def about_pictures(tasks: TaskSet) -> bool:
    """Whether a set is about pictures; one of both kinds counts as what its first task is about."""
    return bool(len(tasks) and tasks[0].images)


def code_corpus(tasks: TaskSet) -> list[str]:
    """Texts for a tokenizer: what a policy of the zoom world reads and writes."""
    prompts = [tasks[i].prompt for i in range(len(tasks))]
    looks = [look_at(colour) for colour in COLOURS]
    answers = [render_completion(f"seen {symbol}", answer=symbol) for symbol in SYMBOLS]
    return [*prompts, *looks * 40, *answers * 40]
