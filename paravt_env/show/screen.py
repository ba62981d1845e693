"""The screen of `render_mode="human"`: an image with lines of text under it, by pygame.

`LongVideoEnv` shows each observation in it by itself, after `reset` and after every `step`. pygame
is optional: without it, making the environment in this mode fails and says what to install. On a
machine without a display set `SDL_VIDEODRIVER=dummy`. Run the tests with `pytest
tests/env/test_conformance.py`.
"""

from __future__ import annotations

import importlib
import textwrap
from typing import Any

import numpy as np
from gymnasium.error import DependencyNotInstalled

LINE, MARGIN = 18, 6  # pixels
FONT = 16  # points
COLUMNS, LINES = 110, 30  # characters of a line of text, and lines at most


class Screen:
    """A window that opens on the first `show`; it survives pickling as a closed one.

    Args:
        fps: Most images a second; `show` waits where it is called more often.
        limit: Width and height in pixels that a larger image is scaled down to.

    Raises:
        DependencyNotInstalled: pygame is absent.
    """

    def __init__(self, fps: float, limit: tuple[int, int] = (1280, 720)) -> None:
        _pygame()
        self.fps, self.limit = fps, limit
        self._surface: Any = None
        self._clock: Any = None

    def __getstate__(self) -> dict[str, Any]:
        """Everything but the surface, which belongs to this process."""
        return {**self.__dict__, "_surface": None, "_clock": None}

    def show(self, image: np.ndarray, text: str) -> None:
        """Show a uint8 (H, W, 3) image and the text below it.

        Raises:
            RuntimeError: No window can be opened here.
        """
        pygame = _pygame()
        height, width = image.shape[:2]
        scale = min(1.0, self.limit[0] / width, self.limit[1] / height)
        size = max(1, round(width * scale)), max(1, round(height * scale))
        wrapped = [part for line in text.splitlines() for part in textwrap.wrap(line, COLUMNS)]
        if len(wrapped) > LINES:
            wrapped[LINES - 1 :] = [f"... {len(wrapped) - LINES + 1} more lines"]
        screen = self._open((max(size[0], 640), size[1] + LINE * len(wrapped) + 2 * MARGIN))
        screen.fill((0, 0, 0))
        picture = pygame.surfarray.make_surface(image.swapaxes(0, 1))
        screen.blit(pygame.transform.smoothscale(picture, size), (0, 0))
        font = pygame.font.Font(None, FONT + 4)
        for number, line in enumerate(wrapped):
            drawn = font.render(line.replace("\0", " "), True, (230, 230, 230))
            screen.blit(drawn, (MARGIN, size[1] + MARGIN + number * LINE))
        pygame.event.pump()
        self._clock.tick(self.fps)
        pygame.display.flip()

    def close(self) -> None:
        """Close the window; a later `show` opens it again."""
        if self._surface is not None:
            self._surface = self._clock = None
            _pygame().display.quit()

    def _open(self, size: tuple[int, int]) -> Any:
        pygame = _pygame()
        if self._surface is None or self._surface.get_size() != size:
            try:
                pygame.display.init()
                pygame.font.init()
                self._surface = pygame.display.set_mode(size)
            except pygame.error as error:
                raise RuntimeError(
                    f"no window can be opened ({error}): use render_mode='rgb_array' or 'ansi', or "
                    "set SDL_VIDEODRIVER=dummy to continue without a display"
                ) from error
            pygame.display.set_caption("ParaVT")
            self._clock = self._clock or pygame.time.Clock()
        return self._surface


def _pygame() -> Any:
    try:
        return importlib.import_module("pygame")
    except ImportError as error:
        raise DependencyNotInstalled(
            "render_mode='human' needs pygame: pip install 'paravt[human]'"
        ) from error
