"""Back ends: the libraries that can decode, and the choice of one by name.

`store.py` resolves a name here, once; after that only the reader's protocol counts. Nothing is
imported before it is asked for: torchcodec pulls torch, and a core install has neither.

| name | what it is | exact |
|---|---|---|
| `pyav` | the default: the sampler of `pyav.py` | on every file that it opens |
| `torchcodec` | needs torch and FFmpeg's shared libraries | yes; damaged files are lost whole |
| `decord` | last released in 2021 | closed groups of pictures; refuses what it gets wrong |
| `auto` | the first of pyav, torchcodec that loads | as the one it chose |

Run its tests: `python -m pytest tests/video/test_video_backends.py`.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata

from paravt_env.common.names import known_name
from paravt_env.video.types import VideoReader

BACKENDS: dict[str, str] = {
    "pyav": "paravt_env.video.readers.pyav:PyAVReader",
    "decord": "paravt_env.video.readers.decord:DecordReader",
    "torchcodec": "paravt_env.video.readers.torchcodec:TorchCodecReader",
}
"""Name -> "module:callable" that opens a path; imported when first used."""

PACKAGES = {"pyav": "av", "decord": "decord", "torchcodec": "torchcodec"}
"""Name -> the package that must be installed."""

AUTO = ("pyav", "torchcodec")
"""What `auto` tries, in order. Never decord: it refuses many files and may hang."""

KILL_TO_STOP = frozenset({"decord"})
"""Back ends that can hang inside C where no deadline is looked at: they get a process."""

CPU = "cpu"
ON_GPU = frozenset({"torchcodec"})
"""Back ends that decode on a GPU where `video_device` asks for one."""

ISOLATION = ("auto", "thread", "process")
"""Where decoding runs; `auto` is a process for `KILL_TO_STOP` and threads for the others."""

log = logging.getLogger("paravt_env.video")


@dataclass(frozen=True)
class Backend:
    """A resolved back end."""

    name: str
    """The name in `BACKENDS`, never `auto`."""
    target: str
    """ "module:callable"."""
    version: str
    """Of the package; "" for a back end that is not in `PACKAGES`."""
    device: str = CPU
    """Where it decodes: `CPU`, or a GPU by torch's name (`ON_GPU` only)."""

    def load(self) -> Callable[[str], VideoReader]:
        """Import what opens a path.

        Raises:
            ImportError: the package is missing or does not load; the message says what to install.
        """
        module, name = self.target.split(":")
        try:
            opens = getattr(importlib.import_module(module), name)
            return opens if self.device == CPU else functools.partial(opens, device=self.device)
        except (ImportError, OSError, RuntimeError) as error:
            if self.name not in PACKAGES:
                raise
            raise ImportError(_advice(self.name, error)) from error


def check_backend(name: str) -> str:
    """Return `name` if it is `auto` or that of an installed back end; imports nothing.

    Raises:
        ValueError: there is no such back end.
        ImportError: its package is not installed.
    """
    known_name("backend", name, ["auto", *BACKENDS])
    package = PACKAGES.get(name)
    if package is not None and importlib.util.find_spec(package) is None:
        raise ImportError(_advice(name, None))
    return name


def check_device(name: str, device: str) -> None:
    """Refuse a GPU of a back end that decodes on none; `auto` never chooses one.

    Raises:
        ValueError: no such device, or not for this back end.
    """
    if device != CPU and not re.fullmatch(r"cuda(:\d+)?", device):
        raise ValueError(f"video_device must be 'cpu', 'cuda' or 'cuda:N', not {device!r}")
    if device != CPU and name not in ON_GPU:
        able = ", ".join(map(repr, sorted(ON_GPU)))
        raise ValueError(f"video_device={device!r} needs backend={able}, not {name!r}")


def resolve_backend(name: str, device: str = CPU) -> Backend:
    """The back end of that name; `auto` is the first of `AUTO` that loads, and says which.

    Raises:
        ValueError: there is no such back end, or it does not decode on that device.
        ImportError: it is not installed; for `auto`: none of `AUTO` loads.
        RuntimeError: it decodes on a GPU, and there is none.
    """
    check_device(name, device)
    if name != "auto":
        check_backend(name)
        backend = Backend(name, BACKENDS[name], _version(name), device)
        if device != CPU:
            backend.load()
            importlib.import_module(backend.target.partition(":")[0]).check_device(device)
        return backend
    refused = []
    for candidate in AUTO:
        backend = Backend(candidate, BACKENDS[candidate], _version(candidate))
        try:
            backend.load()
        except ImportError as error:
            refused.append(str(error))
            continue
        level = logging.WARNING if refused else logging.INFO
        why = f" ({'; '.join(refused)})" if refused else ""
        log.log(level, "video back end auto: %s %s%s", candidate, backend.version, why)
        return backend
    raise ImportError(f"no video back end loads: {'; '.join(refused)}")


def isolated(backend: str, isolation: str) -> bool:
    """Whether a back end decodes in processes of its own, by the `isolation` asked for.

    >>> isolated("pyav", "auto"), isolated("pyav", "process"), isolated("decord", "auto")
    (False, True, True)
    """
    known_name("video isolation", isolation, ISOLATION)
    return isolation == "process" or (isolation == "auto" and backend in KILL_TO_STOP)


def _version(name: str) -> str:
    try:
        return metadata.version(PACKAGES[name])
    except (KeyError, metadata.PackageNotFoundError):
        return ""


def _advice(name: str, error: BaseException | None) -> str:
    package = PACKAGES[name]
    if error is None or (isinstance(error, ModuleNotFoundError) and error.name == package):
        extra = "av" if name == "pyav" else f"'paravt[{name}]'"
        other = "" if name == "pyav" else ", or choose backend='pyav'"
        return f"the video back end {name!r} is not installed: pip install {extra}{other}"
    why = next(iter(str(error).strip().splitlines()), type(error).__name__)
    needs = "FFmpeg's shared libraries and a torch of its release" if name == "torchcodec" else ""
    hint = f" (it needs {needs})" if needs else ""
    return f"the video back end {name!r} is installed but does not load{hint}: {why}"
