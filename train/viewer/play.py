"""Episodes that people play: one environment a run, one episode at a time in it.

Between the pages and `train.viewer.human`. Tests: `pytest tests/viewer/test_play.py`.
"""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from threading import RLock

from paravt_env.protocol.styles import prompt_style
from paravt_env.task import TaskError
from paravt_env.vector import LongVideoVectorEnv
from train.common.errors import ConfigError
from train.config import recipe
from train.config.run import TrainConfig
from train.evaluation.measure import in_mode
from train.rollout.starts import Start
from train.viewer.errors import CannotShow
from train.viewer.human import Episode
from train.viewer.runs import SETTINGS, Runs
from train.viewer.traces import save

KEPT_TABLES = 2
"""Runs whose environment is open at a time."""
READY = ("after.yaml", SETTINGS)
"""Settings to play with: the evaluation's, so that its rows can be compared, or the run's."""


class Table:
    """The environment of a run's evaluation, and who plays in it.

    Args:
        folder: Of the run.

    Raises:
        CannotShow: The run's settings cannot be read, or no environment can be made of them.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        path = next((folder / name for name in READY if (folder / name).is_file()), None)
        if path is None:
            raise CannotShow(f"{folder.name} holds no settings to play with")
        try:
            config = recipe.load(TrainConfig, path)
            env, self.settings = in_mode(config.env, config.evaluation)
            self.style = prompt_style(config.agent.prompt_style)
            self.env: LongVideoVectorEnv = env.make(
                1, self.settings.split, self.settings.frame_budgets
            )
        except (ConfigError, ValueError, OSError, ImportError) as error:
            raise CannotShow(f"{folder.name}: no play here: {error}", 422) from error
        self.episode: Episode | None = None
        self.first_attempt: bool | None = None

    @property
    def budgets(self) -> tuple[int, ...]:
        """K that can be chosen."""
        return self.settings.frame_budgets

    def start(self, task_id: str, frame_budget: int) -> Episode:
        """A new episode; one in progress is abandoned.

        Raises:
            CannotShow: There is no such task or number of frames.
        """
        try:
            self.env.simulation.tasks.by_id(task_id)
        except TaskError as error:
            raise CannotShow(str(error)) from error
        if frame_budget not in self.budgets:
            said = ", ".join(map(str, self.budgets))
            raise CannotShow(f"K is one of {said}, not {frame_budget}", 400)
        self.leave()
        self.first_attempt = None
        self.episode = Episode(self.env, Start(task_id, frame_budget, 0), self._ended)
        return self.episode

    def leave(self) -> None:
        """End an episode in progress."""
        if self.episode is not None:
            self.episode.leave()

    def close(self) -> None:
        """End the episode and the environment."""
        self.leave()
        self.env.close()

    def _ended(self, episode: Episode) -> None:
        self.first_attempt = save(self.folder, episode, self.settings, self.style)


class Tables:
    """The tables of all runs; the one that was used longest ago is closed first."""

    def __init__(self, runs: Runs) -> None:
        self.runs = runs
        self._tables: OrderedDict[str, Table] = OrderedDict()
        self._lock = RLock()

    def of(self, name: str) -> Table:
        """The table of a run."""
        folder = self.runs.folder(name)
        with self._lock:
            if name not in self._tables:
                self._tables[name] = Table(folder)
                while len(self._tables) > KEPT_TABLES:
                    self._tables.popitem(last=False)[1].close()
            self._tables.move_to_end(name)
            return self._tables[name]

    def start(self, name: str, task_id: str, frame_budget: int) -> Episode:
        """A new episode at the table of a run."""
        with self._lock:
            return self.of(name).start(task_id, frame_budget)

    def episode(self, episode: str) -> tuple[str, Table, Episode]:
        """Name of the run, table and episode, by the episode's name.

        Raises:
            CannotShow: It was left, or never was.
        """
        with self._lock:
            for name, table in self._tables.items():
                if table.episode is not None and table.episode.name == episode:
                    return name, table, table.episode
        raise CannotShow("this episode is over: start another one")

    def close(self) -> None:
        """Close all tables."""
        with self._lock:
            while self._tables:
                self._tables.popitem()[1].close()
