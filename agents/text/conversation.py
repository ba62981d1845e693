"""Conversations: how observations become token contexts and completions become actions.

Everything that text agents share, with every engine. A row's episode is one append-only
main context; each executed crop is read in a context of its own (``evidence="subagent"``) or shown
as frames (``"frames"``). A subclass only says how tokens are drawn: ``draw`` for the turns of all
rows, ``read`` for the readings of all crops of all rows. Tests: ``pytest tests/test_defects.py
tests/protocol/test_parse_once.py``.
"""

from __future__ import annotations

import math
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from agents.base import Completion, Decision, Trajectory
from agents.config import AgentConfig, Limits
from agents.text.context import (
    ASSISTANT_OPEN,
    NEXT_TURN,
    SYSTEM_CLOSE,
    SYSTEM_OPEN,
    USER_CLOSE,
    USER_OPEN,
    TokenContext,
    decode_with_offsets,
    stop_ids,
    token_roles,
)
from agents.text.due import due_tokens
from paravt_env.crop import CROP_STATUSES, CropStatus
from paravt_env.protocol.parser import action_of, parse
from paravt_env.protocol.parts import (
    FramesAs,
    Part,
    evidence_parts,
    forced_answer_text,
    overview_parts,
    subagent_parts,
    system_text,
    window_that_ran,
)
from paravt_env.protocol.styles import PromptStyle, prompt_style
from paravt_env.protocol.tags import Role
from paravt_env.spaces import unbatch
from paravt_env.subtitles import lines_of

_OK = 1 + CROP_STATUSES.index(CropStatus.ok)


@dataclass(frozen=True)
class Sampled:
    """What one row drew: tokens (the stop token included, if it came) and log-probabilities."""

    ids: list[int]
    logprobs: list[float]


@dataclass(frozen=True)
class Turn:
    """A turn to be drawn: ``context`` ends where the completion continues."""

    row: int
    view: Mapping[str, Any]
    """The row's observation."""
    context: TokenContext
    limit: int
    """Tokens at most."""


@dataclass(frozen=True)
class Reading:
    """A crop to be read: the ``call``-th (from 0) of the row's last turn."""

    row: int
    call: int
    view: Mapping[str, Any]
    context: TokenContext
    limit: int


@dataclass
class RowState:
    """What an agent remembers of one row's episode."""

    context: TokenContext | None = None
    action: dict[str, Any] | None = None
    readings: list[TokenContext] = field(default_factory=list)


class ConversationAgent(ABC):
    """A text agent whose tokens come from ``draw`` and ``read``.

    Args:
        vlm: The checkpoint's adapter (tokenizer and image geometry are what is used here).
        config: How it plays.
        limits: What the environment allows.

    Raises:
        CheckpointError: `frames_as` is `video` and the checkpoint has no video channel.
    """

    def __init__(self, vlm: Any, config: AgentConfig, limits: Limits | None = None) -> None:
        self.vlm = vlm
        self.config = config
        self.limits = limits or Limits()
        self.evidence = config.evidence or self.limits.evidence
        if self.limits.code:
            self.evidence = "frames"
        self.style = prompt_style(config.prompt_style)
        self.frames_as = config.frames_as
        if self.frames_as == "video":
            _ = vlm.video  # a checkpoint without a video channel fails here and not in an episode
        self.version = 0
        self.stop_id: int = vlm.tokenizer.eos_token_id
        self.stop_ids = stop_ids(vlm)
        self.longest: float = math.inf
        """Tokens of the longest conversation that the engine can hold."""
        self.strict = False
        """Whether a lost engine ends the run (training) or the rows that were asked."""
        self._rows: dict[int, RowState] = {}
        self._prefix = vlm.tokenizer(config.forced_prefix, add_special_tokens=False)["input_ids"]

    @abstractmethod
    def draw(self, turns: Sequence[Turn]) -> list[Sampled]:
        """Draw one completion for each turn, in one batch."""

    @abstractmethod
    def read(self, readings: Sequence[Reading]) -> list[Sampled]:
        """Read each crop, in one batch."""

    def begin(self, rows: Sequence[int]) -> None:
        """Forget the episodes of ``rows``."""
        for row in rows:
            self._rows[row] = RowState()

    def act(self, observations: Mapping[str, Any], rows: Sequence[int]) -> list[Decision]:
        """Extend each row's context by what it sees, draw a turn for all rows, parse it.

        A turn or a reading is cut where its conversation is full (`longest`); a row without room
        for a token fails, and the others continue.
        """
        views = {row: unbatch(observations, row) for row in rows}
        decided: dict[int, Decision] = {}
        texts = self._read_crops(views, decided)
        turns = []
        for row, view in views.items():
            if row in decided:
                continue
            context = self._extend(row, view, texts[row])
            forced = bool(view["must_answer"])
            limit = self.config.answer_tokens if forced else self.config.max_new_tokens
            if self._room(context) < 1:
                decided[row] = self._full(context)
            else:
                turns.append(Turn(row, view, context, min(limit, self._room(context))))
        for turn, drawn in zip(turns, self.draw(turns) if turns else [], strict=True):
            decided[turn.row] = self._decide(turn, drawn)
        return [decided[row] for row in views]

    def _room(self, context: TokenContext) -> int:
        """Tokens that a conversation can still take."""
        return int(min(self.longest - len(context.ids), sys.maxsize))

    def _full(self, context: TokenContext) -> Decision:
        """The decision of a row whose conversation is full."""
        reason = (
            f"a {context.kind} conversation of {len(context.ids)} tokens leaves no room in "
            f"{self.longest}: show fewer frames or raise the limit (agent.vllm.max_model_len, or "
            "the checkpoint's own)"
        )
        return Decision.failed(reason, self.limits.max_crops)

    def trajectories(self, row: int) -> list[Trajectory]:
        """Trajectories of a row's episode so far: the main one, then its sub-agents'."""
        state = self._rows[row]
        if state.context is None:
            return []
        return [state.context.freeze(), *(reading.freeze() for reading in state.readings)]

    def usage(self, row: int) -> dict[str, float]:
        """Frames and tokens of a row's episode so far, its sub-agents' included."""
        state = self._rows[row]
        contexts = [*([state.context] if state.context else []), *state.readings]
        counts = [context.counts() for context in contexts]
        names = ("frames", "visual_tokens", "prompt_tokens", "completion_tokens")
        return {name: float(sum(count[name] for count in counts)) for name in names}

    def _read_crops(
        self, views: Mapping[int, Mapping[str, Any]], decided: dict[int, Decision]
    ) -> dict[int, list[str]]:
        """Sub-agent texts by row and call ("" for a call that did not run).

        A row with a crop that no conversation can hold fails, in `decided`.
        """
        readings: list[Reading] = []
        for row, view in views.items():
            state = self._rows.get(row)
            if state is None or state.action is None or self.evidence == "frames":
                continue
            for call in np.flatnonzero(view["crop_status"] == _OK):
                context = self._reading_context(view, int(call), state.action["crops"][call])
                if self._room(context) < 1:
                    decided[row] = self._full(context)
                    continue
                state.readings.append(context)
                limit = min(self.config.subagent_tokens, self._room(context))
                readings.append(Reading(row, int(call), view, context, limit))
        texts = {row: [""] * self.limits.max_crops for row in views}
        for reading, drawn in zip(readings, self.read(readings) if readings else [], strict=True):
            text, _ = self._decode(drawn.ids)
            reading.context.append(drawn.ids, int(Role.text), drawn.logprobs)
            reading.context.drawn_by(self.version)
            texts[reading.row][reading.call] = text.strip()
        return texts

    def _reading_context(
        self, view: Mapping[str, Any], call: int, window: np.ndarray
    ) -> TokenContext:
        """The prompt of a sub-agent: the crop's frames with their times, then the question."""
        shown = view["window"] == call + 1
        span = window_that_ran(view, window)
        said = lines_of(view["subtitles"], call + 1)
        times, how = view["timestamps"][shown], self.frames_as
        parts = subagent_parts(self.style, view["question"], span, times, said, how)
        context = TokenContext(self.vlm, kind="subagent")
        context.ask(parts, view["frames"][shown])
        return context

    def overview(self, row: int, view: Mapping[str, Any]) -> list[Part]:
        """What a row's first message shows; ``row`` serves agents that know more than ``view``."""
        return overview_parts(self.style, view, self.frames_as)

    def _extend(self, row: int, view: Mapping[str, Any], texts: Sequence[str]) -> TokenContext:
        """Append what the row sees now, up to the point where its next turn starts."""
        state = self._rows.setdefault(row, RowState())
        if state.context is None or state.action is None:
            parts = self.overview(row, view)
            context = open_conversation(self.vlm, self.style, self.limits, view, parts)
            state.context = context
        else:
            context = state.context
            shown = texts if self.evidence == "subagent" else None
            crops = state.action["crops"]
            parts = evidence_parts(self.style, view, crops, shown, self.frames_as)
            context.append_control(NEXT_TURN + USER_OPEN, Role.response)
            context.append_parts(parts, view["frames"], Role.response)
            _end_turn(context, self.style, view, Role.response)
        if prefix := self._prefix_of(view):
            context.append(prefix, self._prefix_roles)
        return context

    def _prefix_of(self, view: Mapping[str, Any]) -> list[int]:
        """The tokens that a turn is made to start with."""
        free = view["must_answer"] and not self.config.answer_prefix
        return [] if free else self._prefix

    @cached_property
    def _prefix_roles(self) -> list[Role]:
        text, ends = self._decode(self._prefix)
        return token_roles(parse(text), ends)

    def _decode(self, ids: Sequence[int]) -> tuple[str, list[int]]:
        """Text without the stop token, and the offset after each token that stands in it."""
        stopped = bool(ids) and ids[-1] in self.stop_ids
        return decode_with_offsets(self.vlm.tokenizer, ids[:-1] if stopped else ids)

    def _decide(self, turn: Turn, drawn: Sampled) -> Decision:
        """Append a drawn turn to its context and parse it into an action."""
        prefix = self._prefix_of(turn.view)
        ids = (*prefix, *drawn.ids)
        text, ends = self._decode(ids)
        parsed = parse(text, lenient=self.limits.lenient_calls, code=self.limits.code)
        roles = token_roles(parsed, ends) + [Role.tag] * (len(ids) - len(ends))
        due = due_tokens(parsed, ends, len(ids))
        turn.context.append(drawn.ids, roles[len(prefix) :], drawn.logprobs, due[len(prefix) :])
        turn.context.drawn_by(self.version)
        if drawn.ids[-1:] != [self.stop_id]:
            turn.context.append([self.stop_id], int(Role.text))
        action = self._rows[turn.row].action = action_of(
            parsed, self.limits.max_crops, self.limits.density
        )
        logprobs = (*([0.0] * len(prefix)), *drawn.logprobs)
        cut = not drawn.ids or drawn.ids[-1] not in self.stop_ids
        written = Completion(
            *(text, ids, logprobs, tuple(map(int, roles)), self.version, cut, len(drawn.ids))
        )
        return Decision(action, written)


def open_conversation(
    vlm: Any,
    style: PromptStyle,
    limits: Limits,
    view: Mapping[str, Any],
    parts: Sequence[Part] | None = None,
    frames_as: FramesAs = "image",
) -> TokenContext:
    """The main context of an episode that starts, up to where the first turn begins.

    Args:
        vlm: Tokenizer and image geometry.
        style: Templates.
        limits: What the environment allows.
        view: One row's observation, of the reset.
        parts: What the first message shows; None is the overview and the question.
        frames_as: How the overview is shown.
    """
    context = TokenContext(vlm)
    bounds = limits.max_crops, limits.max_crop_seconds, limits.max_turns, limits.crop_frames
    system = system_text(style, *bounds)
    if system:
        context.append_control(SYSTEM_OPEN, Role.prompt)
        context.append_text(system, Role.prompt)
        context.append_control(SYSTEM_CLOSE, Role.prompt)
    context.append_control(USER_OPEN, Role.prompt)
    shown = overview_parts(style, view, frames_as) if parts is None else parts
    context.append_parts(shown, view["frames"], Role.prompt)
    _end_turn(context, style, view, Role.prompt)
    context.close_prompt()
    return context


def _end_turn(
    context: TokenContext, style: PromptStyle, view: Mapping[str, Any], role: Role
) -> None:
    """Append what stands between an observation and the turn that follows it."""
    context.append_text(forced_answer_text(style) if view["must_answer"] else "", role)
    context.append_control(USER_CLOSE + ASSISTANT_OPEN, role)
