"""Oracle-written traces: the conversations that a cold start imitates.

A :class:`TraceAgent` plays through the real environment and builds the same token contexts as any
text agent, but its turns are written from what a perfect reader would know at that point. So the
cold start sees exactly the tokens, frames, statuses and messages that rollouts will see. Traces
hold answers from the overview, single and parallel calls, guesses without a call (the share is a
dial: the tool prior), mistakes and their recovery; some are in the native form. Their words are
those of `train/sft/wording.py`.

Between the synthetic world and the learner, in ``paravt sft``. Tests: `pytest
tests/sft/test_traces.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from agents.config import AgentConfig, Limits
from agents.text.context import text_ids
from agents.text.conversation import ConversationAgent, Reading, Sampled, Turn
from paravt_env.crop import Window
from paravt_env.protocol import render_completion
from paravt_env.protocol.parts import ClipRef, FrameRef, Part
from paravt_env.task import Task
from paravt_env.tasksets.made.synthetic import oracle
from paravt_env.tasksets.made.synthetic.oracle import Cue
from train.config.sft import TraceConfig
from train.sft.wording import (
    BLIND,
    GUESS,
    UNSEEN,
    crop_reading,
    describe_frame,
    facts,
    in_words,
    listed,
    spanned,
    weighed,
    window_of,
)


@dataclass
class Notes:
    """What a trace knows of its row."""

    task: Task
    overview: np.ndarray
    cues: tuple[Cue, ...]
    asked: tuple[int | None, ...]
    seen: list[oracle.Sighting] = field(default_factory=list)
    windows: dict[int, Window] = field(default_factory=dict)
    """Window next to the frame nearest noon of each asked scene; after a retry it is gone."""
    pending: tuple[str, list[Window]] | None = None
    """Plan and windows to ask for after a mistake."""
    weigh: bool = False
    """Whether this trace weighs the options."""
    native: bool = False
    """Whether it is in the native form."""
    said: str = ""
    """The turn that answered."""


class TraceAgent(ConversationAgent):
    """Writes oracle traces through the same contexts as a sampled policy.

    The opening ``<think>`` is written like everything else, so that the policy learns it: it can
    then be trained with a forced prefix or without one.

    Args:
        vlm: Tokenizer and image geometry.
        config: How the policy will play.
        limits: What the environment allows.
        task_of: The task of a row (privileged).
        trace: Dials.
        words: Share of the overview's frames in whose place words say what they show.
        seed: Seed of the choices.
    """

    def __init__(
        self,
        vlm: Any,
        config: AgentConfig,
        limits: Limits,
        task_of: Callable[[int], Task],
        trace: TraceConfig,
        words: float = 0.0,
        seed: int = 0,
    ) -> None:
        super().__init__(vlm, replace(config, forced_prefix=""), limits)
        self.task_of = task_of
        self.trace, self.words = trace, words
        self.rng = np.random.default_rng(seed)
        self._notes: dict[int, Notes] = {}

    def begin(self, rows: Sequence[int]) -> None:
        """Forget the episodes of ``rows``."""
        super().begin(rows)
        for row in rows:
            self._notes.pop(row, None)

    def overview(self, row: int, view: Mapping[str, Any]) -> list[Part]:
        """Frames of the overview, some of them in words."""
        cues = oracle.visible_cues(self.task_of(row), _times(view, 0))
        parts: list[Part] = []
        for part in super().overview(row, view):
            if isinstance(part, ClipRef):
                parts += self._clip_in_words(part, cues)
            elif isinstance(part, FrameRef) and self._chance(self.words):
                parts.append(f" {describe_frame(cues[part.index])}\n")
            else:
                parts.append(part)
        return parts

    def _clip_in_words(self, clip: ClipRef, cues: Sequence[Cue]) -> list[Part]:
        """A clip of which some temporal patches are told in words, behind the stamps they have."""
        video, parts, kept = self.vlm.video, list[Part](), list[int]()

        def close() -> None:
            if kept:
                times = tuple(clip.times[i] for i in kept)
                parts.append(ClipRef(tuple(clip.indices[i] for i in kept), times))
                kept.clear()

        for number, stamp in enumerate(video.stamps(clip.times)):
            first = number * video.temporal
            pair = range(first, min(first + video.temporal, len(clip.times)))
            if self._chance(self.words):
                close()
                said = ", ".join(describe_frame(cues[clip.indices[i]]) for i in pair)
                parts.append(f"{stamp} {said}\n")
            else:
                kept.extend(pair)
        close()
        return parts

    def draw(self, turns: Sequence[Turn]) -> list[Sampled]:
        """Write each turn."""
        return [self._tokens(self._write(turn)) for turn in turns]

    def read(self, readings: Sequence[Reading]) -> list[Sampled]:
        """Write each reading from what its crop's frames show."""
        return [
            self._tokens(crop_reading(self.task_of(r.row), _times(r.view, r.call + 1)))
            for r in readings
        ]

    def _tokens(self, text: str) -> Sampled:
        ids = [*text_ids(self.vlm.tokenizer, text), self.stop_id]
        return Sampled(ids, [0.0] * len(ids))

    def _write(self, turn: Turn) -> str:
        notes = self._notes.get(turn.row)
        if notes is None:
            notes = self._notes[turn.row] = self._look(turn)
            return self._first_turn(notes)
        if notes.said:  # a bare answer is not taken for one: it is asked for again
            return notes.said
        for call in range(1, self.limits.max_crops + 1):
            times = _times(turn.view, call)
            if len(times):
                notes.seen += oracle.read_window(notes.task, times)
        if notes.pending is not None and not turn.view["must_answer"]:
            (plan, windows), notes.pending = notes.pending, None
            return _turn(notes, plan, windows)
        return self._later_turn(notes, bool(turn.view["must_answer"]))

    def _look(self, turn: Turn) -> Notes:
        task, overview = self.task_of(turn.row), _times(turn.view, 0)
        cues = oracle.visible_cues(task, overview)
        asked, weigh = oracle.asked_scenes(task, cues), self._chance(self.trace.weigh)
        notes = Notes(task, overview, cues, asked, weigh=weigh)
        notes.native = self.trace.native > 0 and self._chance(self.trace.native)
        for scene in notes.asked:
            if scene is not None:
                notes.windows[scene] = window_of(self.style, self._cue(notes, scene))
        return notes

    def _chance(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)

    def _first_turn(self, notes: Notes) -> str:
        task, trace = notes.task, self.trace
        shown = oracle.read_window(task, notes.overview)
        answer = oracle.answer_from_readings(task, shown, notes.asked)
        if answer is not None and task.kind != "grounding" and self._chance(trace.direct):
            return self._answer(notes, f"seen: {self._judge(notes, shown)}", answer)
        own = trace.native_call if notes.native else None
        if not self._chance(trace.call if own is None else own):
            return self._guess(notes, shown, GUESS)
        if not notes.windows:
            if not self._chance(trace.blind):
                return self._guess(notes, shown, f"{self._plan(notes)}: {UNSEEN}")
            window = window_of(self.style, notes.cues[-1])
            thought = f"{self._plan(notes)}: {BLIND} {window[0]:.0f} {window[1]:.0f}"
            return _turn(notes, thought, [window])
        frames = [cue for cue in notes.cues if cue.scene in notes.windows]
        frames = frames[: 1 if self._chance(trace.single) else self.limits.max_crops]
        plan, windows = self._plan(notes, frames), [window_of(self.style, cue) for cue in frames]
        if self._chance(trace.mistake):
            notes.pending = plan, windows
            start, end = windows[0]
            wrong = [(end, start), (start, end + 20.0)][int(self.rng.integers(2))]
            return _turn(notes, plan, [wrong])
        return _turn(notes, plan, windows)

    def _later_turn(self, notes: Notes, must_answer: bool) -> str:
        task, trace = notes.task, self.trace
        answer = oracle.answer_from_readings(task, notes.seen, notes.asked)
        if answer is not None:
            if task.kind == "grounding":
                asked = [r for r in notes.seen if r.scene in notes.asked]
                answer = f" {spanned(asked)}"  # numbers as the reading writes them
            return self._answer(notes, self._judge(notes, notes.seen), answer)
        found = {reading.scene for reading in notes.seen}
        missing = {s: w for s, w in notes.windows.items() if s not in found}
        if missing and not must_answer and self._chance(trace.retry):
            sides, windows = [], []
            for scene, (start, end) in missing.items():
                left = self._cue(notes, scene).sun_left
                span = end - start
                other = (max(0.0, start - span), start) if left else (end, end + span)
                notes.windows.pop(scene)
                sides.append(f"{self._cue(notes, scene).colour} {'before' if left else 'after'}")
                windows.append(other)
            return _turn(notes, f"retry {'; '.join(sides)}", windows)
        return self._guess(notes, notes.seen, f"{self._judge(notes, notes.seen)}, a guess")

    def _guess(self, notes: Notes, readings: Sequence[oracle.Sighting], thought: str) -> str:
        if notes.task.kind == "grounding":
            span = oracle.guess_span(notes.task, notes.overview) or "0-10"
            answer = " " + " - ".join(f"{float(time):.0f}" for time in span.split("-"))
        else:
            task = notes.task
            possible = oracle.possible_answers(task, readings, notes.asked)
            unread = oracle.possible_answers(task, ())  # `after` may have read the wrong scene
            answer = str(self.rng.choice(possible or unread))
        return self._answer(notes, thought, answer)

    def _judge(self, notes: Notes, readings: Sequence[oracle.Sighting]) -> str:
        """The facts, and where options are weighed, what each is worth by them."""
        text = facts(notes.task, readings, notes.asked)
        if not notes.weigh:
            return text
        possible = oracle.possible_answers(notes.task, readings, notes.asked)
        some = 0 < len(possible) < len(notes.task.options)
        return f"{text}?{weighed(notes.task, possible)}" if some else text

    def _answer(self, notes: Notes, thought: str, answer: str) -> str:
        said = answer if notes.weigh else in_words(notes.task, answer)
        notes.said = _turn(notes, thought, answer=said)
        return notes.said

    def _cue(self, notes: Notes, scene: int) -> Cue:
        """The frame that the window of a scene was chosen by."""
        frames = [cue for cue in notes.cues if cue.scene == scene]
        shown = [cue for cue in frames if cue.symbols]
        return min(shown or frames, key=lambda cue: abs(cue.phase - 0.5))

    def _plan(self, notes: Notes, asked: Sequence[Cue] = ()) -> str:
        """All frames in their order with their windows, those that are asked for in capitals.

        A small model reads frames in their order within minutes, and sees at each one whether the
        question names its colour; to find a colour among frames it needs far longer.
        """
        frames = enumerate(notes.cues, 1)
        return "look " + "; ".join(listed(self.style, i, cue, cue in asked) for i, cue in frames)


def _turn(
    notes: Notes, thought: str, windows: Sequence[Window] = (), answer: str | None = None
) -> str:
    """One completion in the form of the trace."""
    return render_completion(thought, windows, answer, native=notes.native)


def _times(view: Any, window: int) -> np.ndarray:
    """Timestamps of the overview (0) or of the i-th crop (from 1) of an observation."""
    return view["timestamps"][view["window"] == window]
