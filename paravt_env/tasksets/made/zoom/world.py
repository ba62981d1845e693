"""The plan of a picture of the zoom world, its drawing, and the box that shows a cell's symbol.

First step of the `zoom` task set: a plan is a pure function of (settings, split, index). All
symbols have the same ink, so that how dark a cell is says nothing about its symbol. Tests: `pytest
tests/tasksets/test_zoom.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import numpy as np

from paravt_env.task import TaskError
from paravt_env.tasksets.made.base import SPLITS, Dials
from paravt_env.tasksets.made.drafts import pick
from paravt_env.tasksets.made.synthetic.render import RGB, symbol_mask
from paravt_env.tasksets.made.synthetic.world import COLOURS, SYMBOLS

FAMILIES = ("inside", "holds")
INK = 0.3
"""Share of a symbol's square that is dark, the same for all symbols."""

SHADE = 170
"""Brightness of the background, on average."""

BLOCK = 8
"""Side in pixels of a block of the background's texture."""

Box = tuple[int, int, int, int]
"""Left, top, right and bottom in pixels, as `PIL.Image.crop` takes them."""


@dataclass(frozen=True)
class ZoomSettings(Dials):
    """The difficulty dials; every field is plain data and part of the cache key."""

    name: ClassVar[str] = "zoom"
    size: int = 768  # pixels of each side of a picture
    grid: int = 4  # cells of each side
    framed: int = 6  # cells with a coloured frame, at most eight
    symbol: int = 20  # pixels of each side of a symbol
    texture: int = 48  # how far the background's brightness wanders
    questions: int = 4  # of each picture
    families: tuple[str, ...] = FAMILIES
    seed: int = 0

    def __post_init__(self) -> None:
        """Check that the dials go together; a JSON list becomes a tuple."""
        object.__setattr__(self, "families", tuple(self.families))
        for name in ("size", "grid", "framed", "symbol", "texture", "questions", "seed"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise TaskError(f"zoom: {name} must be a whole number, not {value!r}")
        if self.grid < 1:
            raise TaskError("zoom: grid must be at least 1")
        if not 4 <= self.framed <= min(len(COLOURS), self.grid**2):
            raise TaskError("zoom: framed must be from 4 to 8, and the grid needs as many cells")
        if self.size % (self.grid * BLOCK):
            raise TaskError(f"zoom: size must be a multiple of grid * {BLOCK}")
        if not 8 <= self.symbol <= self.cell // 2:
            raise TaskError(f"zoom: symbol must be from 8 to half a cell, {self.cell // 2}")
        if not self.families or not {*self.families} <= {*FAMILIES}:
            raise TaskError(f"zoom: families are some of {', '.join(FAMILIES)}")

    @property
    def cell(self) -> int:
        """Pixels of each side of a cell."""
        return self.size // self.grid


@dataclass(frozen=True)
class Cell:
    """One cell: its place in the grid, its symbol, the colour of its frame ("" for none)."""

    row: int
    column: int
    symbol: str
    colour: str
    shift: tuple[int, int] = (0, 0)
    """Pixels that the symbol stands off the middle, down and to the right."""

    def box(self, settings: ZoomSettings) -> Box:
        """The middle quarter of the cell: what shows its symbol and nothing else.

        >>> Cell(0, 1, "star", "red").box(ZoomSettings())
        (240, 48, 336, 144)
        """
        side = settings.cell
        left, top = self.column * side + side // 4, self.row * side + side // 4
        return left, top, left + side // 2, top + side // 2


@dataclass(frozen=True)
class Plan:
    """What a picture shows."""

    name: str
    seed: tuple[int, ...]
    cells: tuple[Cell, ...]

    @property
    def framed(self) -> tuple[Cell, ...]:
        """The cells with a frame."""
        return tuple(cell for cell in self.cells if cell.colour)


def plan_picture(settings: ZoomSettings, split: str, index: int) -> Plan:
    """The plan of a split's picture: places of the frames, their colours, and all symbols."""
    seed = (settings.seed, SPLITS.index(split), index)
    rng = np.random.default_rng(seed)
    places = [divmod(i, settings.grid) for i in range(settings.grid**2)]
    framed = dict(
        zip(
            pick(places, settings.framed, rng),
            pick(list(COLOURS), settings.framed, rng),
            strict=True,
        )
    )
    reach = settings.cell // 4 - settings.symbol // 2
    cells = tuple(
        Cell(
            *(row, column, SYMBOLS[int(rng.integers(len(SYMBOLS)))]),
            colour=framed.get((row, column), ""),
            shift=(int(rng.integers(-reach, reach + 1)), int(rng.integers(-reach, reach + 1))),
        )
        for row, column in places
    )
    return Plan(f"{split}-{index:05d}", seed, cells)


def draw(plan: Plan, settings: ZoomSettings) -> np.ndarray:
    """The picture, uint8 (size, size, 3)."""
    rng = np.random.default_rng((*plan.seed, 1))
    side, blocks = settings.cell, settings.size // BLOCK
    shade = SHADE + rng.integers(-settings.texture, settings.texture + 1, (blocks, blocks))
    grey = np.kron(shade, np.ones((BLOCK, BLOCK)))
    picture = np.repeat(grey[..., None], 3, axis=2)
    for cell in plan.cells:
        top, left = cell.row * side, cell.column * side
        view = picture[top : top + side, left : left + side]
        if cell.colour:
            width, gap = side // 8, side // 16
            ring = np.zeros((side, side), bool)
            ring[gap : side - gap, gap : side - gap] = True
            inner = gap + width
            ring[inner : side - inner, inner : side - inner] = False
            view[ring] = RGB[cell.colour]
        down, right = ((side - settings.symbol) // 2 + shift for shift in cell.shift)
        place = view[down : down + settings.symbol, right : right + settings.symbol]
        place *= (1 - ink(cell.symbol, settings.symbol))[..., None]
    return np.clip(picture, 0, 255).astype(np.uint8)


@lru_cache(maxsize=64)
def ink(symbol: str, size: int) -> np.ndarray:
    """Coverage of a symbol with the ink of all symbols, float (size, size) in 0..1."""
    whole = float(symbol_mask(symbol, 64).mean())
    return symbol_mask(symbol, size, scale=(INK / whole) ** 0.5)
