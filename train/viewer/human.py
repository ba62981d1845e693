"""A person as an agent: `act` waits until the browser has sent what the person decided.

The rollout is played by `train.rollout.play`, as every agent's is, in a thread of the episode. What
is sent becomes a completion of the protocol, so that the same environment parses, runs and scores
it. Tests: `pytest tests/viewer/test_play.py`.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from queue import Empty, Queue
from threading import Condition, Thread
from typing import Any, NamedTuple

import numpy as np

from agents.base import AgentError, Completion, Decision
from paravt_env.common.images import encode_jpeg
from paravt_env.crop import CROP_STATUSES
from paravt_env.protocol import action_from_completion, render_completion
from paravt_env.spaces import OVERVIEW, PADDING, unbatch
from paravt_env.task import Task
from paravt_env.vector import LongVideoVectorEnv
from train.rollout.play import Rollout, play
from train.rollout.starts import Start
from train.viewer.errors import CannotShow

PATIENCE = 3600.0
"""Seconds that a person may think; then the episode ends without a score."""
MAX_TEXT = 2000
"""Characters of a thought, an answer, or a note on a crop."""
LOADING, WAITING, PLAYING, ENDED, FAILED = "loading", "waiting", "playing", "ended", "failed"


class Seen(NamedTuple):
    """A frame that the person was shown; `data` is a JPEG."""

    turn: int
    window: int
    time: float
    data: bytes


class Said(NamedTuple):
    """What a person decided in a turn, and the notes on the crops that the turn showed."""

    completion: str
    notes: tuple[str, ...]


@dataclass
class Moment:
    """What a turn shows: the row's observation without its frames, and the calls before it."""

    view: dict[str, Any]
    windows: tuple[tuple[float, float], ...] = ()
    said: Said | None = None

    @property
    def statuses(self) -> list[str]:
        """What became of each call of the turn before."""
        codes = [int(code) for code in self.view["crop_status"]]
        return [CROP_STATUSES[code - 1].value for code in codes if code]

    @property
    def must_answer(self) -> bool:
        """Whether this turn must answer."""
        return bool(self.view["must_answer"])


@dataclass
class Episode:
    """An episode of a person, as the pages show it.

    Args:
        env: One row, which this episode has for itself.
        start: Task and frames.
        ended: Called with the episode after the last turn, in its thread.
    """

    env: LongVideoVectorEnv
    start: Start
    ended: Callable[[Episode], None]
    name: str = field(default_factory=lambda: secrets.token_urlsafe(12))
    state: str = LOADING
    moments: list[Moment] = field(default_factory=list)
    frames: list[Seen] = field(default_factory=list)
    rollout: Rollout | None = None
    problem: str = ""

    def __post_init__(self) -> None:
        """Start to play."""
        self._sent: Queue[Said | None] = Queue()
        self._moved = Condition()
        self._windows: tuple[tuple[float, float], ...] = ()
        self._thread = Thread(target=self._play, daemon=True, name=f"episode {self.name}")
        self._thread.start()

    @property
    def task(self) -> Task:
        """What is asked."""
        return self.env.simulation.tasks.by_id(str(self.start.task_id))

    def begin(self, rows: Sequence[int]) -> None:
        """Nothing is left from an episode before: each has a person of its own."""

    def act(self, observations: Mapping[str, Any], rows: Sequence[int]) -> list[Decision]:
        """Show the row, wait for what is decided, and hand it on.

        Raises:
            AgentError: The person left, or thought for longer than `PATIENCE`.
        """
        (row,) = rows
        self._show(unbatch(observations, row))
        try:
            said = self._sent.get(timeout=PATIENCE)
        except Empty:
            said = None
        if said is None:
            raise AgentError("no decision was sent")
        self.moments[-1].said = said
        most = self.env.simulation.settings.max_crops
        action = action_from_completion(said.completion, most)
        self._windows = tuple(
            (float(a), float(b)) for a, b in action["crops"][action["crop_mask"] == 1]
        )
        written = Completion(said.completion, (), (), ())
        return [Decision(action, written)]

    def decide(self, turn: int, sent: Mapping[str, Any]) -> None:
        """Take a decision from the browser.

        Args:
            turn: The turn that it is for, from 0: a second click on a button decides nothing.
            sent: `thought`, `notes` and either `answer` or `windows` in seconds.

        Raises:
            CannotShow: It is none, or not the turn for it.
        """
        said = decision(sent)
        with self._moved:
            if self.state != WAITING or turn != len(self.moments) - 1:
                raise CannotShow("this turn is over: load the page again", 409)
            self._to(PLAYING)
        self._sent.put(said)

    def leave(self) -> None:
        """End the episode without a score, and wait until its row is free."""
        self._sent.put(None)
        self._thread.join(PATIENCE)

    def settle(self, seconds: float) -> str:
        """The state, after waiting a while for one that asks for something of the reader."""
        with self._moved:
            self._moved.wait_for(lambda: self.state not in (LOADING, PLAYING), seconds)
            return self.state

    def _play(self) -> None:
        try:
            (self.rollout,) = play(self.env, self, [self.start])
            self.problem = self.rollout.error
            if not self.problem:
                self.ended(self)
        except Exception as error:  # shown on the page of the episode, with its kind
            self.problem = f"{type(error).__name__}: {error}"
            raise
        finally:
            with self._moved:
                self._to(FAILED if self.problem or self.rollout is None else ENDED)

    def _show(self, view: dict[str, Any]) -> None:
        turn = len(self.moments)
        frames, windows = view.pop("frames"), np.asarray(view["window"])
        for i in np.flatnonzero(windows != PADDING):
            if windows[i] > OVERVIEW or turn == 0:
                picture = encode_jpeg(np.asarray(frames[i]))
                time = float(view["timestamps"][i])
                self.frames.append(Seen(turn, int(windows[i]), time, picture))
        with self._moved:
            self.moments.append(Moment(dict(view), self._windows))
            self._to(WAITING)

    def _to(self, state: str) -> None:
        self.state = state
        self._moved.notify_all()


def decision(sent: Mapping[str, Any]) -> Said:
    """A decision in the words of the protocol.

    Raises:
        CannotShow: It is no decision.

    >>> print(decision({"windows": [[1, 2.5]]}).completion)
    <think>
    look
    </think>
    <tool_call>
    {"name": "crop_video", "arguments": {"start_time": 1, "end_time": 2.5}}
    </tool_call>
    """
    answer, asked = sent.get("answer"), sent.get("windows", [])
    notes = sent.get("notes", [])
    if not isinstance(asked, list) or not isinstance(notes, list) or len(asked) > 100:
        raise CannotShow("windows and notes are lists", 400)
    texts = [sent.get("thought", ""), *notes, answer or ""]
    if not all(isinstance(text, str) and len(text) <= MAX_TEXT for text in texts):
        raise CannotShow(f"texts have at most {MAX_TEXT} characters", 400)
    if bool(asked) == bool(answer and answer.strip()):
        raise CannotShow("give either windows or an answer", 400)
    try:
        windows = [(float(start), float(end)) for start, end in asked]
        if not all(map(math.isfinite, [second for window in windows for second in window])):
            raise ValueError("a window is not finite")
        thought = sent.get("thought", "").strip() or ("look" if windows else "answer")
        said = answer.strip() if answer else None
        return Said(render_completion(thought, windows, said), tuple(notes))
    except (TypeError, ValueError) as error:
        raise CannotShow(f"this is no decision: {error}", 400) from error
