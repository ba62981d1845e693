"""Play a plan on the emulator, encode what it shows, and keep what it knows.

Fourth step of the `atari` task set. One emulator a game runs while its pictures are wanted; its
score, lives, rooms and ends of games are written down by the video's clock, and `questions` asks
for them. The console draws many things in every second picture only, so that each video frame is
the brighter of two neighbouring ones (V. Mnih et al., Nature 518, 2015). Needs `ale-py`. Run
`paravt data make atari`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import av
import numpy as np

from paravt_env.task import TaskError
from paravt_env.tasksets.made.atari.games import GAMES
from paravt_env.tasksets.made.atari.plan import CONSOLE_FPS, Shot, VideoPlan
from paravt_env.tasksets.made.atari.players import Player

WIDTH, HEIGHT = 160, 210  # pixels of the console
_QUALITY = "24"
_KEY_FRAME_EVERY = 48

Change = tuple[float, int]


def emulator() -> Any:
    """The module `ale_py`.

    Raises:
        TaskError: It is not installed.
    """
    try:
        import ale_py
    except ModuleNotFoundError as error:
        raise TaskError(
            "recording atari games needs ale-py, which brings the games: pip install "
            "'paravt[atari]'"
        ) from error
    return ale_py


def emulator_version() -> str:
    """Version of the emulator: another one may play another game from the same seed."""
    return str(emulator().__version__)


@dataclass
class Log:
    """What the emulator knew of one programme, by the video's clock (seconds).

    `score`, `lives` and `rooms` hold (time, value) at the first frame and at every change; `ends`
    the last frame of each game that ended.
    """

    score: list[Change] = field(default_factory=list)
    lives: list[Change] = field(default_factory=list)
    rooms: list[Change] = field(default_factory=list)
    ends: list[float] = field(default_factory=list)

    def note(self, time: float, console: Console) -> None:
        """Write down what is shown at `time`."""
        for changes, value in (
            (self.score, console.score),
            (self.lives, console.lives),
            (self.rooms, console.room),
        ):
            if value is not None and (not changes or changes[-1][1] != value):
                changes.append((time, value))
        if console.over:
            self.ends.append(time)


class Console:
    """One running game and its player.

    Attributes:
        score: Points of the game that is being played.
        lives: Lives left, None where the game has none.
        room: Number of the room, None where the game has none.
        over: Whether the picture is the last one of a game; the next one starts anew.
    """

    def __init__(self, shot: Shot, fps: int) -> None:
        ale_py = emulator()
        ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
        self._ale = ale_py.ALEInterface()
        self._ale.setInt("random_seed", shot.seed)
        self._ale.setFloat("repeat_action_probability", 0.0)
        self._ale.loadROM(ale_py.roms.get_rom_path(shot.game))
        self._ale.reset_game()
        self._actions = {action.name: action for action in self._ale.getLegalActionSet()}
        known = [action.name for action in self._ale.getMinimalActionSet()]
        self._player = Player(shot.game, shot.style, known, np.random.default_rng(shot.seed))
        self._game = GAMES[shot.game]
        self._skip = CONSOLE_FPS // fps
        self.score, self.over = 0, False
        self._look()
        for _ in range(round(shot.lead_in * fps)):
            self.step()

    def step(self) -> np.ndarray:
        """Play for one video frame and return it, uint8 (210, 160, 3)."""
        if self.over:
            self._ale.reset_game()
            self.score, self.over = 0, False
        action = self._actions[self._player.act(self._ale.getRAM())]
        before = self._ale.getScreenRGB()
        for tick in range(self._skip):
            self.score += int(self._ale.act(action))
            if tick == self._skip - 2:
                before = self._ale.getScreenRGB()
            if self._ale.game_over():
                self.over = True
                break
        self._look()
        return np.maximum(before, self._ale.getScreenRGB())

    def _look(self) -> None:
        rooms = self._game.rooms
        self.lives = int(self._ale.lives()) if self._game.lives else None
        self.room = None if rooms is None else int(self._ale.getRAM()[rooms])


@dataclass(frozen=True)
class Recording:
    """A plan and what happened in it: one log a programme."""

    plan: VideoPlan
    logs: tuple[Log, ...]

    def as_dict(self) -> dict[str, Any]:
        """The logs as plain data, for the file beside the video."""
        return {"logs": [asdict(log) for log in self.logs]}

    @classmethod
    def from_dict(cls, plan: VideoPlan, data: dict[str, Any]) -> Recording:
        """Read what `as_dict` wrote."""
        changes = ("score", "lives", "rooms")
        logs = tuple(
            Log(**{n: [(t, v) for t, v in log[n]] for n in changes}, ends=list(log["ends"]))
            for log in data["logs"]
        )
        return cls(plan, logs)


def play(plan: VideoPlan, fps: int, logs: Sequence[Log]) -> Iterator[np.ndarray]:
    """Every frame of the video in time order; what happens is noted in the programmes' `logs`."""
    number = 0
    for programme, log in zip(plan.programmes, logs, strict=True):
        shot, cut = programme.shot, programme.cut
        console = Console(shot, fps)
        other = Console(cut, fps) if cut else None
        while number < round(shot.end * fps):
            time = number / fps
            if cut and other and round(cut.start * fps) <= number < round(cut.end * fps):
                frame = other.step()
            else:
                frame = console.step()
                log.note(time, console)
            yield frame
            number += 1


def record(
    plan: VideoPlan, fps: int, path: Path, tick: Callable[[float], None] = lambda seconds: None
) -> Recording:
    """Write the video to `path` (mp4, H.264, yuv420p) and return what happened in it.

    Args:
        plan: What to play.
        fps: Frames a second.
        path: The file.
        tick: Told the seconds that are done, every ten seconds of video.

    Raises:
        OSError: The file cannot be written; what was written so far is left to the caller to
            remove.
        TaskError: `ale-py` is not installed.
    """
    logs = tuple(Log() for _ in plan.programmes)
    options = {"preset": "ultrafast", "crf": _QUALITY, "threads": "1"}
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=fps, options=options)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.gop_size = _KEY_FRAME_EVERY
        for number, picture in enumerate(play(plan, fps, logs)):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuv420p")
            frame.pts = number
            container.mux(stream.encode(frame))
            if number % (10 * fps) == 0:
                tick(number / fps)
        container.mux(stream.encode())
    return Recording(plan, logs)
