"""Players: who holds the joystick while a game is recorded.

Second step of the `atari` task set. `random` holds random actions for a moment each; `scripted` has
the game's habits, or a reflex that reads the machine's memory (where the ball is). A player is a
function of its own generator and of that memory, so a seed gives the same game again. Run the tests
with `pytest tests/tasksets/test_tasksets_atari.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from paravt_env.tasksets.made.atari.games import GAMES

STYLES = ("random", "scripted")
_RANDOM_HOLD = (1, 8)


class Player:
    """Plays one game: `act(memory)` is the name of the next action.

    Args:
        game: Key of `GAMES`.
        style: `random` or `scripted`.
        actions: Names of the actions that the game knows.
        rng: The player's own generator.
    """

    def __init__(self, game: str, style: str, actions: Sequence[str], rng: np.random.Generator):
        self._rng = rng
        self._reflex = REFLEXES.get(game) if style == "scripted" else None
        habits = GAMES[game].habits if style == "scripted" else {}
        self._names = list(habits) or list(actions)
        weights = np.array([habits.get(name, 1.0) for name in self._names])
        self._chances = weights / weights.sum()
        self._hold = GAMES[game].hold if habits else _RANDOM_HOLD
        self._held, self._left = "NOOP", 0

    def act(self, memory: np.ndarray) -> str:
        """The next action, given the machine's 128 bytes of memory (uint8)."""
        if self._reflex is not None:
            return self._reflex(memory, self._rng)
        if self._left == 0:
            self._held = self._names[int(self._rng.choice(len(self._names), p=self._chances))]
            self._left = int(self._rng.integers(self._hold[0], self._hold[1] + 1))
        self._left -= 1
        return self._held


def _pong(memory: np.ndarray, rng: np.random.Generator) -> str:
    """Follow the ball, with lapses."""
    if rng.random() < 0.15:
        return "NOOP"
    ball, own = int(memory[54]), int(memory[51])
    return "LEFT" if ball > own + 4 else "RIGHT" if ball < own - 4 else "NOOP"


def _breakout(memory: np.ndarray, rng: np.random.Generator) -> str:
    """Serve, then keep the paddle under the ball, with lapses."""
    if memory[101] == 0 or rng.random() < 0.05:
        return "FIRE"
    ball, own = int(memory[99]), int(memory[72]) + 4
    return "RIGHT" if ball > own + 3 else "LEFT" if ball < own - 3 else "NOOP"


def _pitfall(memory: np.ndarray, rng: np.random.Generator) -> str:
    """Run to the right and jump a lot; under the ground, look for a way up."""
    if memory[105] > 70:
        return ("UP", "RIGHT", "LEFT", "LEFTFIRE")[int(rng.choice(4, p=(0.5, 0.2, 0.2, 0.1)))]
    return "RIGHTFIRE" if rng.random() < 0.5 else "RIGHT"


REFLEXES: dict[str, Callable[[np.ndarray, np.random.Generator], str]] = {
    "pong": _pong,
    "breakout": _breakout,
    "pitfall": _pitfall,
}
