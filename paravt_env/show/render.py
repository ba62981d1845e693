"""Render an observation: a contact sheet of its frames with their times, a few lines of text, HTML.

`env.render()` and the vector environment's call `render_row`; a new mode is one function and one
entry of `RENDER_MODES`. (`human`, the window of the single environment, is in `screen.py`.) The
digits are drawn from a 3 x 5 pixel font, so that no font library is needed. Run the example with
`python -m doctest paravt_env/show/render.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from html import escape
from typing import Any

import numpy as np

from paravt_env.common.images import data_uri
from paravt_env.common.names import known_name
from paravt_env.spaces import OVERVIEW, PADDING, Observation

GAP = 2  # pixels between tiles
SCALE = 2  # pixels of the screen for one of a glyph
OVERVIEW_COLOUR = (90, 90, 90)
CROP_COLOURS = ((230, 120, 30), (40, 140, 230), (60, 180, 75), (200, 60, 160), (220, 200, 40))

_GLYPHS = {  # 15 bits, row by row from the top left
    "0": 0b111_101_101_101_111,
    "1": 0b010_110_010_010_111,
    "2": 0b111_001_111_100_111,
    "3": 0b111_001_111_001_111,
    "4": 0b101_101_111_001_001,
    "5": 0b111_100_111_001_111,
    "6": 0b111_100_111_101_111,
    "7": 0b111_001_001_010_010,
    "8": 0b111_101_111_101_111,
    "9": 0b111_101_111_001_111,
    ":": 0b000_010_000_010_000,
    ".": 0b000_000_000_000_010,
}


def clock(seconds: float) -> str:
    """Minutes and seconds with one decimal.

    >>> clock(754.26)
    '12:34.3'
    """
    tenths = round(seconds * 10)
    return f"{tenths // 600}:{tenths // 10 % 60:02d}.{tenths % 10}"


def contact_sheet(observation: Observation) -> np.ndarray:
    """All frames of an observation as one image, uint8 (height, width, 3).

    Each tile has its time in the corner and a border that tells the overview (grey) from each crop
    (one colour each). The sheet keeps one size for the whole episode: it has room for every frame
    of the observation space.
    """
    frames, windows = observation["frames"], observation["window"]
    capacity, height, width, _ = frames.shape
    columns = max(1, math.ceil(math.sqrt(capacity)))
    rows = max(1, math.ceil(capacity / columns))
    cell_height, cell_width = height + 2 * GAP, width + 2 * GAP
    sheet = np.zeros((rows * cell_height, columns * cell_width, 3), np.uint8)
    for i in np.flatnonzero((windows != PADDING) & (np.arange(capacity) < _shown(observation))):
        top, left = i // columns * cell_height, i % columns * cell_width
        cell = sheet[top : top + cell_height, left : left + cell_width]
        window = int(windows[i])
        cell[:] = (
            OVERVIEW_COLOUR
            if window == OVERVIEW
            else CROP_COLOURS[(window - 1) % len(CROP_COLOURS)]
        )
        cell[GAP:-GAP, GAP:-GAP] = frames[i]
        _write(cell[GAP:-GAP, GAP:-GAP], clock(float(observation["timestamps"][i])))
    return sheet


def describe(observation: Observation) -> str:
    """The observation in words: the question, where the frames lie, what the calls did."""
    video = observation["video"]
    lines = [
        f"turn {int(observation['turn'])}{' (must answer)' if observation['must_answer'] else ''}, "
        f"video {clock(float(video['duration']))}, {int(video['width'])}x{int(video['height'])}",
        str(observation["question"]),
    ]
    count = _shown(observation)
    windows, times = observation["window"][:count], observation["timestamps"][:count]
    for window in sorted(set(windows.tolist()) - {PADDING}):
        inside = times[windows == window]
        name = "overview" if window == OVERVIEW else f"call {window}"
        lines.append(
            f"{name}: {len(inside)} frames, {clock(inside.min())} to {clock(inside.max())}"
        )
    lines += filter(None, (str(observation["feedback"]), str(observation["subtitles"])))
    return "\n".join(lines)


def fragment(observation: Observation) -> str:
    """The contact sheet and the text as a piece of HTML that needs no other file; text is escaped.

    In a notebook: `IPython.display.HTML(env.render())`.
    """
    sheet = data_uri(contact_sheet(observation), "png")
    return f'<figure><img alt="" src="{sheet}"><pre>{escape(describe(observation))}</pre></figure>'


RENDER_MODES: dict[str, Callable[[Observation], Any]] = {
    "rgb_array": contact_sheet,
    "ansi": describe,
    "html": fragment,
}


def render_row(mode: str, observation: Observation) -> Any:
    """Render one row in `mode`, a key of `RENDER_MODES`."""
    return RENDER_MODES[known_name("render_mode", mode, RENDER_MODES)](observation)


def _shown(observation: Observation) -> int:
    """Frames to show: an idle row is all zeros, and its zero windows are no overview."""
    return 0 if float(observation["video"]["duration"]) == 0.0 else len(observation["window"])


def _write(tile: np.ndarray, text: str) -> None:
    """Draw `text` into the top left corner, white on black; what does not fit is left out."""
    for column, character in enumerate(text):
        bits = np.array([_GLYPHS[character] >> (14 - i) & 1 for i in range(15)], bool).reshape(5, 3)
        glyph = np.kron(np.pad(bits, 1), np.ones((SCALE, SCALE), bool))
        left = column * 4 * SCALE
        if left + glyph.shape[1] > tile.shape[1] or glyph.shape[0] > tile.shape[0]:
            return
        tile[: glyph.shape[0], left : left + glyph.shape[1]] = glyph[..., None] * np.uint8(255)
