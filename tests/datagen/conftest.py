"""Two tiny films of the synthetic world, and settings that ask a local server about them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from support.known_worlds import Film, Models, synthetic

from agents.chat.client import ChatConfig
from paravt_env.tasksets.made.synthetic import SyntheticTasks
from train.config.reason import ClipConfig, ReasonConfig

SMALL: dict[str, Any] = {
    "minutes": (1.0, 1.2), "scenes": 6, "event_seconds": 5.0, "event_jitter": 1.0,
    "width": 64, "height": 64, "fps": 4,
}  # fmt: skip


class World(NamedTuple):
    """A folder of videos, and all that is in them, by path."""

    folder: Path
    films: dict[str, Film]


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Two films of a minute."""
    root = tmp_path_factory.mktemp("world")
    tasks = SyntheticTasks("val", root=root, videos=2, progress=False, **SMALL)
    films = {task.video: synthetic(task) for task in tasks}
    return World(Path(next(iter(films))).parent, films)


@pytest.fixture
def models(world: World) -> Iterator[Models]:
    """A captioner, a writer and solvers that know the films."""
    models = Models(list(world.films.values()))
    yield models
    models.close()


@pytest.fixture
def settings(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Settings of a set made of the films, all models behind one address."""
    monkeypatch.setenv("no_proxy", "*")

    def made(url: str, server: dict[str, Any] | None = None, **changes: Any) -> ReasonConfig:
        known = ChatConfig(url, "known", **{"backoff": 0.0, "retries": 1, **(server or {})})
        own = {"source": str(world.folder), "output": str(tmp_path / "set")}
        own |= {"clips": ClipConfig(height=64, frames=5)}
        return ReasonConfig(captioner=known, writer=known, **{**own, **changes})

    return made
