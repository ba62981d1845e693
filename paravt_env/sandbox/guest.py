"""What runs inside the sandbox: a small notebook that is told code and says what came of it.

A fork of `guest_server.py`, where nothing else of this package is: the standard library, PIL and
numpy. Names that code finds: `video`, `images`, `show`, `np`, `Image`. Everything here may be
changed by the code that it runs: limits that must hold are the kernel's, or are checked again
where the replies are read (`process.py`). Tests: `pytest tests/sandbox`.
"""

from __future__ import annotations

import ast
import io
import linecache
import resource
import socket
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import Any

from paravt_env.sandbox.wire import receive, send

CELL = "<code>"
"""The file name of code in its tracebacks."""

MOST_RAW = 2**31
"""Bytes of media in one message from outside, which is trusted."""


class OutputLimitError(BaseException):
    """More was written or shown than is allowed; no `except Exception` holds it up."""


class MediaError(ValueError):
    """What was asked of the video or of a picture cannot be given."""

    __module__ = "builtins"  # a traceback then names it without where it stands


class Written(io.TextIOBase):
    """Standard output of code: kept up to a limit, past which it raises."""

    def __init__(self, limit: int) -> None:
        self.limit, self.parts, self.length = limit, [], 0  # type: ignore[var-annotated]

    def writable(self) -> bool:
        """True."""
        return True

    def write(self, text: str) -> int:
        """Keep a text; what is past the limit is dropped."""
        kept = str(text)[: self.limit - self.length]
        self.parts.append(kept)
        self.length += len(kept)
        if len(kept) < len(text):
            raise OutputLimitError(f"more than {self.limit} characters were written")
        return len(text)

    def text(self) -> str:
        """What was written."""
        return "".join(self.parts)


class Host:
    """Our end of the link: asks for media, and holds what a run has shown."""

    def __init__(self, link: Any, limits: dict[str, Any]) -> None:
        from PIL import Image

        self.link, self.limits, self.Image = link, limits, Image
        self.shown: list[tuple[bytes, float | None]] = []

    def ask(self, question: dict[str, Any]) -> tuple[dict[str, Any], bytearray]:
        """Ask for media; what cannot be given raises in the code that asked."""
        send(self.link, question)
        answer, raw = receive(self.link, MOST_RAW)
        if "refused" in answer:
            raise MediaError(answer["refused"])
        return answer, raw

    def show(self, *pictures: Any) -> None:
        """Show pictures: PIL images, arrays, or lists of them, each scaled to fit the frame."""
        for picture in pictures:
            if isinstance(picture, list | tuple | Iterator):
                self.show(*picture)
                continue
            image = self.as_image(picture)
            if len(self.shown) >= self.limits["pictures"]:
                most = self.limits["pictures"]
                raise OutputLimitError(f"more than {most} pictures were shown in one turn")
            time = image.info.get("time")
            self.shown.append((self.fitted(image).tobytes(), time))

    def as_image(self, picture: Any) -> Any:
        """A PIL image of what was given: one already, or an array (H, W) or (H, W, 3)."""
        if isinstance(picture, self.Image.Image):
            return picture
        if hasattr(picture, "__array_interface__"):
            return self.Image.fromarray(picture)
        raise TypeError(f"show() takes PIL images and arrays, not {type(picture).__name__}")

    def fitted(self, image: Any) -> Any:
        """As large as it fits into the frame, in its own proportions, the rest black."""
        height, width = self.limits["size"]
        scale = min(width / image.width, height / image.height)
        size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
        image = image.convert("RGB")
        how = self.Image.Resampling
        if size != image.size:
            image = image.resize(size, how.NEAREST if scale >= 2 else how.BICUBIC)
        if size == (width, height):
            return image
        frame = self.Image.new("RGB", (width, height))
        frame.paste(image, ((width - size[0]) // 2, (height - size[1]) // 2))
        return frame


class Video:
    """The task's video: what is known of it, and frames of it when they are asked for."""

    def __init__(self, host: Host, about: dict[str, Any]) -> None:
        self._host = host
        self.duration, self.fps = about["duration"], about["fps"]
        self.width, self.height = about["width"], about["height"]

    def __repr__(self) -> str:
        """What a model may want to print first."""
        return (
            f"Video(duration={self.duration:.1f}, fps={self.fps:.4g}, width={self.width}, "
            f"height={self.height})"
        )

    def frames(self, start: float, end: float, n: int) -> list[Any]:
        """`n` frames at equal distances between `start` and `end` (seconds), as PIL images.

        Each one's moment in seconds is its `info["time"]`.
        """
        asked = {"ask": "frames", "start": float(start), "end": float(end), "n": int(n)}
        answer, raw = self._host.ask(asked)
        height, width = answer["size"]
        step = height * width * 3
        images = []
        for number, time in enumerate(answer["times"]):
            part = bytes(raw[number * step : (number + 1) * step])
            image = self._host.Image.frombytes("RGB", (width, height), part)
            image.info["time"] = time
            images.append(image)
        return images

    def frame(self, time: float) -> Any:
        """The frame on screen at `time` (seconds), as a PIL image."""
        return self.frames(time, time + 1e-3, 1)[0]


class Images:
    """The task's pictures: a sequence of PIL images, each fetched when it is first looked at."""

    def __init__(self, host: Host, count: int) -> None:
        self._host, self._count = host, count
        self._kept: dict[int, Any] = {}

    def __len__(self) -> int:
        return self._count

    def __repr__(self) -> str:
        """How many there are."""
        return f"<{self._count} images>"

    def __getitem__(self, index: int) -> Any:
        """A picture, whole and in its own size."""
        place = range(self._count)[index]
        if place not in self._kept:
            answer, raw = self._host.ask({"ask": "image", "index": place})
            height, width = answer["size"]
            self._kept[place] = self._host.Image.frombytes("RGB", (width, height), bytes(raw))
        return self._kept[place]


def names(host: Host, task: dict[str, Any]) -> dict[str, Any]:
    """The names that code finds, in a session of its own."""
    import numpy

    found = {
        "__name__": "__main__",
        "show": host.show,
        "np": numpy,
        "Image": host.Image,
        "images": Images(host, task["images"]),
    }
    if task["video"] is not None:
        found["video"] = Video(host, task["video"])
    return found


def run(code: str, session: dict[str, Any], host: Host) -> dict[str, Any]:
    """Run code in a session; what it wrote and showed, and what became of it."""
    host.shown = []
    output = Written(host.limits["characters"])
    status, error = "ok", ""
    sys.stdout = sys.stderr = output
    try:
        linecache.cache[CELL] = (len(code), None, code.splitlines(True), CELL)
        tree = ast.parse(code, CELL)
        last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, CELL, "exec"), session)
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), CELL, "eval"), session)
            display(value, host)
    except OutputLimitError as limit:
        status, error = "output_limit", str(limit)
    except MemoryError as full:
        status, error = "out_of_memory", said(full, host)
    except OSError as refused:
        status, error = "denied", said(refused, host)
    except BaseException as raised:
        status, error = "code_error", said(raised, host)
    finally:
        sys.stdout = sys.stderr = io.StringIO()
    return {"done": status, "text": output.text(), "error": error}


def display(value: Any, host: Host) -> None:
    """Show the value of a last line as a notebook does: a picture, or what `repr` says."""
    pictures = value if isinstance(value, list | tuple) and value else [value]
    if all(isinstance(one, host.Image.Image) for one in pictures):
        host.show(*pictures)
    elif value is not None:
        print(repr(value))


def said(error: BaseException, host: Host) -> str:
    """A traceback with the code's own lines alone, its end where it is too long."""
    try:
        lines = traceback.extract_tb(error.__traceback__)
        own = traceback.format_list([line for line in lines if line.filename == CELL])
        text = "".join([*own, *traceback.format_exception_only(error)])
    except Exception:
        text = type(error).__name__
    return text[-host.limits["characters"] :].strip()


def main(lock_in: Callable[[], None]) -> None:
    """Take limits and the task, lock this process in, run what comes until the link closes."""
    link = socket.socket(fileno=0)
    send(link, {"ready": True})
    hello, _ = receive(link, 0)
    host = Host(link, hello["limits"])
    for name, value in hello["rlimits"].items():
        resource.setrlimit(getattr(resource, name), (value, value))
    session = names(host, hello["task"])
    lock_in()
    while True:
        request, _ = receive(link, 0)
        reply = run(request["code"], session, host)
        raw = b"".join(pixels for pixels, _ in host.shown)
        send(link, {**reply, "times": [time for _, time in host.shown]}, raw)
