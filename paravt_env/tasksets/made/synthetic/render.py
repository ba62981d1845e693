"""Draw a planned video and encode it as H.264.

Second step of the `synthetic` task set: frames are composed straight in YUV 4:2:0 (the encoder's
own layout) from a cached background per scene, a pool of noise fields and pre-drawn sprites, so
that a 15-minute video takes a second or two. Colours follow BT.601 in limited range, which is what
decoders assume of a small video. Run `paravt data make` to write the videos.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np

from paravt_env.tasksets.made.synthetic.world import CORNERS, Scene, VideoPlan, WorldSettings

RGB = {
    "red": (205, 25, 30),
    "green": (30, 150, 45),
    "blue": (25, 60, 215),
    "yellow": (225, 205, 25),
    "purple": (125, 30, 150),
    "orange": (240, 120, 15),
    "cyan": (30, 190, 205),
    "pink": (245, 130, 190),
    "light grey": (150, 150, 150),
    "dark grey": (65, 65, 65),
}
_NOISE_FIELDS = 16
_QUANTISER = "28"  # constant: half the time of rate control, and files under a megabyte
_KEY_FRAME_EVERY = 48


@dataclass(frozen=True)
class Sprite:
    """A white shape with a black outline; coverage (alpha) is within 0..1."""

    alpha: np.ndarray  # (h, w) float32
    luma: np.ndarray  # (h, w) float32
    alpha_half: np.ndarray  # (h/2, w/2) float32


def symbol_mask(symbol: str, size: int, scale: float = 1.0) -> np.ndarray:
    """Coverage of a symbol on a size x size canvas, float32 in 0..1 (4 x 4 samples a pixel).

    >>> round(float(symbol_mask("square", 40).mean()), 2)
    0.77
    """
    ticks = ((np.arange(size * 4) + 0.5) / (size * 4) * 2 - 1) / scale
    y, x = np.meshgrid(ticks, ticks, indexing="ij")
    radius = np.hypot(x, y)
    if symbol == "circle":
        inside = radius < 0.95
    elif symbol == "square":
        inside = np.maximum(abs(x), abs(y)) < 0.88
    elif symbol == "triangle":
        inside = (y < 0.85) & (abs(x) < (y + 0.95) * 0.53)
    elif symbol == "cross":
        inside = (np.minimum(abs(x), abs(y)) < 0.26) & (radius < 1.0)
    elif symbol == "star":
        angle = np.arctan2(x, -y) % (2 * np.pi / 5) - np.pi / 5
        inner = 0.38
        # Edge from an outer tip (angle pi/5, radius 1) to an inner corner (angle 0, `inner`).
        tip = np.array([np.cos(np.pi / 5), np.sin(np.pi / 5)])
        px, py = radius * np.cos(angle), radius * abs(np.sin(angle))
        inside = (px - inner) * tip[1] - py * (tip[0] - inner) < 0
    elif symbol == "diamond":
        inside = abs(x) / 0.7 + abs(y) < 1.0
    elif symbol == "ring":
        inside = (radius < 0.97) & (radius > 0.55)
    elif symbol == "bar":
        inside = (abs(y) < 0.32) & (abs(x) < 0.97)
    else:
        raise ValueError(f"unknown symbol {symbol!r}")
    return inside.reshape(size, 4, size, 4).mean(axis=(1, 3), dtype=np.float32)


def _grow(mask: np.ndarray, pixels: int) -> np.ndarray:
    """Largest value within a disc of `pixels`."""
    grown = mask.copy()
    padded = np.pad(mask, pixels)
    for dy in range(-pixels, pixels + 1):
        for dx in range(-pixels, pixels + 1):
            if dy * dy + dx * dx <= pixels * pixels + 1:
                part = padded[pixels + dy :, pixels + dx :][: mask.shape[0], : mask.shape[1]]
                np.maximum(grown, part, out=grown)
    return grown


def _sprite(symbol: str, size: int) -> Sprite:
    """A symbol of about `size` pixels across (even), outline included."""
    outline = max(1, size // 20)
    body = symbol_mask(symbol, size, scale=1 - 2 * outline / size)
    alpha = _grow(body, outline)
    luma = np.where(alpha > 0, 16 + 219 * body / np.maximum(alpha, 1e-6), 16).astype(np.float32)
    half = alpha.reshape(size // 2, 2, size // 2, 2).mean(axis=(1, 3))
    return Sprite(alpha, luma, half)


def _even(value: float) -> int:
    """The nearest even whole number."""
    return 2 * round(value / 2)


class Painter:
    """Paints a video's frames: uint8 (3/2 height, width), planes Y, U, V one under the other."""

    def __init__(self, plan: VideoPlan, settings: WorldSettings):
        """Prepare sprites and noise; the textures' generator is the plan's own."""
        self._plan = plan
        self._settings = settings
        self._rng = np.random.default_rng((*plan.seed, 1))
        width, height = settings.width, settings.height
        self._strip = _even(height * 0.15)
        self._size = _even(min(width / 2, (height - self._strip) / 2) * 0.78)
        self._sprites = {
            e.symbol: _sprite(e.symbol, self._size) for s in plan.scenes for e in s.events
        }
        self._sun = _sprite("circle", _even(self._strip * 0.9))
        level = settings.noise
        noise = self._rng.integers(-level, level + 1, (_NOISE_FIELDS, height, width))
        self._noise = noise.astype(np.int8).view(np.uint8)

    def frames(self) -> Iterator[np.ndarray]:
        """Every frame in time order."""
        number = 0
        for scene in self._plan.scenes:
            background = self._background(scene)
            last = round(scene.end * self._settings.fps)
            drift = self._drift(scene, np.arange(number, last) / self._settings.fps)
            for blobs in zip(*drift, strict=True) if drift else [()] * (last - number):
                yield self._frame(scene, background, blobs, number)
                number += 1

    def _background(self, scene: Scene) -> np.ndarray:
        """A flat colour with a coarse, smooth brightness texture; stripes for grey scenes."""
        width, height = self._settings.width, self._settings.height
        red, green, blue = RGB[scene.colour]
        luma = 16 + (65.738 * red + 129.057 * green + 25.064 * blue) / 256
        frame = np.empty((height * 3 // 2, width), np.uint8)
        coarse = self._rng.uniform(-6, 6, (height // 16 + 2, width // 16 + 2))
        texture = np.kron(coarse, np.ones((16, 16)))[8 : height + 8, 8 : width + 8]
        if not scene.coloured:
            texture = (
                texture
                + 8 * np.sign(np.sin(np.arange(height) * 2 * np.pi / max(8, height // 8)))[:, None]
            )
        frame[:height] = np.clip(luma + texture, 30, 220)
        quarter = height * width // 4
        chroma = frame[height:].reshape(-1)
        chroma[:quarter] = round(128 + (-37.945 * red - 74.494 * green + 112.439 * blue) / 256)
        chroma[quarter:] = round(128 + (112.439 * red - 94.154 * green - 18.285 * blue) / 256)
        return frame

    def _drift(self, scene: Scene, times_F: np.ndarray) -> list[list[tuple[int, int, int]]]:
        """Blobs that mean nothing: top, left and luma depth of each at each time."""
        room = np.array((self._settings.height, self._settings.width)) - self._size // 2
        blobs = []
        for _ in range(self._settings.distractors):
            place = self._rng.uniform(0, 1, 2)
            speed = self._rng.uniform(-0.06, 0.06, 2)  # in sizes a second
            depth = -int(self._rng.integers(-22, -11))
            corners_F2 = (place + speed * (times_F[:, None] - scene.start)) % 1.0 * room
            blobs.append([(top, left, depth) for top, left in corners_F2.astype(int).tolist()])
        return blobs

    def _frame(
        self,
        scene: Scene,
        background: np.ndarray,
        blobs: Sequence[tuple[int, int, int]],
        number: int,
    ) -> np.ndarray:
        width, height = self._settings.width, self._settings.height
        time = number / self._settings.fps
        frame = background.copy()
        luma = frame[:height]
        blob = self._size // 2
        for top, left, depth in blobs:
            shade = luma[top : top + blob, left : left + blob]
            np.subtract(np.maximum(shade, 16 + depth), depth, out=shade)
        for event in scene.events:
            # Half a frame of margin: times are whole frames divided by fps.
            if event.start - 0.5 / self._settings.fps < time < event.end - 0.5 / self._settings.fps:
                self._paste(frame, self._sprites[event.symbol], *self._place(event.corner))
        sun = self._sun.alpha.shape[0]
        across = scene.phase(time + 0.5 / self._settings.fps) * (width - sun)
        top, left = _even((self._strip - sun) / 2), _even(across)
        luma[top : top + sun, : left + sun // 2] = 235  # the way it has come stays bright
        chroma = frame[height:].reshape(2, height // 2, width // 2)
        chroma[:, top // 2 : (top + sun) // 2, : (left + sun // 2) // 2] = 128
        self._paste(frame, self._sun, top, left)
        luma += self._noise[number % _NOISE_FIELDS]  # modulo 256; 16 - 12 and 235 + 12 stay inside
        return frame

    def _place(self, corner: str) -> tuple[int, int]:
        """Top left pixel of a symbol; corners are the quarters of the frame below the sun."""
        row, column = divmod(CORNERS.index(corner), 2)
        width, height, size = self._settings.width, self._settings.height, self._size
        top = (
            (self._strip + (height / 2 - self._strip - size) / 2)
            if row == 0
            else height * 0.75 - size / 2
        )
        return _even(max(top, 0)), _even(width * (0.25 + 0.5 * column) - size / 2)

    def _paste(self, frame: np.ndarray, sprite: Sprite, top: int, left: int) -> None:
        width, height = self._settings.width, self._settings.height
        size = sprite.alpha.shape[0]
        target = frame[top : top + size, left : left + size]
        target[...] = target + sprite.alpha * (sprite.luma - target)
        half = size // 2
        chroma = frame[height:].reshape(2, height // 2, width // 2)
        target = chroma[:, top // 2 : top // 2 + half, left // 2 : left // 2 + half]
        target[...] = target + sprite.alpha_half * (128.0 - target)


def encode(plan: VideoPlan, settings: WorldSettings, path: Path) -> None:
    """Write the video to `path` (mp4, H.264, yuv420p, one key frame every 48 frames).

    Raises:
        OSError: The file cannot be written; what was written so far is left to the caller to
            remove.
    """
    options = {"preset": "ultrafast", "qp": _QUANTISER, "threads": "1"}
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=settings.fps, options=options)
        stream.width, stream.height, stream.pix_fmt = settings.width, settings.height, "yuv420p"
        stream.codec_context.gop_size = _KEY_FRAME_EVERY
        # one frame for all: x264 has its own copy of it when `encode` returns
        frame = av.VideoFrame(settings.width, settings.height, "yuv420p")
        views = [
            np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[:, : plane.width]  # type: ignore[call-overload]
            for plane in frame.planes
        ]
        for number, planes in enumerate(Painter(plan, settings).frames()):
            luma, chroma = np.split(planes, [settings.height])
            views[0][...] = luma
            for view, colour in zip(views[1:], chroma.reshape(2, *views[1].shape), strict=True):
                view[...] = colour
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
