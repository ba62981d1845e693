"""Traces that look by code: conversations of the zoom world for a cold start to imitate.

A :class:`CodeTraceAgent` plays through the real environment, sandbox included: it names the frame
that the question asks for and where it is, writes the code that crops it, reads the symbol and
answers. Beside `traces.py`, which crops videos; `demonstrations.py` takes this one where the
environment's tool is code. Tests: `pytest tests/sft/test_code_traces.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from agents.config import AgentConfig, Limits
from agents.text.context import text_ids
from agents.text.conversation import ConversationAgent, Reading, Sampled, Turn
from paravt_env.protocol import render_completion
from paravt_env.task import OPTION_LETTERS, Task, TaskSet
from paravt_env.tasksets.made.synthetic.world import COLOURS, SYMBOLS
from paravt_env.tasksets.made.zoom.world import FAMILIES
from train.common.errors import ConfigError
from train.config.sft import TraceConfig

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
            return render_completion(f"seen {looks.seen[looks.last]} {answer}", answer=answer)
        if turn.view["must_answer"] or not looks.left:
            return self._guess(looks, NOTHING)
        looks.last = looks.left.pop(0)
        return look_at(_cell(looks.task, looks.last))

    def _guess(self, looks: Looks, thought: str) -> str:
        letters = OPTION_LETTERS[: len(looks.task.options)]
        return render_completion(thought, answer=str(self.rng.choice(list(letters))))


def look_at(cell: Mapping[str, Any]) -> str:
    """The turn that crops a framed cell: its colour and place, then the code."""
    left, top, right, bottom = cell["box"]
    code = f"show(images[0].crop(({left}, {top}, {right}, {bottom})))"
    return render_completion(f"look {cell['colour']} at {left} {top}", code=code)


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
    answers = [render_completion(f"seen {symbol} A", answer="A") for symbol in SYMBOLS]
    return [*prompts, *looks * 40, *answers * 40]
