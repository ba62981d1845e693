"""Traces that watch a video by code: nothing is shown that code did not ask for.

A :class:`VideoCodeTraceAgent` plays the synthetic world without an overview: it first shows frames
of the whole video, then those around each scene that the question asks for, one window a turn, and
answers from what they show. What it says are the words of `traces.py`, its mother; `code_traces.py`
is the same for pictures. Tests: `pytest tests/sft/test_video_code_traces.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from agents.config import AgentConfig, Limits
from agents.text.conversation import Turn
from paravt_env.crop import Window
from paravt_env.protocol import render_completion
from paravt_env.task import Task
from paravt_env.tasksets.made.synthetic import oracle
from train.config.sft import TraceConfig
from train.sft.traces import Notes, TraceAgent
from train.sft.wording import GUESS, window_of

AROUND = "look around"
"""What a trace says before it has seen anything."""


class VideoCodeTraceAgent(TraceAgent):
    """Writes code where its mother writes calls.

    Args:
        vlm: Tokenizer and image geometry.
        config: How the policy will play.
        limits: What the environment allows.
        task_of: The task of a row (privileged).
        trace: Of its dials `call` is the share that looks at all, `retry` how often the other side
            of a scene is looked at, `weigh` that which weighs options; the others play no part.
        frames: Frames that each piece of code asks for.
        seed: Seed of the choices.
    """

    def __init__(
        self,
        vlm: Any,
        config: AgentConfig,
        limits: Limits,
        task_of: Callable[[int], Task],
        trace: TraceConfig,
        frames: int,
        seed: int = 0,
    ) -> None:
        super().__init__(vlm, config, limits, task_of, trace, seed=seed)
        self.frames = frames

    def _write(self, turn: Turn) -> str:
        notes, must_answer = self._notes.get(turn.row), bool(turn.view["must_answer"])
        if notes is None:
            return self._around(turn, must_answer)
        if notes.said:
            return notes.said
        times = turn.view["timestamps"][turn.view["window"] == 1]
        if not len(notes.overview):
            self._see(notes, times)
        notes.seen += oracle.read_window(notes.task, times)
        if not must_answer and not self._proved(notes):
            window = self._next(notes)
            if window is not None:
                asked = [cue for cue in notes.cues if cue.scene in notes.asked]
                return self._show(window, self._plan(notes, asked))
        return self._later_turn(notes, must_answer=True)

    def _around(self, turn: Turn, must_answer: bool) -> str:
        """The first turn: frames of the whole video, or a guess without any."""
        task = self.task_of(turn.row)
        notes = Notes(task, np.zeros(0), (), oracle.asked_scenes(task, ()))
        notes.weigh = self._chance(self.trace.weigh)
        self._notes[turn.row] = notes
        if must_answer or not self._chance(self.trace.call):
            return self._guess(notes, (), GUESS)
        return self._show((0.0, float(turn.view["video"]["duration"])), AROUND)

    def _see(self, notes: Notes, times: np.ndarray) -> None:
        """Take the first frames for the overview that others are given, and plan the looks."""
        notes.overview, notes.cues = times, oracle.visible_cues(notes.task, times)
        notes.asked = oracle.asked_scenes(notes.task, notes.cues)
        for scene in notes.asked:
            if scene is not None:
                notes.windows[scene] = window_of(self.style, self._cue(notes, scene))
        notes.pending = "", list(notes.windows.values())

    def _next(self, notes: Notes) -> Window | None:
        """The next window: those that were planned, then the other sides of what did not show."""
        planned = notes.pending[1] if notes.pending else []
        if planned:
            return planned.pop(0)
        found = {reading.scene for reading in notes.seen}
        for scene in [scene for scene in notes.windows if scene not in found]:
            start, end = notes.windows.pop(scene)
            if self._chance(self.trace.retry):
                left = self._cue(notes, scene).sun_left
                return (max(0.0, 2 * start - end), start) if left else (end, 2 * end - start)
        return None

    def _proved(self, notes: Notes) -> bool:
        return oracle.answer_from_readings(notes.task, notes.seen, notes.asked) is not None

    def _show(self, window: Window, thought: str) -> str:
        start, end = (int(time) for time in window)
        return render_completion(thought, code=f"show(video.frames({start}, {end}, {self.frames}))")
