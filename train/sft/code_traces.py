"""Traces that look by code: conversations of the zoom world for a cold start to imitate.

A :class:`CodeTraceAgent` plays through the real environment, sandbox included: it names the frame
that the question asks for and where it is, writes the code that crops it, reads the symbol and
answers. Beside `traces.py`, which crops videos; `demonstrations.py` takes this one where the
environment's tool is code. Tests: `pytest tests/sft/test_code_traces.py`.
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
from paravt_env.tasksets.made.synthetic.world import COLOURS, SYMBOLS
from paravt_env.tasksets.made.zoom.world import FAMILIES
from paravt_env.video.pictures import Pictures, fitted
from paravt_env.video.types import Size
from train.common.errors import ConfigError
from train.config.sft import TraceConfig
from train.sft.wording import in_words

NOTHING = "none of them"
"""What a trace says that has looked everywhere, or may look no more."""


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
        trace: Dials; `call` is the share that looks, the others guess; `survey` that of those that
            name every frame and its place before their first look.
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
        first, looks.last = not looks.last, looks.left.pop(0)
        told = survey(looks.task) if first and self.rng.random() < self.trace.survey else ""
        return look_at(_cell(looks.task, looks.last), told)

    def _guess(self, looks: Looks, thought: str) -> str:
        return render_completion(thought, answer=str(self.rng.choice(list(looks.task.options))))


def survey(task: Task) -> str:
    """Every coloured frame of a picture and its place, row by row: what the overview tells."""
    return "; ".join(_placed(cell) for cell in task.metadata["cells"])


def described_pictures(
    tasks: TaskSet, pictures: Pictures, size: Size, count: int, rng: np.random.Generator
) -> Iterator[tuple[str, np.ndarray]]:
    """What single pictures show, and their pixels, uint8 (H, W, 3).

    Of each picture the overview with its frames and their places, and a crop with its symbol, in
    turns: `count` in all, in the pixels that the environment and the sandbox would show.

    Raises:
        VideoError: A picture cannot be read.
    """
    from PIL import Image

    guest = Host(None, {"size": size})
    first = {tasks[i].images[0]: tasks[i] for i in range(len(tasks))}
    for path, task in first.items():
        pixels = pictures.read(path)
        overview, whole = fitted(pixels, size), Image.fromarray(pixels)
        for number in range(count):
            if number % 2:
                cell = task.metadata["cells"][int(rng.integers(len(task.metadata["cells"])))]
                yield cell["symbol"], np.asarray(guest.fitted(whole.crop(cell["box"])))
            else:
                yield survey(task), overview


def look_at(cell: Mapping[str, Any], told: str = "") -> str:
    """The turn that crops a framed cell: what was told, its colour and place, then the code."""
    code = f"show(images[0].crop(({', '.join(map(str, cell['box']))})))"
    look = f"look {_placed(cell)}"
    return render_completion(f"{told}\n{look}" if told else look, code=code)


def _placed(cell: Mapping[str, Any]) -> str:
    left, top, *_ = cell["box"]
    return f"{cell['colour']} at {left} {top}"


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


def code_corpus(tasks: TaskSet) -> list[str]:
    """Texts for a tokenizer: what a policy of the zoom world reads and writes."""
    prompts = [tasks[i].prompt for i in range(len(tasks))]
    looks = [look_at({"colour": colour, "box": [48, 240, 144, 336]}) for colour in COLOURS]
    answers = [render_completion(f"seen {symbol}", answer=symbol) for symbol in SYMBOLS]
    return [*prompts, *looks * 40, *answers * 40]
