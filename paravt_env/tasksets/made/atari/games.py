"""The games that are recorded: how a question calls each, and what its emulator is asked for.

First step of the `atari` task set. A game is one entry of `GAMES`: its title with what is to be
seen, so that no title has to be known; which answers its emulator can give; and the habits of
its scripted player. Only what was checked against the picture is asked for: `scored` where the sum
of rewards is the number on the screen, `rooms` where that byte of memory changes if and only if the
whole picture does. Run the tests with `pytest tests/tasksets/test_tasksets_atari.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Game:
    """One game of `ale-py`.

    Attributes:
        title: Its name.
        look: What is to be seen.
        habits: What the scripted player does and how often, by the emulator's names of actions;
            empty where a reflex of `players.REFLEXES` plays.
        hold: Fewest and most decisions for which an action of the habits is held.
        lives: Whether lives are counted.
        scored: Whether the score is on the screen, as the emulator counts it.
        rooms: Index of the byte (0-127) that tells the room; None where there are none.
    """

    title: str
    look: str
    habits: Mapping[str, float] = field(default_factory=dict)
    hold: tuple[int, int] = (2, 8)
    lives: bool = False
    scored: bool = False
    rooms: int | None = None

    @property
    def name(self) -> str:
        """Title and look, as questions and options show them."""
        return f"{self.title} ({self.look})"


_SIDES = {"LEFT": 0.3, "RIGHT": 0.3, "LEFTFIRE": 0.2, "RIGHTFIRE": 0.2}
_WALK = {"UP": 0.25, "DOWN": 0.25, "LEFT": 0.25, "RIGHT": 0.25}
_SHOOT = {
    "UPFIRE": 0.15, "DOWNFIRE": 0.15, "LEFTFIRE": 0.25, "RIGHTFIRE": 0.25, "UP": 0.1, "DOWN": 0.1,
}  # fmt: skip

GAMES: dict[str, Game] = {
    "pong": Game("Pong", "an orange field with two paddles"),
    "breakout": Game("Breakout", "a ball and a wall of coloured bricks", lives=True, scored=True),
    "space_invaders": Game(
        "Space Invaders", "rows of yellow aliens above three shelters", _SIDES, lives=True
    ),
    "seaquest": Game("Seaquest", "a submarine under water", _SHOOT, lives=True, scored=True),
    "ms_pacman": Game(
        "Ms. Pac-Man", "a pink and blue maze full of dots", _WALK, (3, 14), lives=True, scored=True
    ),
    "freeway": Game(
        "Freeway", "chickens crossing a ten-lane road", {"UP": 0.85, "DOWN": 0.15}, (3, 12)
    ),
    "qbert": Game("Q*bert", "a pyramid of cubes", _WALK, (3, 8), lives=True),
    "asteroids": Game(
        "Asteroids",
        "coloured rocks drifting through black space",
        {"LEFT": 0.2, "RIGHT": 0.2, "FIRE": 0.5, "UP": 0.1},
        (1, 5),
        lives=True,
        scored=True,
    ),
    "enduro": Game(
        "Enduro", "a car race seen from behind", {"FIRE": 0.6, "RIGHTFIRE": 0.2, "LEFTFIRE": 0.2}
    ),
    "frostbite": Game(
        "Frostbite",
        "rows of white ice floes",
        {"DOWN": 0.35, "UP": 0.35, "LEFT": 0.15, "RIGHT": 0.15},
        (4, 10),
        lives=True,
        scored=True,
    ),
    "boxing": Game("Boxing", "two boxers seen from above", _SHOOT),
    "pitfall": Game("Pitfall!", "a man running through the jungle", lives=True, rooms=1),
    "riverraid": Game(
        "River Raid",
        "a plane above a river between green banks",
        {"LEFTFIRE": 0.2, "RIGHTFIRE": 0.2, "FIRE": 0.4, "UPFIRE": 0.2},
        (1, 5),
        lives=True,
        scored=True,
    ),
    "berzerk": Game("Berzerk", "robots between blue walls", _SHOOT, lives=True, scored=True),
    "private_eye": Game(
        "Private Eye",
        "a jumping car in city streets",
        {"RIGHT": 0.45, "LEFT": 0.3, "RIGHTFIRE": 0.05, "NOOP": 0.2},
        (5, 60),
    ),
    "montezuma_revenge": Game(
        "Montezuma's Revenge",
        "ladders, a rope and a rolling skull",
        {"LEFT": 0.2, "RIGHT": 0.2, "DOWN": 0.2, "UP": 0.1, "RIGHTFIRE": 0.15, "LEFTFIRE": 0.15},
        (2, 12),
        lives=True,
    ),
    "bowling": Game(
        "Bowling", "a player and ten pins", {"FIRE": 0.4, "UP": 0.3, "DOWN": 0.3}, (2, 12)
    ),
    "venture": Game("Venture", "pink rooms on a black map", _WALK, (3, 20), lives=True),
    "hero": Game(
        "H.E.R.O.",
        "a man with a propeller in a shaft",
        {"DOWN": 0.3, "LEFT": 0.2, "RIGHT": 0.2, "UP": 0.1, "LEFTFIRE": 0.1, "RIGHTFIRE": 0.1},
        (2, 12),
        lives=True,
    ),
    "beam_rider": Game(
        "Beam Rider",
        "blue lines that come closer in space",
        {"LEFT": 0.25, "RIGHT": 0.25, "FIRE": 0.5},
        lives=True,
        scored=True,
    ),
    "ice_hockey": Game("Ice Hockey", "four players on a white rink", _SHOOT),
    "tennis": Game("Tennis", "two players on a green court", _SHOOT),
    "frogger": Game(
        "Frogger",
        "a road, a river and a frog",
        {"UP": 0.4, "NOOP": 0.3, "LEFT": 0.1, "RIGHT": 0.1, "DOWN": 0.1},
        (1, 4),
        lives=True,
    ),
    "kangaroo": Game(
        "Kangaroo",
        "a kangaroo on purple floors with ladders",
        {"RIGHT": 0.3, "LEFT": 0.2, "UP": 0.2, "RIGHTFIRE": 0.15, "LEFTFIRE": 0.15},
        (2, 10),
        lives=True,
    ),
    "superman": Game(
        "Superman",
        "a man in a cape in front of grey houses",
        {"UP": 0.1, "DOWN": 0.1, "LEFT": 0.2, "RIGHT": 0.6},
        (5, 40),
        rooms=0,
    ),
    "chopper_command": Game(
        "Chopper Command", "a helicopter above a desert", _SHOOT, lives=True, scored=True
    ),
}
